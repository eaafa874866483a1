//! Request windows: which request a thread works on, decided where it happens, because allocations run
//! at the same time.
//!
//! A window opens when the head of a request is read, and closes when the worker turns to something
//! else: not with the response's first byte, since streams allocate later, nor with its last, since what
//! is cleaned up then belongs to the request.
//!
//! A thread that reads from a blocking socket serves one request at a time and is *bound* to its window.
//! One whose sockets do not block is an event loop's; its windows are bound to no thread. Where that runs
//! asyncio's tasks, these are bound instead ([`contexts`]); what else is allocated while such a window is
//! open is ambiguous.

mod call;
mod connection;
mod contexts;
mod items;
mod lifecycle;
mod nobody;
mod send;
mod tasks;
pub mod tls;
mod transfer;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use residue_ebpf::abi::{
    heap::LiveAllocation,
    window::{
        AMBIGUOUS, Amounts, BACKGROUND, TASK, WINDOWS as MAX_WINDOWS, WindowStage, WindowState,
    },
};

use crate::{
    atomic,
    kernel::task::resident_set,
    maps::{PROCESS_WINDOWS, WINDOWS},
    state::{
        connection::Moment,
        thread::{Registers, ThreadState},
    },
};

pub use call::{closed, entered, opened, returned, returns};
pub use connection::{data_read, data_written, descriptor_closes};
pub use contexts::{freed as context_freed, made as context_made};
pub use items::{item_put, item_taken};
pub use lifecycle::{thread_exited, thread_waited, thread_waits};

/// The window of what a thread has just allocated for `caller`, or the number of the task for which it was:
/// `size` bytes.
#[inline(always)]
pub fn of_allocation(thread: &mut ThreadState, process: u16, size: u64, caller: Registers) -> u32 {
    call::seen_at(thread, process, caller);
    match works_for(thread, process) {
        BACKGROUND if thread.item.is_contested() => items::of_contested(process, size),
        BACKGROUND => nobody::of_allocation(thread, process, size),
        task if task & TASK != 0 => nobody::of_task(thread, process, task),
        window => window,
    }
}

/// The open window that the current thread works for, or the number of a task whose window is not known yet;
/// zero if neither is known. The thread's walk must have begun.
#[inline(always)]
fn works_for(thread: &mut ThreadState, process: u16) -> u32 {
    if thread.window != BACKGROUND {
        if open(thread.window).is_some_and(|window| window.bound() == thread.tid) {
            return thread.window;
        }
        thread.window = BACKGROUND;
    }
    match contexts::works_for(thread, process) {
        0 => live(thread.item.owner),
        window => window,
    }
}

/// The open window that a window or task is or works for, or the task itself while that is not known; zero if
/// it is over.
#[inline(always)]
fn live(owner: u32) -> u32 {
    let mut window = owner;
    if owner & TASK != 0 {
        match tasks::task(owner) {
            None => return 0,
            Some(task) if task.window == 0 => return owner,
            Some(task) => window = task.window,
        }
    }
    if window != 0 && open(window).is_some() {
        window
    } else {
        0
    }
}

/// Whether a window is open that no thread is bound to.
#[inline(always)]
fn is_any_unbound(process: u16) -> bool {
    PROCESS_WINDOWS
        .get(u32::from(process))
        .is_some_and(|process| process.unbound_open != 0)
}

/// Counts an allocation for its window or task.
#[inline(always)]
pub fn account_alloc(process: u16, allocation: &LiveAllocation) {
    let [first, second] = amounts(process, allocation.window);
    for amounts in [first, second].into_iter().flatten() {
        // SAFETY: fields of a map value.
        unsafe {
            atomic::add(&raw mut amounts.alloc_bytes, allocation.size);
            atomic::add(&raw mut amounts.alloc_objects, 1);
        }
    }
}

/// Counts the end of an allocation for the window or task in which it was made, unless another one has
/// taken that one's place.
#[inline(always)]
pub fn account_free(process: u16, allocation: &LiveAllocation) {
    let [first, second] = amounts(process, allocation.window);
    for amounts in [first, second].into_iter().flatten() {
        // SAFETY: fields of a map value.
        unsafe {
            atomic::add(&raw mut amounts.freed_bytes, allocation.size);
            atomic::add(&raw mut amounts.freed_objects, 1);
        }
    }
}

#[inline(always)]
fn amounts(process: u16, window: u32) -> [Option<&'static mut Amounts>; 2] {
    if window == BACKGROUND || window == AMBIGUOUS {
        return [unbound(process, window), None];
    }
    if window & TASK == 0 {
        return [bound(window), None];
    }
    match tasks::task(window) {
        None => [None, None],
        Some(task) if task.window != 0 => [bound(task.window), None],
        Some(task) => [Some(&mut task.amounts), unbound(process, AMBIGUOUS)],
    }
}

#[inline(always)]
fn bound(window: u32) -> Option<&'static mut Amounts> {
    let state = at(window)?;
    (state.id() == window).then_some(&mut state.amounts)
}

#[inline(always)]
fn unbound(process: u16, window: u32) -> Option<&'static mut Amounts> {
    let process = PROCESS_WINDOWS.get_ptr_mut(u32::from(process))?;
    // SAFETY: a map value; its fields are only changed atomically.
    let process = unsafe { &mut *process };
    Some(match window {
        BACKGROUND => &mut process.background,
        _ => &mut process.ambiguous,
    })
}

#[inline(always)]
fn now() -> Moment {
    Moment {
        // SAFETY: a plain helper call.
        ns: unsafe { bpf_ktime_get_ns() },
        rss: resident_set(),
    }
}

/// A window's place, which may be another one's.
#[inline(always)]
fn at(window: u32) -> Option<&'static mut WindowState> {
    let state = WINDOWS.get_ptr_mut(window & (MAX_WINDOWS - 1))?;
    // SAFETY: a map value; what several threads change is changed atomically.
    Some(unsafe { &mut *state })
}

/// A window that is not closed.
#[inline(always)]
fn open(window: u32) -> Option<&'static mut WindowState> {
    let state = at(window)?;
    let is_open = state.id() == window && state.stage() != WindowStage::Closed as u32;
    is_open.then_some(state)
}
