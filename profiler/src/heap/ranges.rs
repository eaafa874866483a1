//! The memory mappings that one process has made during its recording, without those of files.
//!
//! This module keeps ranges and not addresses, because an munmap can take the middle out of a range, and an
//! mmap with `MAP_FIXED` can cover parts of several. Addresses are AVMAs, lengths are bytes.

use std::collections::{BTreeMap, HashMap};

use super::{Figures, MappingOwner};
use crate::ids::StackId;

/// Who mapped a range: the id of the stack that did, and the owner.
pub type Origin = (StackId, MappingOwner);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    end: u64,
    origin: Origin,
}

impl Range {
    const fn until(self, end: u64) -> Self {
        Self { end, ..self }
    }
}

/// The memory mappings of one process and their totals.
#[derive(Debug, Default)]
pub struct Ranges {
    /// The mapped ranges by their start. No two of them overlap.
    live: BTreeMap<u64, Range>,
    /// For each thread: the ranges of its last munmap or mremap. Threads come and go: the ranges of the last ones stay.
    taken: HashMap<u32, Taken>,
    /// How many munmaps and mremaps there were.
    takes: u64,
    /// System V segments by their start, each with its end and who attached it.
    segments: HashMap<u64, Range>,
    /// With more segments than this, [`Ranges::attach`] forgets those that are gone. Each such clean-up sets
    /// the limit to twice as many as it left.
    most_segments: usize,
    totals: HashMap<Origin, Figures>,
    /// The end of the program break's last page, once it is known.
    break_end: Option<u64>,
}

/// The ranges that a thread was about to unmap or to move away.
#[derive(Debug)]
struct Taken {
    /// How many munmaps and mremaps there were before this one.
    number: u64,
    parts: Vec<(u64, Range)>,
    /// Whether the ranges stay mapped where they were, and only their content moves.
    stays: bool,
}

/// Up to this many segments, [`Ranges::attach`] does not look for those that are gone.
const MIN_SEGMENTS: usize = 1024;

/// At least this many of the last munmaps and mremaps are kept. A thread needs its own until the kernel is done with
/// it. So many at a time, each of another thread, wait for one lock.
const KEPT_TAKES: usize = 4096;

/// Bytes of a page: the kernel maps memory in whole pages.
const PAGE: u64 = 4096;

impl Ranges {
    /// Begins with a process whose `[heap]` mapping ends at `break_end`.
    #[must_use]
    pub fn new(break_end: Option<u64>) -> Self {
        Self {
            break_end,
            ..Self::default()
        }
    }

    /// Notes that `[start, start + length)` was mapped, and that whatever was mapped there is gone. A mapping
    /// without an origin (a file) does not count.
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

    /// Notes that a thread is about to unmap `[start, start + length)`, or to move that range away.
    pub fn take(&mut self, tid: u32, start: u64, length: u64) {
        let parts = if start.is_multiple_of(PAGE) {
            self.unmap(start, start.saturating_add(round_up(length)))
        } else {
            Vec::new()
        };
        self.remember(tid, parts, false);
    }

    /// Notes that a thread is about to move the content of `[start, start + length)` away, while the range
    /// stays mapped.
    pub fn empty(&mut self, tid: u32, start: u64, length: u64) {
        let parts = self.overlapping(start, start.saturating_add(round_up(length)));
        self.remember(tid, parts, true);
    }

    fn remember(&mut self, tid: u32, parts: Vec<(u64, Range)>, stays: bool) {
        let number = self.takes;
        self.takes += 1;
        let taken = Taken {
            number,
            parts,
            stays,
        };
        self.taken.insert(tid, taken);
        if self.taken.len() > 2 * KEPT_TAKES {
            let oldest = self.takes - KEPT_TAKES as u64;
            self.taken.retain(|_, taken| taken.number >= oldest);
        }
    }

    /// Who the memory of the thread's last [`take`](Self::take) or [`empty`](Self::empty) belonged to; `None` if
    /// that memory is not known.
    #[must_use]
    pub fn taken_from(&self, tid: u32) -> Option<MappingOwner> {
        let (_, range) = self.taken.get(&tid)?.parts.first()?;
        Some(range.origin.1)
    }

    /// Notes that a System V segment was attached at `[start, end)`.
    pub fn attach(&mut self, start: u64, end: u64, origin: Origin) {
        self.map(start, end.saturating_sub(start), Some(origin));
        self.segments.insert(start, Range { end, origin });
        if self.segments.len() > self.most_segments.max(MIN_SEGMENTS) {
            self.forget_segments();
        }
    }

    /// Forgets the segments that an munmap has removed.
    fn forget_segments(&mut self) {
        let mut segments = std::mem::take(&mut self.segments);
        segments.retain(|start, segment| {
            let parts = self.overlapping(*start, segment.end);
            parts
                .iter()
                .any(|(_, range)| range.origin == segment.origin)
        });
        self.most_segments = 2 * segments.len();
        self.segments = segments;
    }

    /// Notes that the System V segment at `start` is about to go. What was mapped over a part of the segment
    /// since then stays.
    pub fn detach(&mut self, start: u64) {
        let Some(segment) = self.segments.remove(&start) else {
            return;
        };
        for (at, range) in self.overlapping(start, segment.end) {
            if range.origin == segment.origin {
                self.unmap(at.max(start), range.end.min(segment.end));
            }
        }
    }

    /// Undoes the thread's last [`take`](Self::take), because the kernel refused the call.
    pub fn restore(&mut self, tid: u32) {
        let taken = self.taken.remove(&tid).filter(|taken| !taken.stays);
        for (start, range) in taken.map_or(Vec::new(), |taken| taken.parts) {
            self.unmap(start, range.end);
            self.insert(start, range);
        }
    }

    /// Notes that the program break is now `to`.
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

    /// What each origin has mapped, in bytes and ranges. A range that something cut in two counts as two.
    pub fn totals(&self) -> impl Iterator<Item = (Origin, Figures)> {
        self.totals
            .iter()
            .map(|(&origin, &totals)| (origin, totals))
    }

    /// Takes `[start, end)` out, and returns the ranges that were there.
    fn unmap(&mut self, start: u64, end: u64) -> Vec<(u64, Range)> {
        let mut removed = Vec::new();
        for (at, range) in self.overlapping(start, end) {
            self.remove(at, range);
            if at < start {
                self.insert(at, range.until(start));
            }
            if range.end > end {
                self.insert(end, range);
            }
            removed.push((at.max(start), range.until(range.end.min(end))));
        }
        removed
    }

    fn overlapping(&self, start: u64, end: u64) -> Vec<(u64, Range)> {
        // A range that begins before `start` may reach beyond `start`.
        let first = self
            .live
            .range(..start)
            .next_back()
            .filter(|(_, range)| range.end > start)
            .map_or(start, |(&at, _)| at);
        if start >= end {
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

    const A: Origin = (StackId(1), MappingOwner::Application);
    const B: Origin = (StackId(2), MappingOwner::Application);
    const SHARED: Origin = (StackId(3), MappingOwner::Shared);

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
    fn threads_that_are_gone_are_forgotten_and_the_last_ones_are_not() {
        let mut ranges = Ranges::default();
        ranges.map(10 * PAGE, 10 * PAGE, Some(A));
        for tid in 1..50_000 {
            ranges.take(tid, 12 * PAGE, PAGE);
            ranges.map(12 * PAGE, PAGE, Some(A));
        }
        assert!(ranges.taken.len() <= 2 * KEPT_TAKES);
        ranges.take(50_000, 13 * PAGE, PAGE);
        for tid in 1..1000 {
            ranges.empty(tid, 100 * PAGE, PAGE);
        }
        assert_eq!(inuse(&ranges, A).0, 9);
        ranges.restore(50_000);
        assert_eq!(inuse(&ranges, A).0, 10);
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
    fn a_range_that_stays_when_its_content_moves_is_one_of_two() {
        let mut ranges = Ranges::default();
        ranges.map(10 * PAGE, 2 * PAGE, Some(SHARED));
        ranges.empty(1, 10 * PAGE, 2 * PAGE);
        assert_eq!(ranges.taken_from(1), Some(MappingOwner::Shared));
        ranges.map(50 * PAGE, 2 * PAGE, Some(SHARED));
        assert_eq!(inuse(&ranges, SHARED), (4, 2));
        ranges.empty(1, 11 * PAGE, PAGE);
        ranges.restore(1);
        assert_eq!(inuse(&ranges, SHARED), (4, 2), "a move that failed");
    }

    /// `mremap` with an old length of zero maps the same shared memory a second time.
    #[test]
    fn to_take_nothing_changes_nothing() {
        let mut ranges = Ranges::default();
        ranges.map(10 * PAGE, 10 * PAGE, Some(A));
        ranges.take(1, 15 * PAGE, 0);
        assert_eq!(inuse(&ranges, A), (10, 1));
        assert_eq!(ranges.taken_from(1), None);
        assert_eq!(ranges.taken_from(2), None);
    }

    #[test]
    fn a_segment_goes_as_a_whole_but_for_what_was_mapped_over_it() {
        let mut ranges = Ranges::default();
        ranges.attach(10 * PAGE, 20 * PAGE, SHARED);
        ranges.take(1, 12 * PAGE, PAGE);
        ranges.map(15 * PAGE, PAGE, Some(A));
        assert_eq!(inuse(&ranges, SHARED), (8, 3));
        ranges.detach(11 * PAGE);
        assert_eq!(inuse(&ranges, SHARED), (8, 3), "no segment begins there");
        ranges.detach(10 * PAGE);
        assert_eq!(inuse(&ranges, SHARED), (0, 0));
        assert_eq!(inuse(&ranges, A), (1, 1));
    }

    #[test]
    fn segments_that_were_unmapped_are_forgotten() {
        let mut ranges = Ranges::default();
        for _ in 0..10 {
            for page in 1..1000 {
                ranges.attach(page * PAGE, (page + 1) * PAGE, SHARED);
                ranges.attach((page + 5000) * PAGE, (page + 5001) * PAGE, SHARED);
            }
            ranges.take(1, 0, 2000 * PAGE);
        }
        assert!(ranges.segments.len() <= 2048);
        ranges.detach(5001 * PAGE);
        assert_eq!(inuse(&ranges, SHARED), (998, 998));
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
        ranges.attach(PAGE, u64::MAX, SHARED);
        ranges.empty(1, PAGE, u64::MAX);
        ranges.detach(PAGE);
        ranges.attach(u64::MAX, 0, SHARED);
        ranges.move_break(u64::MAX, A);
        assert_eq!(inuse(&ranges, A).1, 0);
    }
}
