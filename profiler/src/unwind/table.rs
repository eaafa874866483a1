//! The unwind table of an object, which states the rule for each file offset of code.

use std::ops::Range;

use gimli::{DebugFrame, EhFrame, EndianSlice, LittleEndian};
use object::read::ReadRef;
use residue_ebpf::abi::unwind::Rule;

use super::UnwindError;
use super::build::Builder;
use super::cover::{Cover, Text};
use super::entries;
use super::sections::CfiSections;
use crate::process::elf::text_segments;

/// A rule, which holds from an offset to that of the next row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// File offset, bytes.
    pub offset: u32,
    /// How to get from a frame to the caller's frame.
    pub rule: Rule,
}

/// What a table is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnwindStats {
    /// CIEs and FDEs, sound or not.
    pub entries: usize,
    /// Entries that residue has left out because they are damaged.
    pub unsound: usize,
    /// FDEs that describe code of this object.
    pub fdes: usize,
    /// Call frame instructions that residue has run.
    pub instructions: usize,
    /// Bytes of code that FDEs cover.
    pub covered_bytes: u64,
}

impl UnwindStats {
    fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            unsound: self.unsound + other.unsound,
            fdes: self.fdes + other.fdes,
            instructions: self.instructions + other.instructions,
            covered_bytes: self.covered_bytes + other.covered_bytes,
        }
    }
}

/// The unwind table of an object: how to get from a frame to the caller's frame, for every instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwindTable {
    /// The rows, sorted. Each executable segment has a row at its first byte, and neighbouring rows of a segment have
    /// different rules.
    rows: Vec<TableRow>,
    text: Vec<Range<u32>>,
    stats: UnwindStats,
}

impl UnwindTable {
    /// Reads `.eh_frame`, and `.debug_frame` for the code that `.eh_frame` leaves out. For code that neither covers,
    /// the bytes of the code tell whether it keeps frame pointers. `data` is a whole ELF file, or the image of one,
    /// such as the vDSO.
    ///
    /// # Errors
    /// When the object has no call frame information that residue can use. But an object whose code keeps frame
    /// pointers, or that has a signal trampoline, gets a table even without call frame information.
    pub fn read<'data>(data: impl ReadRef<'data>) -> Result<Self, UnwindError> {
        let file_bytes = data.len().map_err(|()| UnwindError::Damaged)?;
        let text = Text::new(&text_segments(data)?, file_bytes)?;
        let sections = CfiSections::read(data)?;
        let eh_frame = read_eh_frame(&sections, &text)?;
        let debug_frame = read_debug_frame(&sections, &text)?;
        let built = Builder::new(data, &text, [&eh_frame, &debug_frame]).build();
        let stats = UnwindStats {
            covered_bytes: built.covered_bytes,
            ..eh_frame.stats.and(debug_frame.stats)
        };
        match stats {
            _ if !built.rows.is_empty() && (stats.fdes > 0 || built.knows_gaps) => {}
            UnwindStats { unsound: 0, .. } => return Err(UnwindError::NoCfi),
            _ => return Err(UnwindError::Damaged),
        }
        Ok(Self {
            rows: built.rows,
            text: text.ranges().collect(),
            stats,
        })
    }

    /// The rule at a file offset; `None` outside the executable segments.
    #[must_use]
    pub fn rule_at(&self, offset: u32) -> Option<Rule> {
        self.row_at(offset).map(|(_, rule)| rule)
    }

    /// The rule at a file offset, and the range of file offsets around there in which the rule holds.
    #[must_use]
    pub fn row_at(&self, offset: u32) -> Option<(Range<u32>, Rule)> {
        let text = self.text.iter().find(|text| text.contains(&offset))?;
        let behind = self.rows.partition_point(|row| row.offset <= offset);
        let row = self.rows.get(behind.checked_sub(1)?)?;
        let next = self.rows.get(behind).map_or(text.end, |next| next.offset);
        Some((row.offset..next.min(text.end), row.rule))
    }

    /// The rows, in the order of their offsets. The last row of each executable segment holds to the end of that
    /// segment.
    #[must_use]
    pub fn rows(&self) -> &[TableRow] {
        &self.rows
    }

    /// The executable segments, as file offsets, in order.
    #[must_use]
    pub fn text(&self) -> &[Range<u32>] {
        &self.text
    }

    /// What the table is made from.
    #[must_use]
    pub fn stats(&self) -> UnwindStats {
        self.stats
    }
}

fn read_eh_frame(sections: &CfiSections<'_>, text: &Text) -> Result<Cover, UnwindError> {
    let Some(cfi) = &sections.eh_frame else {
        return Ok(Cover::default());
    };
    let mut section = EhFrame::from(EndianSlice::new(cfi.bytes, LittleEndian));
    section.set_address_size(8);
    entries::read(section, cfi, text)
}

fn read_debug_frame(sections: &CfiSections<'_>, text: &Text) -> Result<Cover, UnwindError> {
    let Some(cfi) = &sections.debug_frame else {
        return Ok(Cover::default());
    };
    let mut section = DebugFrame::from(EndianSlice::new(cfi.bytes, LittleEndian));
    section.set_address_size(8);
    entries::read(section, cfi, text)
}
