//! Arrays of the kernel side, as memory that it and user space share.
//!
//! They are read several times a second, all of them: a system call for each value would cost more than
//! the whole rest of what user space does, and would keep the kernel from giving our tracepoint programs
//! the events of other threads meanwhile.

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

/// A value that can be read word by word while it is written.
///
/// # Safety
///
/// It must be `repr(C)`, aligned to 8 bytes, and valid for every bit pattern.
pub unsafe trait Words: Copy {}

// SAFETY: repr(C), integers only, the first of 8 bytes (the size asserts beside the types).
unsafe impl Words for StackTotals {}
// SAFETY: as above.
unsafe impl Words for LiveBucket {}
// SAFETY: as above.
unsafe impl Words for WindowState {}
// SAFETY: as above.
unsafe impl Words for ProcessWindows {}
// SAFETY: repr(C), integers only, some of 8 bytes (the size asserts beside the type).
unsafe impl Words for TaskState {}

/// See the module documentation.
#[derive(Debug)]
pub struct SharedArray<T> {
    words: NonNull<AtomicU64>,
    len: u32,
    /// Programs that are loaded later refer to it by its file descriptor.
    _map: MapData,
    _values: PhantomData<T>,
}

// SAFETY: the memory belongs to the mapping and not to a thread, and is accessed by atomics alone.
unsafe impl<T> Send for SharedArray<T> {}

impl<T: Words> SharedArray<T> {
    /// Words of a value.
    const WORDS: usize = size_of::<T>() / size_of::<u64>();

    pub(super) fn of(ebpf: &mut Ebpf, name: &str) -> Result<Self, AttachError> {
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            panic!("the embedded object has the maps of profiler-ebpf/src/maps.rs");
        };
        Self::share(map).map_err(AttachError::Share)
    }

    fn share(map: MapData) -> Result<Self, std::io::Error> {
        let len = map.info().map_err(std::io::Error::other)?.max_entries();
        // SAFETY: a new mapping, somewhere in free address space.
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

    /// How many values there are.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.len
    }

    /// A value, each word read at a moment of its own; `None` where there is none.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<T> {
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        for word in 0..Self::WORDS {
            let read = self.word(index, word)?.load(Ordering::Relaxed);
            // SAFETY: within the value, which is aligned for words.
            unsafe { value.as_mut_ptr().cast::<u64>().add(word).write(read) };
        }
        // SAFETY: every word was written, and any bits are valid.
        Some(unsafe { value.assume_init() })
    }

    /// One word of a value.
    #[must_use]
    pub fn word(&self, index: u32, word: usize) -> Option<&AtomicU64> {
        if index >= self.len || word >= Self::WORDS {
            return None;
        }
        // SAFETY: within the mapping, which lives as long as `self`; nothing but atomics read or
        // write there.
        Some(unsafe { self.words.add(index as usize * Self::WORDS + word).as_ref() })
    }

    const fn bytes(len: u32) -> usize {
        len as usize * size_of::<T>()
    }
}

impl<T> Drop for SharedArray<T> {
    fn drop(&mut self) {
        let bytes = self.len as usize * size_of::<T>();
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe { munmap(self.words.as_ptr().cast(), bytes) }
            .expect("it was mapped with this length");
    }
}
