//! One line for each request, as the application might have logged it.
//!
//! ```text
//! INFO [abc123] [pid-12345] POST /api/chat | duration=1234ms | memory=125MB->128MB | delta=+3.0MB | retained=2.9MB
//! WARNING [def456] [pid-12345] POST /api/chat | duration=980ms | memory=128MB->144MB | delta=+16.0MB | retained=15.8MB | LEAK_SUSPECTED
//! ```
//!
//! All sizes are in MB (1,000,000 bytes). Small sizes have as many decimals as they need, so that a
//! reader can compare sizes in one line or below each other at a glance. An unknown figure is `?`.
//! An unsure figure has a `~` and says why. If the last requests of the route retained as much, and
//! all of that was gone some requests later, the line does not call the memory retained:
//! `retained=0.0MB (+0.0028MB passing)`.

mod json;
mod text;

use crate::requests::growth::{Evidence, Known};
use crate::requests::record::WindowRecord;

pub use json::JsonLine;
pub use text::TextLine;

/// The default delta or retention from which on a window is suspected: 16 MB. That is more than a
/// request keeps that merely fills a cache, and it is the growth by which people have noticed such
/// requests.
pub const THRESHOLD_BYTES: u64 = 16_000_000;

/// Decides which windows have a line, and which of them are suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRules {
    /// The delta or retention in bytes from which on a leak is suspected.
    pub threshold_bytes: u64,
    /// Only windows that took at least this many nanoseconds have a line.
    pub min_duration_ns: u64,
    /// Only windows whose RSS grew by at least this many bytes have a line.
    pub min_delta_bytes: Option<u64>,
}

impl Default for LineRules {
    fn default() -> Self {
        Self {
            threshold_bytes: THRESHOLD_BYTES,
            min_duration_ns: 0,
            min_delta_bytes: None,
        }
    }
}

impl LineRules {
    /// Whether the window has a line. A window of unknown duration counts as long as it was open. A
    /// window of unknown delta has no line if there is a least delta.
    #[must_use]
    pub fn shows(&self, record: &WindowRecord) -> bool {
        let open_ns = record.closed_ns.saturating_sub(record.opened_ns);
        let is_slow = record.duration_ns.unwrap_or(open_ns) >= self.min_duration_ns;
        let min_delta = self.min_delta_bytes;
        is_slow && min_delta.is_none_or(|least| grew_by(record, least))
    }

    /// Whether the delta or the retention of the window passes the threshold. Retention counts only
    /// where it surely belongs to the window. The delta always counts.
    #[must_use]
    pub fn passes_threshold(&self, record: &WindowRecord) -> bool {
        let retained = record.binding.is_bound() && record.retained.bytes >= self.threshold_bytes;
        retained || grew_by(record, self.threshold_bytes)
    }
}

/// Returns why the route of the window is suspected, if it is, and if this window retained
/// anything.
fn evidence(record: &WindowRecord, known: Known) -> Option<Evidence> {
    let retains = record.binding.is_bound() && record.retained.bytes > 0;
    known.evidence.filter(|_| retains)
}

/// Returns the bytes of the window's retention that will pass, as they did with all of the last
/// requests of the route.
fn passing(record: &WindowRecord, known: Known) -> Option<u64> {
    let retained = record.retained.bytes;
    let passes = |most: &u64| record.binding.is_bound() && (1..=*most).contains(&retained);
    known.passing.filter(passes).map(|_| retained)
}

fn grew_by(record: &WindowRecord, bytes: u64) -> bool {
    let delta = record.delta();
    delta.is_some_and(|delta| i128::from(delta) >= i128::from(bytes))
}

#[cfg(test)]
mod tests;
