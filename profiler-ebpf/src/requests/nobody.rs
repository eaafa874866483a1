//! Whose an allocation is whose thread works for no window as far as is known.
//!
//! While a single request is under way, it is that one's: there is no other for which it could be. While several
//! are, or others may be that nobody sees, it is *ambiguous*, and where the thread may have worked for one of them
//! it has *escaped* from it: no
//! window that was under way meanwhile is known to have all of its allocations.
//!
//! Three kinds of threads are known to work for no request:
//!
//! - The thread of an event loop of asyncio, outside of the contexts of requests' tasks.
//! - Where each request has a thread that is bound to it, a thread with work of its own: one that was bound to a
//!   window itself, or has waited for connections or for the clock; of Python's also one that waits as a loop does.
//!   Others wait for somebody who hands them work.
//! - One that was just started: it may be for a connection whose request has yet to come.
//!
//! A thread of Python's that writes something at times, and waits with a timeout in between, looks like one of a
//! pool. So where each request has a thread, what other threads of Python's allocate is never a single window's.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use residue_ebpf::abi::window::{AMBIGUOUS, BACKGROUND, alone_under_way, count_under_way};

use super::{lifecycle::waits_as_loop, open, tasks};
use crate::{
    atomic,
    kernel::task::{started_ns, waits},
    maps::PROCESS_WINDOWS,
    state::thread::ThreadState,
};

/// So long after it was started, nanoseconds, a thread is new. One of Python's waits meanwhile, for the interpreter's
/// lock.
const NEW_NS: u64 = 1_000_000_000;

/// What a thread of Python's allocates up to this size, bytes, may be the interpreter's own, such as the lock by
/// which it waits: objects come from the allocator only if they are larger (`SMALL_REQUEST_THRESHOLD`,
/// Objects/obmalloc.c).
pub const INTERPRETERS_OWN: u64 = 512;

/// The window of an allocation of `size` bytes; [`AMBIGUOUS`] or [`BACKGROUND`] if it is no single one's.
#[inline(always)]
pub fn of_allocation(thread: &ThreadState, process: u16, size: u64) -> u32 {
    let Some(process) = PROCESS_WINDOWS.get_ptr_mut(u32::from(process)) else {
        return BACKGROUND;
    };
    // SAFETY: a map value; its fields are only changed atomically.
    let process = unsafe { &mut *process };
    let any_unbound = process.unbound_open != 0;
    let at_worst = if any_unbound { AMBIGUOUS } else { BACKGROUND };
    let under_way = process.under_way;
    if count_under_way(under_way) == 0 {
        return at_worst;
    }
    let alone = open(alone_under_way(under_way)).filter(|_| !process.may_miss_requests());
    let any_unbound = alone
        .as_ref()
        .map_or(any_unbound, |window| window.bound() == 0);
    match (works_for(thread, any_unbound, size), alone) {
        (WorksFor::None, _) => at_worst,
        (WorksFor::Request, Some(window)) => {
            // SAFETY: a field of a map value.
            unsafe { atomic::add(&raw mut window.others, 1) };
            window.id()
        }
        _ => {
            // SAFETY: a field of a map value.
            unsafe { atomic::add(&raw mut process.escaped, 1) };
            AMBIGUOUS
        }
    }
}

/// The same, of a thread that works for a task whose window is not known: it is the task's.
#[inline(always)]
pub fn of_task(thread: &ThreadState, process: u16, task: u32) -> u32 {
    let Some(process) = PROCESS_WINDOWS.get_ptr_mut(u32::from(process)) else {
        return BACKGROUND;
    };
    // SAFETY: as above.
    let process = unsafe { &mut *process };
    if process.unbound_open == 0 {
        return BACKGROUND;
    }
    if thread.arrival.is_known() || !tasks::serves_several(task, process) {
        return task;
    }
    match open(alone_under_way(process.under_way)) {
        Some(window) if !process.may_miss_requests() => {
            // SAFETY: as above.
            unsafe { atomic::add(&raw mut window.others, 1) };
            window.id()
        }
        _ => {
            // SAFETY: as above.
            unsafe { atomic::add(&raw mut process.escaped, 1) };
            task
        }
    }
}

/// What a thread does that is bound to no request.
#[derive(Clone, Copy)]
enum WorksFor {
    /// It is for no request.
    None,
    /// It is for one of the requests under way, as far as can be known.
    Request,
    /// It may be for one of them or for none.
    Either,
}

/// `any_unbound` says whether some of the requests under way are bound to no thread.
#[inline(always)]
fn works_for(thread: &ThreadState, any_unbound: bool, size: u64) -> WorksFor {
    let is_python = thread.walk.python.is_thread();
    // One that has got its work with a context, or from a queue, is done with it.
    let is_over = thread.has_worked != 0 || thread.item.is_known != 0;
    let is_loop = thread.arrival.is_known();
    if is_python && (is_loop || is_over || size <= INTERPRETERS_OWN || is_new()) {
        return WorksFor::None;
    }
    if any_unbound {
        return WorksFor::Request;
    }
    if thread.has_own_work != 0 {
        return WorksFor::None;
    }
    match is_python {
        true if waits_as_loop(thread) => WorksFor::None,
        true => WorksFor::Either,
        false if waits() == thread.waits_at_first && is_new() => WorksFor::None,
        false => WorksFor::Request,
    }
}

#[inline(always)]
fn is_new() -> bool {
    // SAFETY: a plain helper call.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    now_ns.saturating_sub(started_ns()) < NEW_NS
}
