//! Tasks that work on no request as far as is known yet.
//!
//! Where a server makes the task that answers a request outside of what runs when the request's data
//! arrives, its window is known only when it answers. Until then the task has amounts of its own, which
//! are ambiguous; with the answer they become the window's, and so do those of the tasks that it has made.
//!
//! A task that makes others is not bound by what these answer if it was there before the request: it may serve
//! one after the other.

use residue_ebpf::abi::window::{
    AMBIGUOUS, Amounts, ProcessWindows, TASK, TASKS as MAX_TASKS, TaskState, count_under_way,
};

use super::at;
use crate::{
    atomic,
    maps::{LAST_TASK, PROCESS_WINDOWS, TASKS},
};

/// So many tasks that one has made, directly or not, follow it. Further ones remain ambiguous.
const MAX_FOLLOWERS: usize = 48;
/// And so many tasks that have led to it.
const MAX_PARENTS: usize = 4;

/// The state of a task by its id, unless another one has taken its place.
#[inline(always)]
pub fn task(id: u32) -> Option<&'static mut TaskState> {
    let state = TASKS.get_ptr_mut(id & (MAX_TASKS - 1))?;
    // SAFETY: a map value; its amounts are only changed atomically, the rest by the event loop's thread.
    let state = unsafe { &mut *state };
    (id & TASK != 0 && state.id == id).then_some(state)
}

/// A task's new id; zero if there is none. `parent` is the id of the task that has made it, or zero; `is_older`
/// says whether the task has been there for some time.
#[inline(always)]
pub fn begin(process: u16, parent: u32, is_older: bool) -> u32 {
    let Some(last) = LAST_TASK.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a map value.
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
    // SAFETY: a map value, of the oldest task.
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

/// Whether a task that was there before it was told apart has let a window go by that opened after that: it
/// answers no requests, though it may work for them.
#[inline(always)]
pub fn serves_several(id: u32, process: &ProcessWindows) -> bool {
    task(id).is_some_and(|task| {
        let opened_since = (process.opened as u32).wrapping_sub(task.opened);
        task.is_older != 0 && u64::from(opened_since) > count_under_way(process.under_way)
    })
}

/// The first of the tasks that have made a task one after the other, of those that a window's request has brought
/// about; the task itself if there is none.
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

/// The task, and those that it has made, work for a window, and always did.
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
    // Those that a task has made lie behind it, and deeper.
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
    // First, so that from here on nothing is counted for the task itself.
    task.window = window;
    let (Some(window), Some(process)) = (at(window), PROCESS_WINDOWS.get_ptr_mut(task.process))
    else {
        return;
    };
    // SAFETY: a map value; its fields are only changed atomically.
    let ambiguous = unsafe { &mut (*process).ambiguous };
    carry(&mut task.amounts, ambiguous, &mut window.amounts);
}

/// What was counted for the task and as ambiguous counts for the window.
#[inline(always)]
fn carry(task: &mut Amounts, ambiguous: &mut Amounts, window: &mut Amounts) {
    let fields = [
        (
            &raw mut task.alloc_bytes,
            &raw mut ambiguous.alloc_bytes,
            &raw mut window.alloc_bytes,
        ),
        (
            &raw mut task.alloc_objects,
            &raw mut ambiguous.alloc_objects,
            &raw mut window.alloc_objects,
        ),
        (
            &raw mut task.freed_bytes,
            &raw mut ambiguous.freed_bytes,
            &raw mut window.freed_bytes,
        ),
        (
            &raw mut task.freed_objects,
            &raw mut ambiguous.freed_objects,
            &raw mut window.freed_objects,
        ),
    ];
    for (task, ambiguous, window) in fields {
        // SAFETY: fields of map values.
        unsafe {
            let amount = *task;
            atomic::add(task, amount.wrapping_neg());
            atomic::add(ambiguous, amount.wrapping_neg());
            atomic::add(window, amount);
        }
    }
}
