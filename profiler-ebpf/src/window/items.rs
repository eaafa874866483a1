//! What Python's threads hand to each other through queues: whoever takes an item out of one works for the
//! window of whoever put it in, until it comes back for the next.
//!
//! `concurrent.futures` gives its threads their work through a `queue.SimpleQueue`, and so does
//! `loop.run_in_executor`, which copies no context. An item is known by its address: from when it is put in
//! until it is taken out, the queue holds it, so that the address is no other object's.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_ANY, pt_regs},
    programs::ProbeContext,
};
use residue_ebpf::abi::counters::Counter;

use super::works_for;
use crate::{
    count,
    heap::open_process,
    maps::ITEMS,
    thread::{self, read_word},
};

/// The key of an item: which process, which address.
use residue_ebpf::abi::heap::live_key as item_key;

/// What a thread has taken out of a queue.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Item {
    /// The window or task of whoever put it in; zero if that worked for none.
    pub owner: u32,
    /// Not zero if it is known who put it in.
    pub is_known: u32,
}

/// A thread puts an item into a queue: `put(self, args, …)`, of which the first argument is the item however it
/// is passed (`METH_FASTCALL`, Include/cpython/methodobject.h).
#[inline(always)]
pub fn item_put(ctx: &ProbeContext) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let item = read_word(ctx.arg(1)?);
    let thread = thread::current()?;
    thread.walk.python.begin(cookie.process, &mut thread.fsbase);
    let owner = works_for(thread, cookie.process);
    let key = item_key(cookie.process, item);
    // A thread with work of its own that works for no window hands on work of its own. Of others nobody knows.
    let is_nobodys = thread.has_own_work != 0 && !thread.arrival.is_known();
    if owner == 0 && !is_nobodys {
        // It may have the address of one that was never taken out.
        let _ = ITEMS.remove(key);
    } else if ITEMS.insert(key, owner, u64::from(BPF_ANY)).is_err() {
        count(Counter::ContextsFull, 1);
    }
    Some(())
}

/// A thread has taken an item out of a queue, or has found none: a probe's context and registers where a function
/// has returned or is about to.
#[inline(always)]
pub fn item_taken(ctx: *mut c_void, regs: *mut pt_regs) -> Option<()> {
    let cookie = open_process(ctx)?;
    // SAFETY: a probe's context is the thread's pt_regs.
    let item = unsafe { (*regs).rax };
    let thread = thread::current()?;
    let key = item_key(cookie.process, item);
    // SAFETY: the value is copied at once.
    let owner = unsafe { ITEMS.get(key) }.copied();
    if owner.is_some() {
        let _ = ITEMS.remove(key);
    }
    thread.item = Item {
        owner: owner.unwrap_or(0),
        is_known: u32::from(owner.is_some()),
    };
    Some(())
}
