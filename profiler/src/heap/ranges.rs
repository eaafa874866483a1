//! The anonymous memory mappings of one process that were made while it was recorded.
//!
//! Ranges, not addresses: an munmap can take the middle out of a range, an mmap with `MAP_FIXED`
//! can cover parts of several. Addresses are AVMAs, lengths bytes.

use std::collections::{BTreeMap, HashMap};

use super::{Figures, MappingOwner};

/// Who mapped something.
pub type Origin = (u32, MappingOwner);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    end: u64,
    origin: Origin,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Ranges {
    /// By start; they never overlap.
    live: BTreeMap<u64, Range>,
    /// By thread: what its last munmap or mremap took, until that is known to have succeeded.
    taken: HashMap<u32, Vec<(u64, Range)>>,
    totals: HashMap<Origin, Figures>,
    /// The end of the program break's last page, once known.
    break_end: Option<u64>,
}

/// Memory is mapped in whole pages.
const PAGE: u64 = 4096;

impl Ranges {
    /// For a process whose `[heap]` mapping ends at `break_end`.
    #[must_use]
    pub fn new(break_end: Option<u64>) -> Self {
        Self {
            break_end,
            ..Self::default()
        }
    }

    /// `[start, start + length)` was mapped. Whatever was there is gone. Without an origin it is
    /// no memory of its own (a file).
    pub fn map(&mut self, start: u64, length: u64, origin: Option<Origin>) {
        let end = start.saturating_add(round_up(length));
        self.unmap(start, end);
        let Some(origin) = origin.filter(|_| end > start) else {
            return;
        };
        let totals = self.totals.entry(origin).or_default();
        totals.alloc_bytes += end - start;
        totals.alloc_objects += 1;
        self.insert(start, Range { end, origin });
    }

    /// A thread is about to unmap `[start, start + length)`, or to move it away.
    pub fn take(&mut self, tid: u32, start: u64, length: u64) {
        let removed = if start.is_multiple_of(PAGE) {
            self.unmap(start, start.saturating_add(round_up(length)))
        } else {
            Vec::new()
        };
        self.taken.insert(tid, removed);
    }

    /// The thread's last [`take`](Self::take) did not happen.
    pub fn restore(&mut self, tid: u32) {
        for (start, range) in self.taken.remove(&tid).unwrap_or_default() {
            self.unmap(start, range.end);
            self.insert(start, range);
        }
    }

    /// The program break is now `to`.
    pub fn move_break(&mut self, to: u64, origin: Origin) {
        let to = round_up(to);
        match self.break_end.replace(to) {
            Some(from) if from < to => self.map(from, to - from, Some(origin)),
            Some(from) => {
                self.unmap(to, from);
            }
            None => {}
        }
    }

    /// What each origin has mapped, in bytes and ranges. A range that was cut in two counts as two.
    pub fn totals(&self) -> impl Iterator<Item = (Origin, Figures)> {
        self.totals
            .iter()
            .map(|(&origin, &totals)| (origin, totals))
    }

    /// Takes `[start, end)` out and returns what was there.
    fn unmap(&mut self, start: u64, end: u64) -> Vec<(u64, Range)> {
        let mut removed = Vec::new();
        for (at, range) in self.overlapping(start, end) {
            self.remove(at, range);
            if at < start {
                self.insert(
                    at,
                    Range {
                        end: start,
                        ..range
                    },
                );
            }
            if range.end > end {
                self.insert(end, range);
            }
            let part = Range {
                end: range.end.min(end),
                ..range
            };
            removed.push((at.max(start), part));
        }
        removed
    }

    fn overlapping(&self, start: u64, end: u64) -> Vec<(u64, Range)> {
        // The one that begins before `start` may reach into it.
        let first = self
            .live
            .range(..start)
            .next_back()
            .filter(|(_, range)| range.end > start)
            .map_or(start, |(&at, _)| at);
        if first >= end {
            return Vec::new();
        }
        self.live
            .range(first..end)
            .map(|(&at, &range)| (at, range))
            .collect()
    }

    fn insert(&mut self, start: u64, range: Range) {
        let totals = self.totals.entry(range.origin).or_default();
        totals.inuse_bytes += range.end - start;
        totals.inuse_objects += 1;
        self.live.insert(start, range);
    }

    fn remove(&mut self, start: u64, range: Range) {
        let totals = self.totals.entry(range.origin).or_default();
        totals.inuse_bytes -= range.end - start;
        totals.inuse_objects -= 1;
        self.live.remove(&start);
    }
}

const fn round_up(length: u64) -> u64 {
    length.saturating_add(PAGE - 1) & !(PAGE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Origin = (1, MappingOwner::Application);
    const B: Origin = (2, MappingOwner::Application);

    fn inuse(ranges: &Ranges, origin: Origin) -> (u64, u64) {
        let totals = ranges.totals.get(&origin).copied().unwrap_or_default();
        (totals.inuse_bytes / PAGE, totals.inuse_objects)
    }

    #[test]
    fn a_hole_in_the_middle_leaves_both_ends() {
        let mut ranges = Ranges::default();
        ranges.map(10 * PAGE, 10 * PAGE, Some(A));
        ranges.take(1, 13 * PAGE, 2 * PAGE);
        assert_eq!(inuse(&ranges, A), (8, 2));
        ranges.take(1, 0, 100 * PAGE);
        assert_eq!(inuse(&ranges, A), (0, 0));
        assert_eq!(ranges.totals[&A].alloc_bytes, 10 * PAGE);
    }

    #[test]
    fn a_fixed_mapping_replaces_what_it_covers() {
        let mut ranges = Ranges::default();
        ranges.map(10 * PAGE, 10 * PAGE, Some(A));
        ranges.map(15 * PAGE, 10 * PAGE, Some(B));
        assert_eq!(inuse(&ranges, A), (5, 1));
        assert_eq!(inuse(&ranges, B), (10, 1));
        ranges.map(12 * PAGE, PAGE, None);
        assert_eq!(
            inuse(&ranges, A),
            (4, 2),
            "a file over it counts for nobody"
        );
    }

    #[test]
    fn a_failed_unmap_changes_nothing() {
        let mut ranges = Ranges::default();
        ranges.map(10 * PAGE, 10 * PAGE, Some(A));
        ranges.take(1, 12 * PAGE, PAGE);
        ranges.restore(1);
        assert_eq!(inuse(&ranges, A).0, 10);
        ranges.take(1, 12 * PAGE + 1, PAGE);
        assert_eq!(
            inuse(&ranges, A).0,
            10,
            "the kernel refuses unaligned addresses"
        );
    }

    #[test]
    fn a_moved_range_belongs_to_who_moved_it() {
        let mut ranges = Ranges::default();
        ranges.map(10 * PAGE, 2 * PAGE, Some(A));
        ranges.take(1, 10 * PAGE, 2 * PAGE);
        ranges.map(50 * PAGE, 4 * PAGE, Some(B));
        assert_eq!(inuse(&ranges, A), (0, 0));
        assert_eq!(inuse(&ranges, B), (4, 1));
    }

    #[test]
    fn the_break_grows_and_shrinks_by_pages() {
        let mut ranges = Ranges::new(Some(100 * PAGE));
        ranges.move_break(100 * PAGE, A);
        ranges.move_break(103 * PAGE + 1, A);
        assert_eq!(inuse(&ranges, A), (4, 1));
        ranges.move_break(102 * PAGE, A);
        assert_eq!(inuse(&ranges, A), (2, 1));
        ranges.move_break(90 * PAGE, A);
        assert_eq!(inuse(&ranges, A), (0, 0), "below where recording began");
    }

    #[test]
    fn absurd_lengths_do_not_overflow() {
        let mut ranges = Ranges::default();
        ranges.map(u64::MAX - 5, u64::MAX, Some(A));
        ranges.take(1, PAGE, u64::MAX);
        ranges.move_break(u64::MAX, A);
        assert_eq!(inuse(&ranges, A).1, 0);
    }
}
