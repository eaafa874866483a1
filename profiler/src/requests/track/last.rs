//! A window as it is at its end.

use residue_ebpf::abi::window::{Amounts, ProcessWindows, WindowEvent, WindowState};

use crate::requests::record::RssPair;

/// What is known of a window at its end.
#[derive(Clone, Copy, Debug)]
pub struct Last {
    /// The window.
    pub state: WindowState,
    /// When, nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// Resident set of the process, bytes.
    pub rss: u64,
    /// All windows so far of the process that no thread was bound to at some time.
    pub unbound_opened: u64,
    /// What the process has allocated that is ambiguous.
    pub ambiguous: Amounts,
    /// All windows of the process so far.
    pub opened: u64,
    /// Its allocations so far that some window's must be, and nobody knows which one's.
    pub escaped: u64,
}

impl From<&WindowEvent> for Last {
    fn from(event: &WindowEvent) -> Self {
        Self {
            state: event.state,
            at_ns: event.at_ns,
            rss: event.rss,
            unbound_opened: event.unbound_opened,
            ambiguous: event.ambiguous,
            opened: event.opened,
            escaped: event.escaped,
        }
    }
}

impl Last {
    /// Of a window that the kernel side did not close.
    #[must_use]
    pub const fn looked_at(state: WindowState, process: &ProcessWindows, at_ns: u64) -> Self {
        Self {
            state,
            at_ns,
            // As it was when the response was sent; it says nothing of what was done before.
            rss: if state.responded_ns == 0 {
                0
            } else {
                state.rss_responded
            },
            unbound_opened: process.unbound_opened,
            ambiguous: process.ambiguous,
            opened: process.opened,
            escaped: process.escaped,
        }
    }

    /// From the first byte of the request to the last one of the response so far, if there is one.
    pub(super) fn duration_ns(&self) -> Option<u64> {
        let WindowState {
            opened_ns,
            responded_ns,
            ..
        } = self.state;
        (responded_ns != 0).then(|| responded_ns.saturating_sub(opened_ns))
    }

    /// The resident set when the window opened and now, where the kernel tells both.
    pub(super) fn resident_sets(&self) -> Option<RssPair> {
        let (open, close) = (self.state.rss_open, self.rss);
        (open != 0 && close != 0).then_some(RssPair { open, close })
    }
}
