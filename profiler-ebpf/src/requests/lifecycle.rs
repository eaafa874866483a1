//! Opens and closes windows, and binds threads to them.

use residue_ebpf::abi::{
    counters::Counter,
    window::{
        Amounts, TASK, WINDOW_HANDED_OVER, WINDOW_HAS_TASKS, WINDOW_IS_OVER,
        WINDOW_TASKS_INHERITED, WindowEventKind, WindowStage, WindowState, id_and_stage, under_way,
    },
};

use super::{
    send::{Fragment, send},
    window::{self, at, now},
};
use crate::{
    atomic,
    counters::count,
    maps::{LAST_WINDOW, PROCESS_WINDOWS},
    state::{connection::Moment, thread::ThreadState},
    threads,
};

/// How many places a new window tries, of which nearly all are free. Also how often a thread tries to hand over a
/// window while other threads change the window's bits.
const TRIES: usize = 4;

/// How a window begins.
pub struct Beginning {
    /// The process slot.
    pub process: u32,
    /// Whether the current thread serves one request at a time.
    pub binds: bool,
    /// When the process read the first byte.
    pub at: Moment,
    /// What makes the window, as [`WindowState::source`] says it.
    pub source: u32,
}

/// Closes the current thread's previous window, and opens another one.
#[inline(always)]
pub fn begin(
    thread: &mut ThreadState,
    beginning: &Beginning,
    now: Moment,
) -> Option<&'static mut WindowState> {
    turn_away(thread, now);
    open(thread, beginning)
}

/// Opens a window, and binds the current thread to the window if the beginning says so.
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

/// Gives the place of a closed window the next number.
#[inline(always)]
fn claim() -> Option<&'static mut WindowState> {
    let last = LAST_WINDOW.get_ptr_mut(0)?;
    for _ in 0..TRIES {
        // SAFETY: the pointer leads to a map value.
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

/// Moves a window to another stage. Returns whether this thread did so, and not a faster one.
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

/// A request has begun, so its window is under way. The window of a function's call never is: what other threads do
/// during the call may be for anything.
#[inline(always)]
fn comes_under_way(window: &mut WindowState) {
    add_under_way(window.process, under_way(window.id()));
    if let Some(process) = PROCESS_WINDOWS.get_ptr_mut(window.process) {
        // SAFETY: the pointer leads to a field of a map value.
        window.number = unsafe { atomic::fetch_add(&raw mut (*process).opened, 1) } as u32;
    }
}

#[inline(always)]
fn add_under_way(process: u32, word: u64) {
    if let Some(process) = PROCESS_WINDOWS.get_ptr_mut(process) {
        // SAFETY: the pointer leads to a field of a map value.
        unsafe { atomic::add(&raw mut (*process).under_way, word) };
    }
}

#[inline(always)]
fn replace(window: &mut WindowState, before: u64, after: u64) -> bool {
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { atomic::compare_exchange(&raw mut window.id_and_stage, before, after) == before }
}

/// Sets some `WINDOW_…` bits. Other threads that change the word meanwhile, as [`hand_over`] does, lose nothing.
#[inline(always)]
pub fn set(window: &mut WindowState, flags: u64) {
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { atomic::fetch_or(&raw mut window.bound_and_flags, flags) };
}

/// Clears some `WINDOW_…` bits.
#[inline(always)]
pub fn unset(window: &mut WindowState, flags: u64) {
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { atomic::and(&raw mut window.bound_and_flags, !flags) };
}

/// Closes a window.
#[inline(always)]
pub fn close(thread: &mut ThreadState, window: &mut WindowState, now: Moment) {
    if !advance(window, WindowStage::Closed) {
        return;
    }
    // From here on no thread hands the window over, so it is settled whether the window counts as unbound.
    // SAFETY: the pointer leads to a field of a map value.
    let before = unsafe { atomic::fetch_or(&raw mut window.bound_and_flags, WINDOW_IS_OVER) };
    if before as u32 == 0
        && let Some(process) = PROCESS_WINDOWS.get_ptr_mut(window.process)
    {
        // SAFETY: the pointer leads to a field of a map value.
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

/// The current thread turns to something else. Its window is over if the response has begun; otherwise another thread
/// works on the window. A window that the thread's own code has opened stays, because that code will close it.
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
pub fn bound(thread: &ThreadState) -> Option<&'static mut WindowState> {
    if thread.window == 0 {
        return None;
    }
    window::open(thread.window).filter(|window| window.bound() == thread.tid)
}

/// Unbinds the window from its thread. No thread is bound to the window from here on.
#[inline(always)]
pub fn hand_over(window: &mut WindowState) {
    for _ in 0..TRIES {
        // SAFETY: the pointer leads to a field of a map value.
        let before = unsafe { (&raw const window.bound_and_flags).read_volatile() };
        if before as u32 == 0 || before & WINDOW_IS_OVER != 0 {
            return;
        }
        let after = before >> 32 << 32 | WINDOW_HANDED_OVER;
        let word = &raw mut window.bound_and_flags;
        // SAFETY: the pointer leads to a field of a map value.
        if unsafe { atomic::compare_exchange(word, before, after) } == before {
            count_unbound(window.process);
            return;
        }
    }
}

/// A task begins to work for a window, because the task's maker does so (`is_inherited`) or because the task
/// works on the window's connection.
#[inline(always)]
pub fn task_begins(window: u32, is_inherited: bool) {
    let Some(window) = window::open(window) else {
        return;
    };
    let flag = if is_inherited {
        WINDOW_HAS_TASKS | WINDOW_TASKS_INHERITED
    } else {
        WINDOW_HAS_TASKS
    };
    set(window, flag);
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { atomic::add(&raw mut window.tasks, 1) };
}

/// A task has ended that worked for a window. If this was the window's last task, and the connection is done with the
/// window, then the window is over.
#[inline(always)]
pub fn task_ends(window: u32) {
    if window == 0 || window & TASK != 0 {
        return;
    }
    if let Some(state) = at(window)
        && state.id() == window
        && state.tasks != 0
    {
        // SAFETY: the pointer leads to a field of a map value.
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
        // SAFETY: the pointers lead to fields of a map value.
        unsafe {
            atomic::add(&raw mut (*process).unbound_open, 1);
            atomic::add(&raw mut (*process).unbound_opened, 1);
        }
    }
}
