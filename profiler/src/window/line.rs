//! One line a request, as its application might have logged it.
//!
//! ```text
//! INFO [abc123] [pid-12345] POST /api/chat | duration=1234ms | memory=125MB->128MB | delta=+3.0MB | retained=2.9MB
//! WARNING [def456] [pid-12345] POST /api/chat | duration=980ms | memory=128MB->144MB | delta=+16.0MB | retained=15.8MB | LEAK_SUSPECTED
//! ```
//!
//! All sizes are in MB, 1,000,000 bytes, small ones with as many decimals as they need: what stands in one line, or
//! below it, compares at a glance. What is not known is `?`, what is not sure has a `~` and says why. What is retained
//! and was gone some requests later whenever the route's last requests retained as much is not called retained:
//! `retained=0.0MB (+0.0028MB passing)`.

mod json;
mod text;

use super::growth::{Evidence, Known};
use super::record::WindowRecord;

pub use json::JsonLine;
pub use text::TextLine;

/// From which delta or retention on a window is suspected, unless told otherwise: 16 MB, more than any
/// request keeps that merely fills a cache, and the growth by which such requests were noticed.
pub const THRESHOLD_BYTES: u64 = 16_000_000;

/// Which windows have a line, and which of them are suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRules {
    /// Delta or retention, bytes, from which on a leak is suspected.
    pub threshold_bytes: u64,
    /// Only windows that took at least so long, nanoseconds.
    pub min_duration_ns: u64,
    /// Only windows whose RSS grew by at least so much, bytes.
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
    /// Whether the window has a line. One of unknown duration counts as long as it was open; one of
    /// unknown delta passes no filter for it.
    #[must_use]
    pub fn shows(&self, record: &WindowRecord) -> bool {
        let open_ns = record.closed_ns.saturating_sub(record.opened_ns);
        let is_slow = record.duration_ns.unwrap_or(open_ns) >= self.min_duration_ns;
        let min_delta = self.min_delta_bytes;
        is_slow && min_delta.is_none_or(|least| grew_by(record, least))
    }

    /// Whether the window's delta or retention passes the threshold. Retention counts only where it is
    /// the window's for sure; the delta counts always.
    #[must_use]
    pub fn passes_threshold(&self, record: &WindowRecord) -> bool {
        let retained = record.binding.is_bound() && record.retained.bytes >= self.threshold_bytes;
        retained || grew_by(record, self.threshold_bytes)
    }
}

/// Why the window's route is suspected, if it is, and if this one retained anything.
fn evidence(record: &WindowRecord, known: Known) -> Option<Evidence> {
    let retains = record.binding.is_bound() && record.retained.bytes > 0;
    known.evidence.filter(|_| retains)
}

/// What of the window's retention will pass, as it did with all of the last requests of its route; bytes.
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
