//! The limits on residue's own open files and address space, which residue raises as far as it may.

use std::sync::OnceLock;

use residue_ebpf::abi::heap::{BUCKET_SLOTS, LiveBucket, live_buckets};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::SessionError;

/// How many bytes of address space a recording needs beside its live set. Residue could record Python and Node with
/// 320 MiB in all, and not with 280: each thread has a stack and an arena, and a failed allocation ends residue
/// without a word.
const ADDRESS_SPACE: u64 = 512 << 20;
/// How many bytes a live allocation takes in the live set, which residue maps: two buckets for as many as one
/// bucket holds.
const LIVE_BYTES: u64 = {
    let buckets = live_buckets(BUCKET_SLOTS as u32) as usize;
    (buckets * size_of::<LiveBucket>()).div_ceil(BUCKET_SLOTS) as u64
};

/// The limits on open files and on address space, as they were when residue began.
static BEFORE: OnceLock<[(Resource, Rlimit); 2]> = OnceLock::new();

/// Raises the soft limits: each probe takes two open files, and residue is to track `max_live` allocations.
///
/// # Errors
///
/// When the hard limit on address space is too low. Otherwise residue would fail anywhere, and say nothing of the
/// limit.
pub fn raise(max_live: u32) -> Result<(), SessionError> {
    let limits = [Resource::Nofile, Resource::As].map(|resource| (resource, getrlimit(resource)));
    BEFORE.get_or_init(|| limits);
    for (resource, limit) in limits {
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        // If the kernel refuses, the limit stays as it was.
        let _ = setrlimit(resource, raised);
    }
    let needed = ADDRESS_SPACE + LIVE_BYTES * u64::from(max_live);
    match getrlimit(Resource::As).current {
        Some(bytes) if bytes < needed => Err(SessionError::AddressSpace { bytes, needed }),
        _ => Ok(()),
    }
}

/// Gives a command the limits that it would have without residue. Makes system calls only.
///
/// # Errors
///
/// When the kernel refuses, which it has no reason to.
pub fn restore() -> rustix::io::Result<()> {
    let before = BEFORE.get().into_iter().flatten();
    for (resource, limit) in before {
        setrlimit(*resource, *limit)?;
    }
    Ok(())
}
