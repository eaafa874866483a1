//! Which processes descend from those that are recorded. A daemon's parent has ended by the time anybody asks, so
//! each is noted as it is made.

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
/// Of the tracepoint `task:task_newtask` (include/trace/events/task.h).
const PID: usize = 8;
const CLONE_FLAGS: usize = 32;

/// The current process, or one of its threads, made another.
#[inline(always)]
pub fn created(ctx: &TracePointContext) -> Option<()> {
    if field::<u64>(ctx, CLONE_FLAGS) & CLONE_THREAD != 0 {
        return None;
    }
    let parent = current_tgid();
    // SAFETY: copied at once.
    let target = unsafe { TARGETS.get(parent) }.copied();
    // SAFETY: as above.
    let slot = target.or_else(|| unsafe { DESCENDANTS.get(parent) }.copied())?;
    DESCENDANTS.insert(field::<u32>(ctx, PID), slot, 0).ok()
}

/// The current thread ends, and its process if it was the last: the first may end long before.
#[inline(always)]
pub fn exited() {
    if is_last_thread() {
        let _ = DESCENDANTS.remove(current_tgid());
    }
}
