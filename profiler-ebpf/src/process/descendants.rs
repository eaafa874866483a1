//! Which processes descend from those that are recorded.
//!
//! Each descendant is noted as its parent makes it: the parent of a daemon has ended by the time anybody asks.

use aya_ebpf::programs::TracePointContext;

use crate::{
    kernel::{
        syscall::field,
        task::{current_tgid, is_last_thread},
    },
    maps::{DESCENDANTS, TARGETS},
};

/// linux/sched.h
const CLONE_THREAD: u64 = 0x1_0000;
/// The offset of the new task's id, in the tracepoint `task:task_newtask` (include/trace/events/task.h).
const PID: usize = 8;
/// The offset of the flags of clone, in the same tracepoint.
const CLONE_FLAGS: usize = 32;

/// The current process, or one of its threads, has made another process.
#[inline(always)]
pub fn created(ctx: &TracePointContext) -> Option<()> {
    if field::<u64>(ctx, CLONE_FLAGS) & CLONE_THREAD != 0 {
        return None;
    }
    let parent = current_tgid();
    // SAFETY: the value is copied at once.
    let target = unsafe { TARGETS.get(parent) }.copied();
    // SAFETY: the value is copied at once.
    let slot = target.or_else(|| unsafe { DESCENDANTS.get(parent) }.copied())?;
    DESCENDANTS.insert(field::<u32>(ctx, PID), slot, 0).ok()
}

/// The current thread ends. With the last thread of a process, the process ends.
#[inline(always)]
pub fn exited() {
    if is_last_thread() {
        let _ = DESCENDANTS.remove(current_tgid());
    }
}
