//! Which processes descend from those that are recorded. A daemon's parent has ended by the time anybody asks, so
//! each is noted as it is made.

use aya_ebpf::{helpers::generated::bpf_get_current_task, programs::TracePointContext};

use crate::{
    maps::{DESCENDANTS, TARGETS, TASK_OFFSETS},
    stack::read_kernel,
    syscall::{current_tgid, field},
    thread::current_tid,
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
    let offsets = TASK_OFFSETS.load();
    // SAFETY: a plain helper call.
    let task = unsafe { bpf_get_current_task() };
    let is_last = match offsets.live {
        // The kernel does not say.
        0 => current_tid() == current_tgid(),
        live => read_kernel(read_kernel(task, offsets.signal), live) as u32 == 0,
    };
    if is_last {
        let _ = DESCENDANTS.remove(current_tgid());
    }
}
