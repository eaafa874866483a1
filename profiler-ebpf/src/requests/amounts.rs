//! Counts allocations, and their ends, for windows and tasks.

use residue_ebpf::abi::{
    heap::LiveAllocation,
    window::{AMBIGUOUS, Amounts, BACKGROUND, TASK},
};

use super::{tasks::task, window::at};
use crate::{atomic, maps::PROCESS_WINDOWS};

/// Counts an allocation for its window or task.
#[inline(always)]
pub fn account_alloc(process: u16, allocation: &LiveAllocation) {
    let [first, second] = amounts(process, allocation.window);
    for amounts in [first, second].into_iter().flatten() {
        // SAFETY: the pointers lead to fields of a map value.
        unsafe {
            atomic::add(&raw mut amounts.alloc_bytes, allocation.size);
            atomic::add(&raw mut amounts.alloc_objects, 1);
        }
    }
}

/// Counts the end of an allocation for the window or task in which it was made, unless another window or task
/// has taken that place.
#[inline(always)]
pub fn account_free(process: u16, allocation: &LiveAllocation) {
    let [first, second] = amounts(process, allocation.window);
    for amounts in [first, second].into_iter().flatten() {
        // SAFETY: the pointers lead to fields of a map value.
        unsafe {
            atomic::add(&raw mut amounts.freed_bytes, allocation.size);
            atomic::add(&raw mut amounts.freed_objects, 1);
        }
    }
}

/// The amounts that count an allocation of a window or task. An allocation of a task whose window is not known counts
/// for the task, and as ambiguous.
#[inline(always)]
fn amounts(process: u16, window: u32) -> [Option<&'static mut Amounts>; 2] {
    if window == BACKGROUND || window == AMBIGUOUS {
        return [of_process(process, window), None];
    }
    if window & TASK == 0 {
        return [of_window(window), None];
    }
    match task(window) {
        None => [None, None],
        Some(task) if task.window != 0 => [of_window(task.window), None],
        Some(task) => [Some(&mut task.amounts), of_process(process, AMBIGUOUS)],
    }
}

#[inline(always)]
fn of_window(window: u32) -> Option<&'static mut Amounts> {
    let state = at(window)?;
    (state.id() == window).then_some(&mut state.amounts)
}

/// The amounts of a process that belong to no single window: [`BACKGROUND`] or [`AMBIGUOUS`].
#[inline(always)]
fn of_process(process: u16, window: u32) -> Option<&'static mut Amounts> {
    let process = PROCESS_WINDOWS.get_ptr_mut(u32::from(process))?;
    // SAFETY: the pointer leads to a map value, whose fields change only atomically.
    let process = unsafe { &mut *process };
    Some(match window {
        BACKGROUND => &mut process.background,
        _ => &mut process.ambiguous,
    })
}
