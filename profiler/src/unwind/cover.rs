//! The rows that one section of call frame information states for an object's code, by file offset.

use std::ops::Range;

use residue_ebpf::abi::unwind::Rule;

use super::UnwindError;
use super::table::{TableRow, UnwindStats};
use crate::process::address::{Segment, TextSegments};

/// The most executable segments of an object. node has 3.
const MAX_SEGMENTS: usize = 64;
/// The most rows that FDEs may state, whether a row changes anything or not: ten times what large programs have
/// (node: 370,830). A row takes up to a microsecond to turn into a rule, and 20 bytes.
const MAX_ROWS: usize = 1 << 22;
/// `sizeof(Elf64_Ehdr)`. No function can be there. An FDE for such a place describes a function that the linker
/// has left out, with its address set to zero.
const ELF_HEADER_BYTES: u64 = 64;

/// The executable segments, sorted. No two of them overlap.
#[derive(Clone, Debug)]
pub(super) struct Text(Vec<Segment>);

/// The code that one FDE describes, usually a function.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// First byte, file offset.
    pub start: u32,
    /// The end: the file offset after the last byte.
    pub end: u32,
    /// SVMA - file offset.
    bias: u64,
    /// The indices of the span's rows.
    rows: Range<usize>,
}

impl Text {
    /// Takes the segments that are not empty. `file_bytes` is the length of the object.
    pub fn new(segments: &TextSegments, file_bytes: u64) -> Result<Self, UnwindError> {
        let held = segments.iter().filter(|segment| segment.file_bytes > 0);
        let mut segments: Vec<_> = held.copied().collect();
        if segments.len() > MAX_SEGMENTS {
            return Err(UnwindError::TooLarge("executable segments"));
        }
        segments.sort_by_key(|segment| segment.offset);
        let mut end = 0;
        for segment in &segments {
            if segment.offset.0 < end {
                return Err(UnwindError::Damaged);
            }
            let file_end = segment.offset.0.checked_add(segment.file_bytes);
            end = file_end
                .filter(|end| *end <= file_bytes)
                .ok_or(UnwindError::Damaged)?;
        }
        if u32::try_from(end).is_err() {
            return Err(UnwindError::TooLarge("file offsets of code"));
        }
        Ok(Self(segments))
    }

    /// Each segment as a range of file offsets.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u32>> {
        // `new` has checked that the segments end below 4 GiB.
        self.0.iter().map(|segment| {
            let end = segment.offset.0 + segment.file_bytes;
            segment.offset.0 as u32..end as u32
        })
    }

    /// The part of `start..end`, SVMA, that is in the same segment as `start`.
    pub fn span(&self, start: u64, end: u64) -> Option<Span> {
        self.0.iter().find_map(|segment| {
            let into = start.checked_sub(segment.address.0)?;
            let left = segment.file_bytes.checked_sub(into)?;
            let length = end.checked_sub(start)?.min(left);
            let offset = segment.offset.0 + into;
            (length > 0 && offset >= ELF_HEADER_BYTES).then(|| Span {
                start: offset as u32,
                end: (offset + length) as u32,
                bias: segment.address.0.wrapping_sub(segment.offset.0),
                rows: 0..0,
            })
        })
    }
}

/// The spans with their rows. After [`Cover::sort`], the spans are sorted and do not overlap.
#[derive(Debug, Default)]
pub(super) struct Cover {
    spans: Vec<Span>,
    rows: Vec<TableRow>,
    stated_rows: usize,
    /// What reading the section has taken.
    pub stats: UnwindStats,
}

impl Cover {
    /// Begins a span. The caller pushes the rows of the span next.
    pub fn begin(&mut self, span: Span) {
        self.drop_empty();
        let rows = self.rows.len()..self.rows.len();
        self.spans.push(Span { rows, ..span });
        self.stats.fdes += 1;
    }

    /// Appends a row, which holds from `address`, SVMA, on, to the last span. Rows come in order.
    pub fn push(&mut self, address: u64, rule: Rule) -> Result<(), UnwindError> {
        self.stated_rows += 1;
        if self.stated_rows > MAX_ROWS {
            return Err(UnwindError::TooLarge("rows"));
        }
        let Some(span) = self.spans.last_mut() else {
            return Ok(());
        };
        let last = self.rows[span.rows.clone()].last();
        if last.is_none_or(|last| last.rule != rule) {
            let offset = address.wrapping_sub(span.bias) as u32;
            self.rows.push(TableRow { offset, rule });
            span.rows.end = self.rows.len();
        }
        Ok(())
    }

    /// Shortens the last span so that it ends at `address`, SVMA.
    pub fn cut(&mut self, address: u64) {
        if let Some(span) = self.spans.last_mut() {
            span.end = span.end.min(address.wrapping_sub(span.bias) as u32);
        }
    }

    /// Whether `address`, SVMA, is before the end of the last span.
    pub fn reaches(&self, address: u64) -> bool {
        self.spans
            .last()
            .is_some_and(|span| address.wrapping_sub(span.bias) < u64::from(span.end))
    }

    /// Sorts the spans, and ends each where the next one begins. Keeps the first of several spans that begin at one
    /// place. The search through `.eh_frame_hdr`, by which libgcc and framehop find an FDE, has the same result.
    pub fn sort(&mut self) {
        self.drop_empty();
        self.spans.sort_by_key(|span| span.start);
        self.spans.dedup_by_key(|span| span.start);
        let mut next = u32::MAX;
        for span in self.spans.iter_mut().rev() {
            span.end = span.end.min(next);
            next = span.start;
        }
    }

    fn drop_empty(&mut self) {
        self.spans.pop_if(|span| span.start >= span.end);
    }

    /// The spans that reach into `place`, file offsets.
    pub fn spans(&self, place: &Range<u32>) -> impl Iterator<Item = &Span> {
        let first = self.spans.partition_point(|span| span.end <= place.start);
        let spans = self.spans[first..].iter();
        let end = place.end;
        spans.take_while(move |span| span.start < end)
    }

    /// The rows that hold in `place`, which is a range of file offsets inside `span`. The first row begins at the
    /// start of `place`.
    pub fn rows(&self, span: &Span, place: Range<u32>) -> impl Iterator<Item = TableRow> {
        let rows = &self.rows[span.rows.clone()];
        let behind = rows.partition_point(|row| row.offset <= place.start);
        let rows = rows[behind.saturating_sub(1)..].iter();
        rows.take_while(move |row| row.offset < place.end)
            .map(move |row| TableRow {
                offset: row.offset.max(place.start),
                ..*row
            })
    }
}
