//! Finds windows by their numbers.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use residue_ebpf::abi::window::{WINDOWS as MAX_WINDOWS, WindowStage, WindowState};

use crate::{
    kernel::task::resident_set,
    maps::{PROCESS_WINDOWS, WINDOWS},
    state::connection::Moment,
};

/// The place of a window, which another window may have taken.
#[inline(always)]
pub fn at(window: u32) -> Option<&'static mut WindowState> {
    let state = WINDOWS.get_ptr_mut(window & (MAX_WINDOWS - 1))?;
    // SAFETY: the pointer leads to a map value; whatever several threads change in it, they change atomically.
    Some(unsafe { &mut *state })
}

/// The window of this number, unless the window is closed.
#[inline(always)]
pub fn open(window: u32) -> Option<&'static mut WindowState> {
    let state = at(window)?;
    let is_open = state.id() == window && state.stage() != WindowStage::Closed as u32;
    is_open.then_some(state)
}

/// Whether a process has an open window to which no thread is bound.
#[inline(always)]
pub fn is_any_unbound(process: u16) -> bool {
    PROCESS_WINDOWS
        .get(u32::from(process))
        .is_some_and(|process| process.unbound_open != 0)
}

/// This moment in the life of the current process.
#[inline(always)]
pub fn now() -> Moment {
    Moment {
        // SAFETY: a plain helper call.
        ns: unsafe { bpf_ktime_get_ns() },
        rss: resident_set(),
    }
}
