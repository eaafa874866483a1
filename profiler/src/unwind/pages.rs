//! Cuts an unwind table into pages.

use std::iter::Peekable;
use std::ops::Range;
use std::vec::IntoIter;

use residue_ebpf::abi::unwind::{PAGE_BITS, Rule};

use super::rule::GAP;
use super::table::{TableRow, UnwindTable};

/// The rows of a page: the distance from the start of the page in bytes, and the rule. The first row is at 0.
pub(super) type PageRows = Vec<(u16, Rule)>;

/// The pages from the first byte of code to the last, in order. Bytes that are no code have the rule of gaps: the
/// rest of the first and the last page, and everything between two segments.
pub(super) struct Pages {
    left: Range<u32>,
    rows: Peekable<IntoIter<TableRow>>,
    /// The rule at the end of the previous page.
    rule: Rule,
}

/// Cuts a table.
pub(super) fn pages(table: &UnwindTable) -> Pages {
    let text = table.text();
    let first = text.first().map_or(0, |first| first.start >> PAGE_BITS);
    let last = text.last().map(|last| (last.end - 1) >> PAGE_BITS);
    Pages {
        left: first..last.map_or(first, |last| last + 1),
        rows: with_holes(table).into_iter().peekable(),
        rule: GAP,
    }
}

/// The rows of a table, with one more at the end of each segment.
fn with_holes(table: &UnwindTable) -> Vec<TableRow> {
    let mut rows = table.rows();
    let mut all = Vec::with_capacity(rows.len() + table.text().len());
    for text in table.text() {
        let (inside, behind) = rows.split_at(rows.partition_point(|row| row.offset < text.end));
        all.extend_from_slice(inside);
        all.push(TableRow {
            offset: text.end,
            rule: GAP,
        });
        rows = behind;
    }
    all
}

impl Pages {
    /// How many pages are left.
    pub fn len(&self) -> usize {
        self.left.len()
    }

    /// The file offset of the first page, in pages.
    pub fn first(&self) -> u32 {
        self.left.start
    }
}

impl Iterator for Pages {
    type Item = PageRows;

    fn next(&mut self) -> Option<PageRows> {
        let page = self.left.next()?;
        let mut rows = vec![(0, self.rule)];
        while let Some(row) = self.rows.next_if(|row| row.offset >> PAGE_BITS == page) {
            self.rule = row.rule;
            let offset = (row.offset % (1 << PAGE_BITS)) as u16;
            rows.pop_if(|last| last.0 == offset);
            if rows.last().is_none_or(|last| last.1 != row.rule) {
                rows.push((offset, row.rule));
            }
        }
        Some(rows)
    }
}
