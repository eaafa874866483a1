//! One line a request, as its application might have logged it.
//!
//! ```text
//! INFO [abc123] [pid-12345] POST /api/chat | duration=1234ms | memory=125MB->128MB | delta=+3.0MB | retained=2.9MB
//! WARNING [def456] [pid-12345] POST /api/chat | duration=980ms | memory=128MB->144MB | delta=+16.0MB | retained=15.8MB | LEAK_SUSPECTED
//! ```
//!
//! MB is 1,000,000 bytes and kB 1,000, as the letters say; reports, which count in KiB and MiB, say so
//! as well. What is not known is `?`, what is not sure has a `~` and says why.

mod json;
mod text;

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
    pub fn suspects(&self, record: &WindowRecord) -> bool {
        let retained = record.binding.is_bound() && record.retained.bytes >= self.threshold_bytes;
        retained || grew_by(record, self.threshold_bytes)
    }
}

fn grew_by(record: &WindowRecord, bytes: u64) -> bool {
    let delta = record.delta();
    delta.is_some_and(|delta| i128::from(delta) >= i128::from(bytes))
}

#[cfg(test)]
mod tests;
