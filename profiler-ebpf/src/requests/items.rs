//! What Python's threads hand to each other through queues: whoever takes an item out of one works for the
//! window of whoever put it in, until it comes back for the next.
//!
//! `concurrent.futures` gives its threads their work through a `queue.SimpleQueue`, and so does
//! `loop.run_in_executor`, which copies no context. An item is known by its address: from when it is put in
//! until it is taken out, the queue holds it, so that the address is no other object's. One object may be in queues
//! several times, though: while those who put it in do not work for the same window, nobody can tell whose is taken
//! out.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_ANY, pt_regs},
    programs::ProbeContext,
};
use residue_ebpf::abi::{counters::Counter, window::AMBIGUOUS};

use super::{nobody::INTERPRETERS_OWN, works_for};
use crate::{
    atomic,
    counters::count,
    kernel::{memory::read_word, process::open_process},
    maps::{ITEMS, PROCESS_WINDOWS},
    python,
    state::request::{CONTESTED, Item, NOBODYS, Queued},
    threads,
};

/// The key of an item: which process, which address.
use residue_ebpf::abi::heap::live_key as item_key;

/// A thread puts an item into a queue: `put(self, args, …)`, of which the first argument is the item however it
/// is passed (`METH_FASTCALL`, Include/cpython/methodobject.h).
#[inline(always)]
pub fn item_put(ctx: &ProbeContext) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let item = read_word(ctx.arg(1)?);
    let thread = threads::current()?;
    python::begin(thread, cookie.process);
    let owner = match works_for(thread, cookie.process) {
        0 if thread.item.is_contested() => CONTESTED,
        // It hands on work of its own. Of other threads that work for no window, nobody knows.
        0 if thread.has_own_work != 0 && !thread.arrival.is_known() => NOBODYS,
        owner => owner,
    };
    let key = item_key(cookie.process, item);
    let queued = match queued(key) {
        // It may be the address of one that was never taken out; nobody can tell.
        Some(queued) => Queued {
            owner: if queued.owner == owner {
                owner
            } else {
                CONTESTED
            },
            times: queued.times.saturating_add(1),
        },
        None => Queued { owner, times: 1 },
    };
    if ITEMS.insert(key, queued, u64::from(BPF_ANY)).is_err() {
        count(Counter::ItemsFull, 1);
    }
    Some(())
}

#[inline(always)]
fn queued(key: u64) -> Option<Queued> {
    // SAFETY: the value is copied at once.
    unsafe { ITEMS.get(key) }.copied()
}

/// A thread has taken an item out of a queue, or has found none: a probe's context and registers where a function
/// has returned or is about to.
#[inline(always)]
pub fn item_taken(ctx: *mut c_void, regs: *mut pt_regs) -> Option<()> {
    let cookie = open_process(ctx)?;
    // SAFETY: a probe's context is the thread's pt_regs.
    let item = unsafe { (*regs).rax };
    let thread = threads::current()?;
    let key = item_key(cookie.process, item);
    let queued = queued(key);
    match queued {
        None => {}
        Some(Queued { times: 0 | 1, .. }) => {
            let _ = ITEMS.remove(key);
        }
        Some(Queued { owner, times }) => {
            let times = times - 1;
            // It replaces what is there, for which there is always room.
            let _ = ITEMS.insert(key, Queued { owner, times }, u64::from(BPF_ANY));
        }
    }
    let owner = queued.map_or(0, |queued| queued.owner);
    thread.item = Item {
        owner,
        is_known: u32::from(owner != 0),
    };
    Some(())
}

/// Whose an allocation of `size` bytes is of a thread that works on what is contested: it is missing somewhere.
#[inline(always)]
pub fn of_contested(process: u16, size: u64) -> u32 {
    if size > INTERPRETERS_OWN
        && let Some(process) = PROCESS_WINDOWS.get_ptr_mut(u32::from(process))
    {
        // SAFETY: a field of a map value.
        unsafe { atomic::add(&raw mut (*process).escaped, 1) };
    }
    AMBIGUOUS
}
