//! Which window the current thread works for.

use residue_ebpf::abi::window::BACKGROUND;

use super::{contexts, tasks::live, window::open};
use crate::state::thread::ThreadState;

/// The open window that the current thread works for, or the number of a task whose window is not known yet; zero if
/// neither is known. The thread's walk must have begun.
#[inline(always)]
pub fn works_for(thread: &mut ThreadState, process: u16) -> u32 {
    if thread.window != BACKGROUND {
        if open(thread.window).is_some_and(|window| window.bound() == thread.tid) {
            return thread.window;
        }
        thread.window = BACKGROUND;
    }
    match contexts::works_for(thread, process) {
        0 => live(thread.item.owner),
        window => window,
    }
}
