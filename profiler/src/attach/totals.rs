//! The totals of all stacks, as memory that the kernel side and user space share.
//!
//! They are read several times a second, all of them: a system call for each would cost more than the
//! whole rest of what user space does.

use std::{
    os::fd::AsFd as _,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use residue_ebpf::abi::heap::StackTotals;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::AttachError;

/// Words of a value.
const WORDS: usize = size_of::<StackTotals>() / size_of::<u64>();

/// See the module documentation.
#[derive(Debug)]
pub struct TotalsMap {
    values: NonNull<[AtomicU64; WORDS]>,
    len: u32,
    /// Programs that are loaded later refer to it by its file descriptor.
    _map: MapData,
}

// SAFETY: the memory belongs to the mapping and not to a thread, and is read by atomics alone.
unsafe impl Send for TotalsMap {}

impl TotalsMap {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, AttachError> {
        let Some(Map::Array(map)) = ebpf.take_map("TOTALS") else {
            panic!("the embedded object has the maps of profiler-ebpf/src/maps.rs");
        };
        Self::share(map).map_err(AttachError::Totals)
    }

    fn share(map: MapData) -> Result<Self, std::io::Error> {
        let len = map.info().map_err(std::io::Error::other)?.max_entries();
        // SAFETY: a new mapping, somewhere in free address space.
        let values = unsafe {
            mmap(
                ptr::null_mut(),
                bytes(len),
                ProtFlags::READ,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        }?;
        let values = NonNull::new(values.cast()).expect("mmap does not map the first page");
        Ok(Self {
            values,
            len,
            _map: map,
        })
    }

    /// How many stack ids there are.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.len
    }

    /// The totals of a stack, each read at a moment of its own; of an id that does not exist, none.
    #[must_use]
    pub fn get(&self, id: u32) -> StackTotals {
        if id >= self.len {
            return StackTotals::default();
        }
        // SAFETY: within the mapping, which lives as long as `self`; nothing but atomics read or
        // write there.
        let words = unsafe { self.values.add(id as usize).as_ref() };
        let words = words.each_ref().map(|word| word.load(Ordering::Relaxed));
        // SAFETY: as many words as a StackTotals has, which is repr(C) and made of u64 alone.
        unsafe { std::mem::transmute::<[u64; WORDS], StackTotals>(words) }
    }
}

impl Drop for TotalsMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe { munmap(self.values.as_ptr().cast(), bytes(self.len)) }
            .expect("it was mapped with this length");
    }
}

const fn bytes(len: u32) -> usize {
    len as usize * size_of::<StackTotals>()
}
