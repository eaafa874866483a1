//! Objects that Python's threads hand to each other through queues. A thread that takes an object out of a
//! queue works for the window of the thread that put the object in, until it comes back for the next object.
//!
//! `concurrent.futures` gives its threads their work through a `queue.SimpleQueue`, and so does
//! `loop.run_in_executor`, which copies no context. The address of an object names the object: the queue
//! holds the object from the put to the take, so that no other object has the address meanwhile. One object
//! may be in queues several times, though. While the threads that put the object in do not work for the same
//! window, nobody can tell whose is taken out.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_ANY, pt_regs},
    programs::ProbeContext,
};
use residue_ebpf::abi::{counters::Counter, window::AMBIGUOUS};

use super::{nobody::INTERPRETERS_OWN, worker::works_for};
use crate::{
    atomic,
    counters::count,
    kernel::{memory::read_word, process::open_process},
    maps::{ITEMS, PROCESS_WINDOWS},
    python,
    state::request::{CONTESTED, Item, NOBODYS, Queued},
    threads,
};

/// The key of an item has its process and its address.
use residue_ebpf::abi::heap::live_key as item_key;

/// The current thread puts an item into a queue: `put(self, args, …)`. The item is the first argument,
/// however the caller passes it (`METH_FASTCALL`, Include/cpython/methodobject.h).
#[inline(always)]
pub fn item_put(ctx: &ProbeContext) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let item = read_word(ctx.arg(1)?);
    let thread = threads::current()?;
    python::begin(thread, cookie.process);
    let owner = match works_for(thread, cookie.process) {
        0 if thread.item.is_contested() => CONTESTED,
        // The thread hands on work of its own. Nobody knows this of other threads that work for no window.
        0 if thread.has_own_work != 0 && !thread.arrival.is_known() => NOBODYS,
        owner => owner,
    };
    let key = item_key(cookie.process, item);
    let queued = match queued(key) {
        // The entry may be of another object at this address that no thread took out. Nobody can tell.
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

/// The current thread has taken an item out of a queue, or has found none. `ctx` and `regs` are a probe's context and
/// registers, where the function has returned or is about to return.
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
            // The new value replaces the old one, for which there is always room.
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

/// The window of an allocation of `size` bytes by a thread that works on a contested item. Some window lacks the
/// allocation.
#[inline(always)]
pub fn of_contested(process: u16, size: u64) -> u32 {
    if size > INTERPRETERS_OWN
        && let Some(process) = PROCESS_WINDOWS.get_ptr_mut(u32::from(process))
    {
        // SAFETY: the pointer leads to a field of a map value.
        unsafe { atomic::add(&raw mut (*process).escaped, 1) };
    }
    AMBIGUOUS
}
