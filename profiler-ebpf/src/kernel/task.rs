//! The current task: its ids, its age, its waits and its memory.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_task, bpf_get_current_task_btf},
};
use residue_ebpf::abi::window::SocketOffsets;

use super::memory::{load, read_kernel};
use crate::maps::{SOCKET_OFFSETS, TASK_OFFSETS};

/// The size of a page, bytes.
const PAGE: u64 = 4096;
/// `MM_FILEPAGES`, `MM_ANONPAGES` and `MM_SHMEMPAGES` (linux/mm_types_task.h): every kind of page except swap.
const RESIDENT: [u32; 3] = [0, 1, 3];

/// The current thread's id.
#[inline(always)]
pub fn current_tid() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// The current process's id.
#[inline(always)]
pub fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Where the current thread keeps its thread-local storage, AVMA.
#[inline(always)]
pub fn fsbase() -> u64 {
    // SAFETY: a plain helper call.
    let task = unsafe { bpf_get_current_task() };
    read_kernel(task, TASK_OFFSETS.load().fsbase)
}

/// Whether the current thread, which ends, is the last one of its process. The first thread may end long
/// before the others.
#[inline(always)]
pub fn is_last_thread() -> bool {
    let offsets = TASK_OFFSETS.load();
    // SAFETY: a plain helper call.
    let task = unsafe { bpf_get_current_task() };
    match offsets.live {
        // The kernel does not say how many threads are alive.
        0 => current_tid() == current_tgid(),
        live => read_kernel(read_kernel(task, offsets.signal), live) as u32 == 0,
    }
}

/// The resident set of the current process, bytes; zero if the kernel does not say. Leaves out what each CPU
/// has yet to add to the kernel's counters.
#[inline(always)]
pub fn resident_set() -> u64 {
    let offsets = SOCKET_OFFSETS.load();
    if offsets.rss == 0 {
        return 0;
    }
    // SAFETY: a plain helper call.
    let task = unsafe { bpf_get_current_task_btf() };
    let mm = load(task as u64, offsets.mm);
    // Before Linux 6.2, these counters are words, and the verifier does not know their type.
    let is_typed = offsets.rss_stride as usize != size_of::<u64>();
    let mut pages = 0;
    for counter in RESIDENT {
        let offset = offsets.rss + counter * offsets.rss_stride;
        let count = match is_typed {
            true => load(mm, offset),
            false => read_kernel(mm, offset),
        };
        // A counter may be negative while some CPU has yet to add to it.
        if count as i64 > 0 {
            pages += count;
        }
    }
    pages * PAGE
}

/// How often the current thread has waited so far; zero if the kernel does not say.
#[inline(always)]
pub fn waits() -> u64 {
    of_current_task(|offsets| offsets.nvcsw)
}

/// When the current thread was started, nanoseconds of the monotonic clock; zero if the kernel does not say.
#[inline(always)]
pub fn started_ns() -> u64 {
    of_current_task(|offsets| offsets.start_time)
}

/// A word of the current `task_struct`; zero where its layout is not known.
#[inline(always)]
fn of_current_task(offset: impl FnOnce(&SocketOffsets) -> u32) -> u64 {
    let offsets = SOCKET_OFFSETS.load();
    if offsets.files == 0 {
        return 0;
    }
    // SAFETY: a plain helper call.
    let task = unsafe { bpf_get_current_task_btf() };
    load(task as u64, offset(&offsets))
}
