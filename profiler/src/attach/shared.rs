//! Arrays of the kernel side, as memory that the kernel side and user space share.
//!
//! User space reads these arrays several times a second, from end to end. A system call for each value would
//! cost more than everything else that user space does. And while such a call runs, the kernel does not give
//! events on that CPU to our tracepoint programs.

use std::{
    marker::PhantomData,
    os::fd::AsFd as _,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use residue_ebpf::abi::{
    heap::{LiveBucket, StackTotals},
    window::{ProcessWindows, TaskState, WindowState},
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::AttachError;

/// A value that one side can read word by word while the other side writes.
///
/// # Safety
///
/// The type must be `repr(C)`, aligned to 8 bytes, and valid for every bit pattern.
pub unsafe trait Words: Copy {}

// SAFETY: repr(C), only integers, the first of 8 bytes (see the size asserts beside the types).
unsafe impl Words for StackTotals {}
// SAFETY: as above.
unsafe impl Words for LiveBucket {}
// SAFETY: as above.
unsafe impl Words for WindowState {}
// SAFETY: as above.
unsafe impl Words for ProcessWindows {}
// SAFETY: repr(C), only integers, some of 8 bytes (see the size asserts beside the type).
unsafe impl Words for TaskState {}

/// An array of the kernel side in shared memory.
#[derive(Debug)]
pub struct SharedArray<T> {
    words: NonNull<AtomicU64>,
    len: u32,
    /// Kept because programs that residue loads later refer to the map by its file descriptor.
    _map: MapData,
    _values: PhantomData<T>,
}

// SAFETY: the memory belongs to the mapping and not to a thread, and only atomics access the memory.
unsafe impl<T> Send for SharedArray<T> {}

impl<T: Words> SharedArray<T> {
    /// How many words a value has.
    const WORDS: usize = size_of::<T>() / size_of::<u64>();

    pub(super) fn of(ebpf: &mut Ebpf, name: &str) -> Result<Self, AttachError> {
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            panic!("the embedded object has the maps of profiler-ebpf/src/maps.rs");
        };
        Self::share(map).map_err(AttachError::Share)
    }

    fn share(map: MapData) -> Result<Self, std::io::Error> {
        let len = map.info().map_err(std::io::Error::other)?.max_entries();
        // SAFETY: the kernel chooses free address space for this new mapping.
        let words = unsafe {
            mmap(
                ptr::null_mut(),
                Self::bytes(len),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        }?;
        Ok(Self {
            words: NonNull::new(words.cast()).expect("mmap does not map the first page"),
            len,
            _map: map,
            _values: PhantomData,
        })
    }

    /// How many values the array has.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.len
    }

    /// The value at an index; `None` beyond the end. Reads one word after the other, so the kernel side may
    /// change the value in between.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<T> {
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        for word in 0..Self::WORDS {
            let read = self.word(index, word)?.load(Ordering::Relaxed);
            // SAFETY: the word is within the value, and the value is aligned for words.
            unsafe { value.as_mut_ptr().cast::<u64>().add(word).write(read) };
        }
        // SAFETY: the loop has written every word, and the type is valid for any bits.
        Some(unsafe { value.assume_init() })
    }

    /// One word of a value.
    #[must_use]
    pub fn word(&self, index: u32, word: usize) -> Option<&AtomicU64> {
        if index >= self.len || word >= Self::WORDS {
            return None;
        }
        // SAFETY: the word is within the mapping, which lives as long as `self`; only atomics read or write
        // there.
        Some(unsafe { self.words.add(index as usize * Self::WORDS + word).as_ref() })
    }

    const fn bytes(len: u32) -> usize {
        len as usize * size_of::<T>()
    }
}

impl<T> Drop for SharedArray<T> {
    fn drop(&mut self) {
        let bytes = self.len as usize * size_of::<T>();
        // SAFETY: the mapping is ours, and nothing refers to the mapping any more.
        unsafe { munmap(self.words.as_ptr().cast(), bytes) }
            .expect("it was mapped with this length");
    }
}
