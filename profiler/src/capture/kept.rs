//! What waits to be written: while somebody reads the capture, or while the disk is slow.

use std::time::{Duration, Instant};

use crate::capture::{Interval, Process};
use crate::ids::ProcessNumber;
use crate::requests::record::ProcessUnbound;

/// How long a recorder goes on keeping rows. No report takes a capture as long as that.
const MAX_TIME: Duration = Duration::from_secs(60);
/// How many rows a recorder keeps, beside those whose number does not grow with time.
const MAX_ROWS: usize = 1 << 20;

/// A row that comes by itself, not as part of an interval.
#[derive(Debug)]
pub(super) enum Row {
    /// A process whose recording begins.
    Process(Process),
    /// A process has ended.
    End {
        /// The process.
        process: ProcessNumber,
        /// When it ended, nanoseconds since 1970 UTC.
        at_ns: u64,
        /// How the process ended, for a person.
        reason: String,
    },
    /// A remark.
    Note {
        /// When the remark was made, nanoseconds since 1970 UTC.
        at_ns: u64,
        /// The text of the remark.
        text: String,
    },
}

/// Rows and figures that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The rows, in the order in which they came.
    pub(super) rows: Vec<Row>,
    /// All kept intervals, merged into one.
    pub(super) interval: Option<Interval>,
    /// Since when the recorder could write nothing; `None` when it has written everything.
    since: Option<Instant>,
}

impl Kept {
    /// Adds an interval. Its figures replace the older ones; everything else adds to them.
    pub(super) fn add(&mut self, interval: Interval) {
        let Some(before) = &mut self.interval else {
            self.interval = Some(interval);
            return;
        };
        let Interval {
            at_ns,
            modules,
            frames,
            stacks,
            totals,
            mappings,
            counters,
            windows,
            survivors,
            left_behind,
            unbound,
            memory,
        } = interval;
        before.modules.extend(modules);
        before.frames.extend(frames);
        before.stacks.extend(stacks);
        before.windows.extend(windows);
        before.survivors.extend(survivors);
        before.left_behind.extend(left_behind);
        before.memory.extend(memory);
        before.at_ns = at_ns;
        before.totals = totals;
        before.mappings = mappings;
        before.counters = counters;
        // A process that is over is in one interval more, and in none after that.
        let is_newer = |old: &ProcessUnbound| unbound.iter().any(|new| new.process == old.process);
        before.unbound.retain(|old| !is_newer(old));
        before.unbound.extend(unbound);
    }

    /// Adds everything that waits elsewhere, which is newer.
    pub(super) fn append(&mut self, newer: Self) {
        self.rows.extend(newer.rows);
        if let Some(interval) = newer.interval {
            self.add(interval);
        }
    }

    /// Whether nothing waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.interval.is_none()
    }

    /// Whether there is room and time to try again later.
    pub(super) fn may_wait(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        let news = self.interval.as_ref().map_or(0, |kept| {
            // A frame comes again when its symbols become known.
            let code = kept.modules.len() + kept.frames.len() + kept.stacks.len();
            let windows = kept.windows.len() + kept.survivors.len() + kept.left_behind.len();
            code + windows + kept.memory.len()
        });
        since.elapsed() < MAX_TIME && self.rows.len() + news < MAX_ROWS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::record::MemoryAt;

    const fn looked_at() -> MemoryAt {
        MemoryAt {
            process: ProcessNumber(0),
            at_ns: 0,
            unbound_bytes: None,
            resident_bytes: None,
        }
    }

    #[test]
    fn nobody_makes_a_recorder_keep_without_end() {
        let mut kept = Kept::default();
        assert!(kept.may_wait());
        kept.add(Interval {
            memory: vec![looked_at(); MAX_ROWS / 2],
            ..Interval::default()
        });
        assert!(kept.may_wait());
        kept.add(Interval {
            memory: vec![looked_at(); MAX_ROWS / 2],
            ..Interval::default()
        });
        assert!(!kept.may_wait(), "too much");
        let long_ago = Instant::now().checked_sub(MAX_TIME);
        let mut kept = Kept {
            since: Some(long_ago.expect("the machine runs for a minute")),
            ..Kept::default()
        };
        assert!(!kept.may_wait(), "too long");
    }
}
