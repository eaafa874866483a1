//! Finds the state of a thread.

use residue_ebpf::abi::counters::Counter;

use crate::{
    counters::count,
    kernel::task::{current_tid, waits},
    maps::{EMPTY_THREAD, THREADS},
    state::thread::ThreadState,
};

/// The current thread's state, if the thread has one.
#[inline(always)]
pub fn existing() -> Option<&'static mut ThreadState> {
    state_of(current_tid())
}

/// The current thread's state, which is made if there is none; `None`, counted, if the table is full.
#[inline(always)]
pub fn current() -> Option<&'static mut ThreadState> {
    let tid = current_tid();
    if let Some(thread) = state_of(tid) {
        return Some(thread);
    }
    let empty = EMPTY_THREAD.get(0)?;
    if THREADS.insert(tid, empty, 0).is_err() {
        count(Counter::ThreadTableFull, 1);
        return None;
    }
    let thread = state_of(tid)?;
    thread.tid = tid;
    thread.waits_at_first = waits();
    Some(thread)
}

/// The state of the thread with this id, if the thread has one.
#[inline(always)]
pub fn state_of(tid: u32) -> Option<&'static mut ThreadState> {
    let thread = THREADS.get_ptr_mut(tid)?;
    // SAFETY: the entry belongs to the current thread, by the id that it has or had before its exec. It alone
    // uses the entry, which is deleted only when that thread has exited or has another id.
    Some(unsafe { &mut *thread })
}
