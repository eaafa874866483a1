//! Puts a table together, from the first byte of code to the last: what the covers say, and what is
//! known of the gaps between them.

use std::ops::Range;

use object::read::ReadRef;
use residue_ebpf::abi::unwind::Rule;

use super::cover::{Cover, Text};
use super::rule::GAP;
use super::table::TableRow;
use super::{frame_pointers, trampoline};

/// Code in gaps that is looked at, in bytes. What no CFI covers is small, except in
/// objects without any.
const MAX_SEARCHED: u64 = 64 << 20;
/// Shorter gaps are what pads two functions apart; to read each would take longer than the rest.
const MIN_SEARCHED: u32 = 16;

/// What was made.
#[derive(Debug, Default)]
pub(super) struct Built {
    /// As in [`super::UnwindTable`].
    pub rows: Vec<TableRow>,
    /// Bytes of code that FDEs cover.
    pub covered_bytes: u64,
    /// Whether anything is known of a gap: a signal trampoline, or that its code keeps frame
    /// pointers.
    pub knows_gaps: bool,
}

/// Makes it.
pub(super) struct Builder<'a, R> {
    data: R,
    text: &'a Text,
    /// The first that covers a place is the one that counts.
    covers: [&'a Cover; 2],
    built: Built,
    left_to_search: u64,
    /// Where the segment begins that is being filled: its first byte, and its first row.
    segment: (u32, usize),
}

impl<'a, 'data, R: ReadRef<'data>> Builder<'a, R> {
    /// For an object of these bytes.
    pub fn new(data: R, text: &'a Text, covers: [&'a Cover; 2]) -> Self {
        Self {
            data,
            text,
            covers,
            built: Built::default(),
            left_to_search: MAX_SEARCHED,
            segment: (0, 0),
        }
    }

    /// Goes through the segments.
    pub fn build(mut self) -> Built {
        for segment in self.text.ranges() {
            self.segment = (segment.start, self.built.rows.len());
            self.fill(0, segment);
        }
        self.built
    }

    /// Appends the rows of `place`. `cover` is the first that is asked about it.
    fn fill(&mut self, cover: usize, place: Range<u32>) {
        let Some(&source) = self.covers.get(cover) else {
            return self.fill_gap(place);
        };
        let mut at = place.start;
        for span in source.spans(&place) {
            let covered = span.start.max(at)..span.end.min(place.end);
            if at < covered.start {
                self.fill(cover + 1, at..covered.start);
            }
            at = covered.end;
            self.built.covered_bytes += u64::from(covered.end - covered.start);
            for row in source.rows(span, covered) {
                self.push(row.offset, row.rule);
            }
        }
        if at < place.end {
            self.fill(cover + 1, at..place.end);
        }
    }

    /// Code that no FDE covers. A handler returns to the first byte of a trampoline, and what looks
    /// for that return address looks one byte earlier, so the rule holds from there.
    fn fill_gap(&mut self, gap: Range<u32>) {
        let code = self.code(&gap);
        let otherwise = if frame_pointers::are_kept(code) {
            self.built.knows_gaps = true;
            frame_pointers::RULE
        } else {
            GAP
        };
        let mut at = gap.start;
        for found in trampoline::find(code) {
            let before = (gap.start + found.start as u32).saturating_sub(1);
            let start = before.max(self.segment.0);
            if at < start {
                self.push(at, otherwise);
            }
            self.push(start, trampoline::RULE);
            self.built.knows_gaps = true;
            at = gap.start + found.end as u32;
        }
        if at < gap.end {
            self.push(at, otherwise);
        }
    }

    fn code(&mut self, gap: &Range<u32>) -> &'data [u8] {
        let length = gap.end - gap.start;
        if length < MIN_SEARCHED || u64::from(length) > self.left_to_search {
            return &[];
        }
        self.left_to_search -= u64::from(length);
        let code = self.data.read_bytes_at(gap.start.into(), length.into());
        code.unwrap_or_default()
    }

    /// Offsets never go back. A row at the offset of the last one takes its place.
    fn push(&mut self, offset: u32, rule: Rule) {
        let rows = &mut self.built.rows;
        let first = self.segment.1;
        if rows.len() > first {
            rows.pop_if(|last| last.offset == offset);
        }
        if rows.len() == first || rows.last().is_none_or(|last| last.rule != rule) {
            rows.push(TableRow { offset, rule });
        }
    }
}
