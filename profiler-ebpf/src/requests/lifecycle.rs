//! Opens and closes windows, and binds threads to them.

use aya_ebpf::{helpers::bpf_probe_read_user, programs::TracePointContext};
use residue_ebpf::abi::{
    counters::Counter,
    window::{
        Amounts, TASK, WINDOW_HANDED_OVER, WINDOW_HAS_TASKS, WINDOW_IS_OVER,
        WINDOW_TASKS_INHERITED, WindowEventKind, WindowStage, WindowState, id_and_stage, under_way,
    },
};

use super::{
    at, call, now,
    send::{Fragment, send},
};
use crate::{
    atomic,
    counters::count,
    kernel::{
        process::open_target,
        syscall::{argument, number, saved_registers},
    },
    maps::{LAST_WINDOW, PROCESS_WINDOWS},
    state::{connection::Moment, thread::ThreadState},
    threads,
};

/// How many places are tried for a new window: nearly all are free. And how often a window is handed over, while
/// others change its bits.
const TRIES: usize = 4;

/// Numbers of syscalls on x86-64 (asm/unistd_64.h).
mod nr {
    pub const POLL: u32 = 7;
    pub const SELECT: u32 = 23;
    pub const ACCEPT: u32 = 43;
    pub const EPOLL_WAIT: u32 = 232;
    pub const PSELECT6: u32 = 270;
    pub const PPOLL: u32 = 271;
    pub const EPOLL_PWAIT: u32 = 281;
    pub const ACCEPT4: u32 = 288;
    pub const EPOLL_PWAIT2: u32 = 441;
}

/// How a window begins.
pub struct Beginning {
    /// The process slot.
    pub process: u32,
    /// Whether the current thread serves one request at a time.
    pub binds: bool,
    /// When the first byte was read.
    pub at: Moment,
    /// As [`WindowState::source`].
    pub source: u32,
}

/// Opens a window, with the current thread's previous one closed.
#[inline(always)]
pub fn begin(
    thread: &mut ThreadState,
    beginning: &Beginning,
    now: Moment,
) -> Option<&'static mut WindowState> {
    turn_away(thread, now);
    open(thread, beginning)
}

/// Opens a window, and binds the current thread to it if it is to be.
#[inline(always)]
pub fn open(thread: &mut ThreadState, beginning: &Beginning) -> Option<&'static mut WindowState> {
    let Some(window) = claim() else {
        count(Counter::WindowsFull, 1);
        return None;
    };
    window.process = beginning.process;
    window.tid = thread.tid;
    window.bound_and_flags = 0;
    window.opened_ns = beginning.at.ns;
    window.responded_ns = 0;
    window.sent_bytes = 0;
    window.rss_open = beginning.at.rss;
    window.rss_responded = beginning.at.rss;
    window.source = beginning.source;
    window.number = 0;
    window.amounts = Amounts::default();
    window.tasks = 0;
    window.others = 0;
    window.answerer = 0;
    if window.source == 0 {
        comes_under_way(window);
    }
    if beginning.binds {
        thread.has_own_work = 1;
        window.bound_and_flags = u64::from(window.tid);
        thread.window = window.id();
        thread.request_wait = thread.last_wait;
    } else {
        count_unbound(window.process);
    }
    Some(window)
}

/// The place of a window that is closed, with the next number.
#[inline(always)]
fn claim() -> Option<&'static mut WindowState> {
    let last = LAST_WINDOW.get_ptr_mut(0)?;
    for _ in 0..TRIES {
        // SAFETY: a map value.
        let id = unsafe { atomic::fetch_add(last, 1) } as u32;
        let id = id.wrapping_add(1) & !TASK;
        let window = at(id)?;
        let before = window.id_and_stage;
        if id != 0
            && window.stage() == WindowStage::Closed as u32
            && replace(window, before, id_and_stage(id, WindowStage::Open))
        {
            return Some(window);
        }
    }
    None
}

/// Moves a window to another stage; fails if somebody else was faster.
#[inline(always)]
pub fn advance(window: &mut WindowState, stage: WindowStage) -> bool {
    let before = window.id_and_stage;
    if before >> 32 == 0 || !replace(window, before, id_and_stage(before as u32, stage)) {
        return false;
    }
    let was_under_way = window.source == 0 && before >> 32 != WindowStage::Finished as u64;
    if was_under_way && matches!(stage, WindowStage::Finished | WindowStage::Closed) {
        add_under_way(window.process, under_way(before as u32).wrapping_neg());
    }
    true
}

/// A request has begun. A call of a function does not come under way: what other threads do meanwhile may be for
/// anything.
#[inline(always)]
fn comes_under_way(window: &mut WindowState) {
    add_under_way(window.process, under_way(window.id()));
    if let Some(process) = PROCESS_WINDOWS.get_ptr_mut(window.process) {
        // SAFETY: a field of a map value.
        window.number = unsafe { atomic::fetch_add(&raw mut (*process).opened, 1) } as u32;
    }
}

#[inline(always)]
fn add_under_way(process: u32, word: u64) {
    if let Some(process) = PROCESS_WINDOWS.get_ptr_mut(process) {
        // SAFETY: a field of a map value.
        unsafe { atomic::add(&raw mut (*process).under_way, word) };
    }
}

#[inline(always)]
fn replace(window: &mut WindowState, before: u64, after: u64) -> bool {
    // SAFETY: a field of a map value.
    unsafe { atomic::compare_exchange(&raw mut window.id_and_stage, before, after) == before }
}

/// Sets some `WINDOW_…` bits. Whoever else changes the word meanwhile, such as [`hand_over`], loses nothing.
#[inline(always)]
pub fn set(window: &mut WindowState, flags: u64) {
    // SAFETY: a field of a map value.
    unsafe { atomic::fetch_or(&raw mut window.bound_and_flags, flags) };
}

/// Takes some `WINDOW_…` bits away.
#[inline(always)]
pub fn unset(window: &mut WindowState, flags: u64) {
    // SAFETY: a field of a map value.
    unsafe { atomic::and(&raw mut window.bound_and_flags, !flags) };
}

/// Closes a window.
#[inline(always)]
pub fn close(thread: &mut ThreadState, window: &mut WindowState, now: Moment) {
    if !advance(window, WindowStage::Closed) {
        return;
    }
    // From here on nobody hands it over: whether it counts as unbound is settled.
    // SAFETY: a field of a map value.
    let before = unsafe { atomic::fetch_or(&raw mut window.bound_and_flags, WINDOW_IS_OVER) };
    if before as u32 == 0
        && let Some(process) = PROCESS_WINDOWS.get_ptr_mut(window.process)
    {
        // SAFETY: a field of a map value.
        unsafe { atomic::add(&raw mut (*process).unbound_open, u64::MAX) };
    }
    send(
        thread,
        WindowEventKind::Closed,
        window,
        now,
        Fragment::default(),
    );
}

/// The current thread turns to something else: its window is over, or another thread's. Not so one that
/// its own code has opened, and will close.
#[inline(always)]
pub fn turn_away(thread: &mut ThreadState, now: Moment) {
    if let Some(window) = bound(thread) {
        if window.source != 0 {
            return;
        }
        if window.stage() == WindowStage::Open as u32 {
            hand_over(window);
        } else {
            close(thread, window, now);
        }
    }
    thread.window = 0;
}

/// The window that the current thread is bound to.
#[inline(always)]
fn bound(thread: &ThreadState) -> Option<&'static mut WindowState> {
    if thread.window == 0 {
        return None;
    }
    super::open(thread.window).filter(|window| window.bound() == thread.tid)
}

/// No thread is bound to the window from here on.
#[inline(always)]
pub fn hand_over(window: &mut WindowState) {
    for _ in 0..TRIES {
        // SAFETY: a field of a map value.
        let before = unsafe { (&raw const window.bound_and_flags).read_volatile() };
        if before as u32 == 0 || before & WINDOW_IS_OVER != 0 {
            return;
        }
        let after = before >> 32 << 32 | WINDOW_HANDED_OVER;
        let word = &raw mut window.bound_and_flags;
        // SAFETY: as above.
        if unsafe { atomic::compare_exchange(word, before, after) } == before {
            count_unbound(window.process);
            return;
        }
    }
}

/// A task begins to work for a window, because another one does that made it (`is_inherited`) or because
/// it works on the window's connection.
#[inline(always)]
pub fn task_begins(window: u32, is_inherited: bool) {
    let Some(window) = super::open(window) else {
        return;
    };
    let flag = if is_inherited {
        WINDOW_HAS_TASKS | WINDOW_TASKS_INHERITED
    } else {
        WINDOW_HAS_TASKS
    };
    set(window, flag);
    // SAFETY: a field of a map value.
    unsafe { atomic::add(&raw mut window.tasks, 1) };
}

/// A task has ended that worked for a window. If it was the last, and the connection is done with it, that
/// is over.
#[inline(always)]
pub fn task_ends(window: u32) {
    if window == 0 || window & TASK != 0 {
        return;
    }
    if let Some(state) = at(window)
        && state.id() == window
        && state.tasks != 0
    {
        // SAFETY: a field of a map value.
        let before = unsafe { atomic::fetch_add(&raw mut state.tasks, u64::MAX) };
        if before == 1
            && state.stage() == WindowStage::Finished as u32
            && let Some(thread) = threads::current()
        {
            close(thread, state, now());
        }
    }
}

#[inline(always)]
fn count_unbound(process: u32) {
    if let Some(process) = PROCESS_WINDOWS.get_ptr_mut(process) {
        // SAFETY: fields of a map value.
        unsafe {
            atomic::add(&raw mut (*process).unbound_open, 1);
            atomic::add(&raw mut (*process).unbound_opened, 1);
        }
    }
}

/// A thread ends.
#[inline(always)]
pub fn thread_exited(thread: &mut ThreadState) {
    call::thread_exited(thread);
    turn_away(thread, now());
}

/// A thread is about to wait. For what it waited before its request arrived, it waits between requests;
/// for anything else, such as a database, within one.
#[inline(always)]
pub fn thread_waits(ctx: &TracePointContext) -> Option<()> {
    let thread = threads::existing()?;
    let number = number(ctx);
    let wait = u64::from(number) << 32 | u64::from(waits_for(ctx, number));
    let accepts = number == nr::ACCEPT || number == nr::ACCEPT4;
    if let Some(window) = bound(thread) {
        let responded = window.stage() != WindowStage::Open as u32;
        let finished = window.stage() == WindowStage::Finished as u32;
        if accepts || finished || responded && wait == thread.request_wait {
            turn_away(thread, now());
        }
    }
    thread.last_wait = wait;
    Some(())
}

/// A thread has waited for a connection or for the clock: it has work of its own ([`nobody`](super::nobody)). That is
/// seen when it is done with waiting, so that the wait counts in which a recording finds it.
#[inline(always)]
pub fn thread_waited(ctx: &TracePointContext) -> Option<()> {
    let number = number(ctx);
    let selects = number == nr::SELECT || number == nr::PSELECT6;
    // Without descriptors it is for the clock, as Python sleeps until 3.10.
    if selects && saved_registers().rdi as u32 != 0 {
        return None;
    }
    open_target()?;
    threads::current()?.has_own_work = 1;
    Some(())
}

/// Whether a thread waits for several descriptors, as a loop does: whoever waits for the answer to what it has asked
/// itself reads, or polls.
#[inline(always)]
pub const fn waits_as_loop(thread: &ThreadState) -> bool {
    matches!(
        (thread.last_wait >> 32) as u32,
        nr::SELECT | nr::PSELECT6 | nr::EPOLL_WAIT | nr::EPOLL_PWAIT | nr::EPOLL_PWAIT2
    )
}

/// What tells one wait from another: the descriptor, of several the first; of select, their bound.
#[inline(always)]
fn waits_for(ctx: &TracePointContext, number: u32) -> u32 {
    let first = argument(ctx, 0);
    if number != nr::POLL && number != nr::PPOLL {
        return first as u32;
    }
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(first as *const u32) }.unwrap_or(0)
}
