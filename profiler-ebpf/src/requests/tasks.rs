//! Tasks that work on no request as far as is known yet.
//!
//! A server may make the task that answers a request outside of the code that runs when the request's data
//! arrives. Then the task's window is known only when the task answers. Until then the task has amounts of
//! its own, which count as ambiguous. With the answer these amounts become the window's, and so do those of
//! the tasks that the task has made.
//!
//! A task that was there before the request may serve one request after the other. So if such a task makes
//! other tasks, it does not follow them to the window that they answer.

use residue_ebpf::abi::window::{
    AMBIGUOUS, Amounts, ProcessWindows, TASK, TASKS as MAX_TASKS, TaskState, count_under_way,
};

use super::window::{at, open};
use crate::{
    atomic,
    maps::{LAST_TASK, PROCESS_WINDOWS, TASKS},
};

/// How many of the tasks that a task has made, directly or not, follow the task to its window. Further ones remain
/// ambiguous.
const MAX_FOLLOWERS: usize = 48;
/// How many of the tasks that have led to a task follow the task to its window.
const MAX_PARENTS: usize = 4;

/// The state of the task with this number, unless another task has taken the place.
#[inline(always)]
pub fn task(id: u32) -> Option<&'static mut TaskState> {
    let state = TASKS.get_ptr_mut(id & (MAX_TASKS - 1))?;
    // SAFETY: the pointer leads to a map value. Its amounts change only atomically, and only the event loop's thread
    // changes the rest.
    let state = unsafe { &mut *state };
    (id & TASK != 0 && state.id == id).then_some(state)
}

/// The open window that a window or task is or works for, or the task itself while its window is not known;
/// zero if the window or task is over.
#[inline(always)]
pub fn live(owner: u32) -> u32 {
    let mut window = owner;
    if owner & TASK != 0 {
        match task(owner) {
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

/// Gives a task a number and returns the number; zero if there is no room. `parent` is the number of the task
/// that has made the task, or zero. `is_older` says whether the task has been there for some time.
#[inline(always)]
pub fn begin(process: u16, parent: u32, is_older: bool) -> u32 {
    let Some(last) = LAST_TASK.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the pointer leads to a map value.
    let number = unsafe { atomic::fetch_add(last, 1) } as u32;
    let id = TASK | number;
    if id == AMBIGUOUS {
        return 0;
    }
    let Some(state) = TASKS.get_ptr_mut(id & (MAX_TASKS - 1)) else {
        return 0;
    };
    let mut new = TaskState {
        id,
        process: u32::from(process),
        opened: windows_opened(process),
        is_older: u32::from(is_older),
        parent,
        ..TaskState::default()
    };
    if let Some(parent) = task(parent) {
        new.depth = parent.depth + 1;
        new.next = parent.next;
        parent.next = id;
    }
    // SAFETY: the pointer leads to a map value, which has held the oldest task.
    unsafe { *state = new };
    id
}

/// How many windows of a process have opened so far, modulo 2^32.
#[inline(always)]
fn windows_opened(process: u16) -> u32 {
    let process = PROCESS_WINDOWS.get(u32::from(process));
    process.map_or(0, |process| process.opened as u32)
}

/// Whether a task was there before a window opened.
#[inline(always)]
pub fn is_older(id: u32, window: u32) -> bool {
    let (Some(task), Some(window)) = (task(id), at(window)) else {
        return false;
    };
    task.is_older != 0 || window.number.wrapping_sub(task.opened) as i32 >= 0
}

/// Whether a task that had been there for some time when it got its number has let a window go by that opened
/// after that. Such a task answers no requests, though it may work for requests.
#[inline(always)]
pub fn serves_several(id: u32, process: &ProcessWindows) -> bool {
    task(id).is_some_and(|task| {
        let opened_since = (process.opened as u32).wrapping_sub(task.opened);
        task.is_older != 0 && u64::from(opened_since) > count_under_way(process.under_way)
    })
}

/// Of the tasks that have led to a task, the first one that a window's request has brought about; the task
/// itself if there is no such task.
#[inline(always)]
pub fn first_of(id: u32, window: u32) -> u32 {
    let mut first = id;
    for _ in 0..MAX_PARENTS {
        let parent = task(first).map_or(0, |task| task.parent);
        let works_for_none = task(parent).is_some_and(|parent| parent.window == 0);
        if !works_for_none || is_older(parent, window) {
            break;
        }
        first = parent;
    }
    first
}

/// Notes that a task, and the tasks that it has made, work for a window, and always did. Returns how many
/// tasks these are. A global function, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn join_tasks(id: u64, window: u64) -> u64 {
    let Some(first) = task(id as u32) else {
        return 0;
    };
    let depth = first.depth;
    let mut next = first.next;
    join(first, window as u32);
    let mut joined = 1;
    // The tasks that a task has made lie behind the task, and deeper.
    for _ in 0..MAX_FOLLOWERS {
        let Some(follower) = task(next) else {
            break;
        };
        if follower.depth <= depth {
            break;
        }
        next = follower.next;
        if follower.window == 0 {
            join(follower, window as u32);
            joined += 1;
        }
    }
    joined
}

#[inline(always)]
fn join(task: &mut TaskState, window: u32) {
    // This comes first, so that from here on nobody counts anything for the task itself.
    task.window = window;
    let (Some(window), Some(process)) = (at(window), PROCESS_WINDOWS.get_ptr_mut(task.process))
    else {
        return;
    };
    // SAFETY: the pointer leads to a map value, whose fields change only atomically.
    let ambiguous = unsafe { &mut (*process).ambiguous };
    carry(&mut task.amounts, ambiguous, &mut window.amounts);
}

/// Takes the amounts that were counted for the task away from the task and from the ambiguous amounts, and
/// counts them for the window.
#[inline(always)]
fn carry(task: &mut Amounts, ambiguous: &mut Amounts, window: &mut Amounts) {
    macro_rules! field {
        ($name:ident) => {
            (
                &raw mut task.$name,
                &raw mut ambiguous.$name,
                &raw mut window.$name,
            )
        };
    }
    let fields = [
        field!(alloc_bytes),
        field!(alloc_objects),
        field!(freed_bytes),
        field!(freed_objects),
    ];
    for (task, ambiguous, window) in fields {
        // SAFETY: the pointers lead to fields of map values.
        unsafe {
            let amount = *task;
            atomic::add(task, amount.wrapping_neg());
            atomic::add(ambiguous, amount.wrapping_neg());
            atomic::add(window, amount);
        }
    }
}
