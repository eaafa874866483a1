//! Memory of a live process, read from outside while it runs.
//!
//! Whatever residue reads may have changed by the next read, and may be garbage: readers bound what
//! they follow and check what they find.

use std::{fs::File, os::unix::fs::FileExt as _};

use super::{Avma, Process};

/// Memory that can be read.
pub trait Memory {
    /// Fills `into` from `address` on; `None` unless this can read all of it.
    fn read(&self, address: Avma, into: &mut [u8]) -> Option<()>;

    /// A value of `N` bytes.
    fn array<const N: usize>(&self, address: Avma) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Some(bytes)
    }

    /// A little-endian word.
    fn u64(&self, address: Avma) -> Option<u64> {
        self.array(address).map(u64::from_le_bytes)
    }

    /// A little-endian half word.
    fn u32(&self, address: Avma) -> Option<u32> {
        self.array(address).map(u32::from_le_bytes)
    }

    /// Text that ends in a zero byte or after `most` bytes; `None` unless this can read it and it is
    /// UTF-8.
    fn text(&self, address: Avma, most: usize) -> Option<String> {
        let mut bytes = Vec::new();
        for at in 0..most as u64 {
            match self.array(address.checked_add(at)?)? {
                [0] => break,
                [byte] => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).ok()
    }

    /// A pointer.
    fn pointer(&self, address: Avma) -> Option<Avma> {
        self.u64(address).map(Avma)
    }
}

/// The memory of a process: `/proc/PID/mem`, held open.
#[derive(Debug)]
pub struct ProcessMemory(File);

impl ProcessMemory {
    /// Opens the memory; `None` if the process is gone or residue may not read it.
    #[must_use]
    pub fn of(process: &Process) -> Option<Self> {
        process.memory().map(Self)
    }
}

impl Memory for ProcessMemory {
    fn read(&self, address: Avma, into: &mut [u8]) -> Option<()> {
        self.0.read_exact_at(into, address.0).ok()
    }
}
