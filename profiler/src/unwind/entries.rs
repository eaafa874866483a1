//! Reads the entries of a section of call frame information: CIEs, and FDEs that refer to them.
//!
//! A damaged entry does not affect the others. A CIE counts only if the walk from entry to entry over the section
//! arrives at its first byte: real CIEs are nowhere else, and overlapping ones could cost much time for few bytes.

use std::collections::HashMap;

use gimli::{
    BaseAddresses, CommonInformationEntry, EndianSlice, FrameDescriptionEntry, LittleEndian,
    UnwindExpression, UnwindOffset, UnwindSection,
};

use super::UnwindError;
use super::columns::{Columns, Factors, Machine};
use super::cover::{Cover, Text};
use super::expression::{self, Meaning};
use super::rule::rule;
use super::sections::CfiSection;
use super::table::UnwindStats;

type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// The initial length which says that a length of 64 bits follows (DWARF 5, section 7.4).
const DWARF64: u32 = 0xffff_ffff;
/// The most entries: fifty times what large programs have (node: 75,936). Each costs eight bytes at first.
const MAX_ENTRIES: usize = 1 << 22;
/// The most CIEs. Linkers merge equal CIEs of `.eh_frame`; `.debug_frame` has one for each compilation unit.
const MAX_CIES: usize = 1 << 16;

/// A CIE, and the row that its FDEs begin with.
struct Cie<'data> {
    entry: CommonInformationEntry<Slice<'data>>,
    initial: Columns,
}

/// Reads what `section`, which has the bytes of `cfi`, states about the code in `text`.
pub(super) fn read<'data, S>(
    section: S,
    cfi: &CfiSection<'data>,
    text: &Text,
) -> Result<Cover, UnwindError>
where
    S: UnwindSection<Slice<'data>>,
    S::Offset: UnwindOffset<usize>,
{
    let mut cover = Cover::default();
    let mut entries = Entries {
        section,
        bases: &cfi.bases,
        cies: HashMap::new(),
        fdes: Vec::new(),
    };
    for offset in offsets(cfi) {
        entries.sort_out(offset, &mut cover.stats)?;
    }
    for offset in &entries.fdes {
        entries.read_fde(*offset, text, &mut cover)?;
    }
    cover.sort();
    Ok(cover)
}

struct Entries<'a, 'data, S> {
    section: S,
    bases: &'a BaseAddresses,
    cies: HashMap<usize, Cie<'data>>,
    /// The offsets of the FDEs. A CIE may come after the FDEs that refer to it, so FDEs wait here.
    fdes: Vec<usize>,
}

impl<'data, S> Entries<'_, 'data, S>
where
    S: UnwindSection<Slice<'data>>,
    S::Offset: UnwindOffset<usize>,
{
    fn sort_out(&mut self, offset: usize, stats: &mut UnwindStats) -> Result<(), UnwindError> {
        stats.entries += 1;
        if stats.entries > MAX_ENTRIES || self.cies.len() > MAX_CIES {
            return Err(UnwindError::TooLarge("entries of call frame information"));
        }
        let at = offset.into();
        if self.section.partial_fde_from_offset(self.bases, at).is_ok() {
            self.fdes.push(offset);
        } else if let Ok(entry) = self.section.cie_from_offset(self.bases, at) {
            self.read_cie(offset, entry, stats);
        } else {
            stats.unsound += 1;
        }
        Ok(())
    }

    fn read_cie(
        &mut self,
        offset: usize,
        entry: CommonInformationEntry<Slice<'data>>,
        stats: &mut UnwindStats,
    ) {
        let mut machine = Machine::for_cie(factors(&entry));
        let mut instructions = entry.instructions(&self.section, self.bases);
        let end = loop {
            match machine.next_row(&mut instructions) {
                Ok(Some(address)) => machine.address = address,
                end => break end,
            }
        };
        stats.instructions += machine.steps;
        if end.is_ok() {
            let initial = machine.columns;
            self.cies.insert(offset, Cie { entry, initial });
        } else {
            stats.unsound += 1;
        }
    }

    fn read_fde(&self, offset: usize, text: &Text, cover: &mut Cover) -> Result<(), UnwindError> {
        let Some((fde, initial)) = self.fde(offset) else {
            cover.stats.unsound += 1;
            return Ok(());
        };
        let end = fde.initial_address().checked_add(fde.len());
        if let Some(span) = end.and_then(|end| text.span(fde.initial_address(), end)) {
            cover.begin(span);
            run(&self.section, self.bases, &fde, initial, cover)?;
        }
        Ok(())
    }

    /// Parses an FDE, and finds the row that it begins with.
    fn fde(&self, offset: usize) -> Option<(FrameDescriptionEntry<Slice<'data>>, &Columns)> {
        let partial = self
            .section
            .partial_fde_from_offset(self.bases, offset.into());
        let partial = partial.ok()?;
        let cie = self.cies.get(&UnwindOffset::into(partial.cie_offset()))?;
        let fde = partial.parse(|_, _, _| Ok(cie.entry.clone())).ok()?;
        Some((fde, &cie.initial))
    }
}

/// Appends the rows of an FDE to the last span of the cover. Shortens that span to the sound instructions if some
/// are damaged.
fn run<'data, S: UnwindSection<Slice<'data>>>(
    section: &S,
    bases: &BaseAddresses,
    fde: &FrameDescriptionEntry<Slice<'data>>,
    initial: &Columns,
    cover: &mut Cover,
) -> Result<(), UnwindError> {
    let read = |expression: UnwindExpression<usize>| -> Option<Meaning> {
        expression::meaning(expression.get(section).ok()?, fde.cie().encoding())
    };
    let mut machine = Machine::for_fde(factors(fde.cie()), initial, fde.initial_address());
    let mut instructions = fde.instructions(section, bases);
    let is_signal_frame = fde.is_signal_trampoline();
    loop {
        let Ok(next) = machine.next_row(&mut instructions) else {
            cover.cut(machine.address);
            break;
        };
        if next != Some(machine.address) {
            let rule = rule(&machine.columns, is_signal_frame, read);
            cover.push(machine.address, rule)?;
        }
        match next {
            Some(address) if cover.reaches(address) => machine.address = address,
            _ => break,
        }
    }
    cover.stats.instructions += machine.steps;
    Ok(())
}

fn factors(cie: &CommonInformationEntry<Slice<'_>>) -> Factors {
    Factors {
        code: cie.code_alignment_factor(),
        data: cie.data_alignment_factor(),
    }
}

/// The offsets of the entries in their section. The first entry that does not end within the section ends the
/// walk, and does not count. crtend.o puts a length of zero at the end of the section, but an object that is
/// linked in an unusual order has more entries after it.
fn offsets<'a>(cfi: &'a CfiSection<'_>) -> impl Iterator<Item = usize> + 'a {
    let mut next = 0;
    std::iter::from_fn(move || {
        loop {
            let offset = next;
            let rest = cfi.bytes.get(offset..)?;
            next = offset.checked_add(entry_bytes(rest)?)?;
            let is_end = next == offset + size_of::<u32>();
            if is_end && cfi.ends_at_zero {
                return None;
            }
            if !is_end {
                return (next <= cfi.bytes.len()).then_some(offset);
            }
        }
    })
}

/// How many bytes the first entry takes, including the bytes of its length.
fn entry_bytes(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = u32::from_le_bytes(*length);
    if length != DWARF64 {
        return usize::try_from(length).ok()?.checked_add(size_of::<u32>());
    }
    let length = u64::from_le_bytes(*rest.first_chunk()?);
    let header = size_of::<u32>() + size_of::<u64>();
    usize::try_from(length).ok()?.checked_add(header)
}
