//! Puts a table together, from the first byte of code to the last: the rows of the covers, and rules for the gaps
//! between the covers.

use std::ops::Range;

use object::read::ReadRef;
use residue_ebpf::abi::unwind::Rule;

use super::cover::{Cover, Text};
use super::rule::GAP;
use super::table::TableRow;
use super::{frame_pointers, trampoline};

/// The most code in gaps to read, bytes. Only objects without any call frame information have large gaps.
const MAX_SEARCHED: u64 = 64 << 20;
/// The shortest gap to read, bytes. Shorter gaps are padding between two functions, and reading each would take
/// longer than everything else.
const MIN_SEARCHED: u32 = 16;

/// The parts of a finished table.
#[derive(Debug, Default)]
pub(super) struct Built {
    /// The rows, as in [`super::UnwindTable`].
    pub rows: Vec<TableRow>,
    /// Bytes of code that FDEs cover.
    pub covered_bytes: u64,
    /// Whether the builder found something in a gap: a signal trampoline, or code that keeps frame pointers.
    pub knows_gaps: bool,
}

/// Builds the table of one object.
pub(super) struct Builder<'a, R> {
    data: R,
    text: &'a Text,
    /// The covers. The first one that covers a place counts.
    covers: [&'a Cover; 2],
    built: Built,
    left_to_search: u64,
    /// Where the present segment begins: its first byte as a file offset, and the index of its first row.
    segment: (u32, usize),
}

impl<'a, 'data, R: ReadRef<'data>> Builder<'a, R> {
    /// Begins with the object that has these bytes.
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

    /// Builds the rows of all segments.
    pub fn build(mut self) -> Built {
        for segment in self.text.ranges() {
            self.segment = (segment.start, self.built.rows.len());
            self.fill(0, segment);
        }
        self.built
    }

    /// Appends the rows of `place`, from the cover with the index `cover` and those after that one.
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

    /// Appends the rows of code that no FDE covers. A signal handler returns to the first byte of a trampoline, and
    /// a walk looks up one byte before a return address, so the rule of a trampoline holds from that byte on.
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

    /// Appends a row. Offsets never decrease, and a row at the same offset as the last one replaces that one.
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
