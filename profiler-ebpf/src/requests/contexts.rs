//! Which request window each context of Python's `contextvars` belongs to.
//!
//! An event loop runs each step of a task, and each callback, in a context. The loop enters the context
//! before the step and leaves the context behind the step; each task has a context of its own. So the window
//! of an allocation is the window of the context that the thread is in. To find the context costs two words
//! of the thread's state, which a walk reads anyway.
//!
//! A context belongs to the window that is worked on where the context is made. So a task's context belongs
//! to the window of the task's maker, and the context of a function that a task hands to another thread
//! belongs to the task's window. When data has arrived, the thread works on the connection's window until the
//! thread leaves the context in which it reads or is called, whatever window that context belongs to: a
//! callback's context is a copy, too, and may be a copy of a context whose window is over.
//!
//! `context_ver`, which every entry and every exit increments, tells one entry of a context from all others.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    programs::{ProbeContext, RetProbeContext},
};
use residue_ebpf::abi::{
    counters::Counter,
    python::CONTEXT_PREVIOUS,
    window::{TASK, WindowState},
};

use super::{
    lifecycle::{task_begins, task_ends},
    tasks::{self, live},
    window::{is_any_unbound, open},
};
use crate::{
    counters::count,
    kernel::{
        memory::read_word,
        probe::returned,
        process::{cookie, open_process},
    },
    maps::{CONTEXTS, PYTHONS},
    python,
    state::{
        request::{Entry, Owner, Stay},
        thread::ThreadState,
    },
    threads,
};

/// The key of a context has its process and its address.
use residue_ebpf::abi::heap::live_key as context_key;

/// The open window that the current thread works for by its context, or the number of a task whose window is
/// not known yet; zero if the thread is in no context that belongs to either. The thread's walk must have
/// begun.
#[inline(always)]
pub fn works_for(thread: &mut ThreadState, process: u16) -> u32 {
    let window = live(last_window(thread, process));
    if window != 0 {
        thread.has_worked = 1;
    }
    window
}

/// The window or task that the current context belongs to, whether or not that window or task is over.
#[inline(always)]
fn last_window(thread: &mut ThreadState, process: u16) -> u32 {
    let Some(entry) = python::context(thread) else {
        return 0;
    };
    let stay = &thread.stay;
    if stay.known != 0 && stay.entry == entry {
        return stay.window;
    }
    let window = look_up(&thread.arrival, process, &entry);
    thread.stay = Stay {
        entry,
        window,
        known: 1,
    };
    window
}

#[inline(always)]
fn look_up(arrival: &Stay, process: u16, entry: &Entry) -> u32 {
    if entry.context == 0 {
        return 0;
    }
    if arrival.known != 0 && is_of_arrival(&arrival.entry, entry) {
        return arrival.window;
    }
    let Some(owner) = owner(process, entry.context) else {
        return 0;
    };
    if owner.is_task == 0 || live(owner.window) != 0 || !is_any_unbound(process) {
        return owner.window;
    }
    // The task was there before, and may work now for a request that the task has yet to answer.
    let window = tasks::begin(process, 0, true);
    own(process, entry.context, Owner { window, ..owner });
    window
}

/// Whether a thread is in the context in which it was when data arrived, or has entered another context from
/// there, as a loop does that reads outside of any context.
#[inline(always)]
fn is_of_arrival(arrival: &Entry, entry: &Entry) -> bool {
    if arrival.state != entry.state {
        return false;
    }
    match entry.switches.wrapping_sub(arrival.switches) {
        0 => true,
        1 => read_word(entry.context.wrapping_add(CONTEXT_PREVIOUS)) == arrival.context,
        _ => false,
    }
}

/// Data has arrived on a socket that does not block. `arrived_for` is the window that is open on the socket;
/// zero if the process reads no requests on the socket.
#[inline(always)]
pub fn data_arrived(thread: &mut ThreadState, process: u16, arrived_for: u32) -> Option<()> {
    if arrived_for == 0 && thread.arrival.known == 0 {
        // The thread runs no event loop. It is a client in a thread of its own.
        return None;
    }
    python::begin(thread, process);
    let entry = python::context(thread)?;
    if let Some(owner) = owner(process, entry.context) {
        if owner.is_task != 0 {
            // The task reads by itself, for its own purposes.
            return None;
        }
        // Between two arrivals the context works for nobody: the memory into which it reads is for a request that may
        // not be there yet.
        own(process, entry.context, Owner { window: 0, ..owner });
    }
    thread.stay.known = 0;
    thread.arrival = Stay {
        entry,
        window: arrived_for,
        known: 1,
    };
    Some(())
}

/// The current thread answers the request of `window`. If the thread runs a task that works for no other
/// window, the task works for this window from here on.
#[inline(always)]
pub fn answered(thread: &mut ThreadState, process: u16, window: u32) -> Option<()> {
    python::begin(thread, process);
    let entry = python::context(thread)?;
    let owner = owner(process, entry.context)?;
    let works_for = works_for(thread, process);
    if owner.is_task == 0 || works_for == window {
        return None;
    }
    let mut is_older = true;
    if works_for & TASK != 0 {
        is_older = tasks::is_older(works_for, window);
        let first = tasks::first_of(works_for, window);
        let joined = tasks::join_tasks(u64::from(first), u64::from(window));
        task_begins(window, joined > 1);
    } else if works_for != 0 {
        count(Counter::TasksDisagree, 1);
        return None;
    } else {
        task_ends(owner.window);
        task_begins(window, false);
    }
    if is_older && let Some(window) = open(window) {
        window.answerer = entry.context;
    }
    let owner = Owner { window, ..owner };
    own(process, entry.context, owner);
    thread.stay = Stay {
        entry,
        window,
        known: 1,
    };
    Some(())
}

/// A function has returned a new context.
#[inline(always)]
pub fn made(ctx: &RetProbeContext) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let regs = returned(ctx);
    if regs.rax == 0 {
        return None;
    }
    let thread = threads::current()?;
    python::begin(thread, cookie.process);
    let mut window = match works_for(thread, cookie.process) {
        0 => live(thread.item.owner),
        window => window,
    };
    let is_task = makes_tasks(cookie.process, regs.rip);
    if is_task && (window == 0 || window & TASK != 0) {
        window = match is_any_unbound(cookie.process) {
            true => tasks::begin(cookie.process, window, false),
            false => 0,
        };
    }
    let owner = Owner {
        window,
        is_task: u32::from(is_task),
    };
    forget(cookie.process, regs.rax);
    own(cookie.process, regs.rax, owner);
    if is_task {
        let arrival = &thread.arrival;
        let is_inherited = arrival.known == 0 || !is_of_arrival(&arrival.entry, &thread.stay.entry);
        task_begins(window, is_inherited);
    }
    Some(())
}

/// The connection of a window has the next request. The task that has answered the first request, and was
/// there before that request, serves one request after the other.
#[inline(always)]
pub fn answers_next(window: &mut WindowState) {
    let (context, process) = (window.answerer, window.process as u16);
    if context == 0 {
        return;
    }
    window.answerer = 0;
    if let Some(owner) = owner(process, context)
        && owner.is_task != 0
        && live(owner.window) == window.id()
    {
        own(process, context, Owner { window: 0, ..owner });
        task_ends(window.id());
    }
}

/// Whether code that makes asyncio's tasks calls from `ip`, a return address, AVMA.
#[inline(always)]
fn makes_tasks(process: u16, ip: u64) -> bool {
    let layout = PYTHONS.get(u32::from(process));
    layout.is_some_and(|layout| {
        let [start, end] = layout.task_code;
        ip > start && ip <= end
    })
}

/// The interpreter is about to free a context, whose address may be another context's from now on.
#[inline(always)]
pub fn freed(ctx: &ProbeContext) -> Option<()> {
    let context: u64 = ctx.arg(0)?;
    // Whether or not events of the process still count: the entry is there.
    forget(cookie(ctx.as_ptr()).process, context);
    Some(())
}

#[inline(always)]
fn owner(process: u16, context: u64) -> Option<Owner> {
    // SAFETY: the value is copied at once.
    unsafe { CONTEXTS.get(context_key(process, context)) }.copied()
}

#[inline(always)]
fn forget(process: u16, context: u64) {
    if let Some(owner) = owner(process, context) {
        if owner.is_task != 0 {
            task_ends(owner.window);
        }
        let _ = CONTEXTS.remove(context_key(process, context));
    }
}

#[inline(always)]
fn own(process: u16, context: u64, owner: Owner) {
    let key = context_key(process, context);
    if owner.window == 0 && owner.is_task == 0 {
        let _ = CONTEXTS.remove(key);
        return;
    }
    if CONTEXTS.insert(key, owner, u64::from(BPF_ANY)).is_err() {
        count(Counter::ContextsFull, 1);
    }
}
