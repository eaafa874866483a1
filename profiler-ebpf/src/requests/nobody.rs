//! Whose an allocation is if its thread works for no window that is known.
//!
//! While a single request is under way, the allocation belongs to that request, because there is no other.
//! While several requests are under way, or while there may be requests that nobody sees, the allocation is
//! *ambiguous*. If the thread may have worked for one of these requests, the allocation has *escaped* from
//! that request: no window that was under way at that time is known to have all of its allocations.
//!
//! Three kinds of threads are known to work for no request:
//!
//! - The thread of an event loop of asyncio, outside of the contexts of requests' tasks.
//! - Where each request has a thread that is bound to it, a thread with work of its own: a thread that was bound to a
//!   window itself, or that has waited for connections or for the clock; of Python's threads, also one that waits as a
//!   loop does. All other threads wait for somebody who hands them work.
//! - A thread that was just started: the thread may be for a connection whose request has yet to come.
//!
//! A thread of Python's that writes something at times, and waits with a timeout in between, looks like a thread of a
//! pool. So where each request has a thread, an allocation of another thread of Python's never belongs to a single
//! window.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use residue_ebpf::abi::window::{
    AMBIGUOUS, BACKGROUND, ProcessWindows, WindowState, alone_under_way, count_under_way,
};

use super::{tasks, waits::waits_as_loop, window::open};
use crate::{
    atomic,
    kernel::task::{started_ns, waits},
    maps::PROCESS_WINDOWS,
    state::thread::ThreadState,
};

/// How long a thread is new after its start, nanoseconds. A new thread of Python's may have to wait for the
/// interpreter's lock for some of that time.
const NEW_NS: u64 = 1_000_000_000;

/// An allocation of a thread of Python's up to this size, bytes, may be the interpreter's own, such as the
/// lock on which the thread waits. Objects come from the allocator only if they are larger
/// (`SMALL_REQUEST_THRESHOLD`, Objects/obmalloc.c).
pub const INTERPRETERS_OWN: u64 = 512;

/// The window of an allocation of `size` bytes; [`AMBIGUOUS`] or [`BACKGROUND`] if the allocation belongs to
/// no single window.
#[inline(always)]
pub fn of_allocation(thread: &ThreadState, process: u16, size: u64) -> u32 {
    let Some(process) = windows_of(process) else {
        return BACKGROUND;
    };
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
        (WorksFor::Request, Some(window)) => counted_among_others(window),
        _ => {
            count_escaped(process);
            AMBIGUOUS
        }
    }
}

/// The window of an allocation of a thread that works for a task whose window is not known, or the task itself.
#[inline(always)]
pub fn of_task(thread: &ThreadState, process: u16, task: u32) -> u32 {
    let Some(process) = windows_of(process) else {
        return BACKGROUND;
    };
    if process.unbound_open == 0 {
        return BACKGROUND;
    }
    if thread.arrival.is_known() || !tasks::serves_several(task, process) {
        return task;
    }
    match open(alone_under_way(process.under_way)) {
        Some(window) if !process.may_miss_requests() => counted_among_others(window),
        _ => {
            count_escaped(process);
            task
        }
    }
}

#[inline(always)]
fn windows_of(process: u16) -> Option<&'static mut ProcessWindows> {
    let process = PROCESS_WINDOWS.get_ptr_mut(u32::from(process))?;
    // SAFETY: the pointer leads to a map value, whose fields change only atomically.
    Some(unsafe { &mut *process })
}

/// Counts an allocation of a window that a thread has made which is bound to nothing, and returns the window.
#[inline(always)]
fn counted_among_others(window: &mut WindowState) -> u32 {
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { atomic::add(&raw mut window.others, 1) };
    window.id()
}

#[inline(always)]
fn count_escaped(process: &mut ProcessWindows) {
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { atomic::add(&raw mut process.escaped, 1) };
}

/// What a thread works for that is bound to no request.
#[derive(Clone, Copy)]
enum WorksFor {
    /// The thread works for no request.
    None,
    /// The thread works for one of the requests under way, as far as can be known.
    Request,
    /// The thread may work for one of these requests, or for none.
    Either,
}

/// What the current thread works for. `any_unbound` says whether any request under way has no thread that is bound to
/// it.
#[inline(always)]
fn works_for(thread: &ThreadState, any_unbound: bool, size: u64) -> WorksFor {
    let is_python = thread.walk.python.is_thread();
    // A thread that has got its work with a context, or from a queue, is done with that work.
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
