//! Static probes (USDT): places that a program's author marked with a macro of `sys/sdt.h`.
//!
//! Each is a `nop`, and an entry in the section `.note.stapsdt`: where the nop is, whose probe it is
//! and what it is called. The format is that of SystemTap's wiki, "User Space Probe Implementation".

use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::ReadRef;
use object::read::elf::{FileHeader as _, SectionHeader as _};

use super::symbols::{DamagedSymbols, array};
use crate::target::address::TextSegments;
use crate::target::{FileOffset, Svma};

const ENDIAN: LittleEndian = LittleEndian;
/// What owns the notes, with the zero that ends it.
const OWNER: &[u8] = b"stapsdt\0";
/// `NT_STAPSDT`.
const TYPE: u32 = 3;
/// Probes beyond this many are not looked at; libc, with the most, has a hundred.
const MAX_NOTES: usize = 1 << 16;
/// No provider and no probe has a longer name, bytes.
const MAX_NAME_BYTES: usize = 256;
/// The longest nop that a probe is put on.
const NOP_BYTES: u64 = 5;

/// What one note says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note<'a> {
    /// Of the nop, as it was linked.
    address: u64,
    /// Of `.stapsdt.base`, as it was linked.
    base: u64,
    /// Of a counter that says how many listen, as it was linked; zero where there is none.
    semaphore: u64,
    provider: &'a str,
    name: &'a str,
}

/// A place that can be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticProbe {
    /// Whose probe it is.
    pub provider: String,
    /// What it is called.
    pub name: String,
    /// Where it is, in the file's terms.
    pub address: Svma,
    /// Where it is in the file; `None` when its address is in no executable segment.
    pub file_offset: Option<FileOffset>,
    /// The instruction, if it is a nop, as it has to be.
    pub nop: Option<Vec<u8>>,
    /// The program passes here only while this counter is above zero.
    pub semaphore: Option<Svma>,
}

/// The static probes of an object.
///
/// # Errors
/// When its section headers contradict themselves. A damaged note ends the list.
pub fn static_probes<'data>(
    data: impl ReadRef<'data>,
    text: &TextSegments,
) -> Result<Vec<StaticProbe>, DamagedSymbols> {
    let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| DamagedSymbols)?;
    let sections = header.sections(ENDIAN, data).map_err(|_| DamagedSymbols)?;
    let section = |name| sections.section_by_name(ENDIAN, name);
    let Some((_, notes)) = section(b".note.stapsdt") else {
        return Ok(Vec::new());
    };
    let bytes: &[u8] = array(notes, data)?;
    let base = section(b".stapsdt.base").map(|(_, base)| base.sh_addr(ENDIAN));
    let found = Notes(bytes).take(MAX_NOTES);
    Ok(found.map(|note| note.place(base, data, text)).collect())
}

impl Note<'_> {
    /// Where the probe is now. Prelink moves addresses, and leaves notes as they are; what it did to the
    /// base it did to all.
    fn place<'data>(
        &self,
        base: Option<u64>,
        data: impl ReadRef<'data>,
        text: &TextSegments,
    ) -> StaticProbe {
        let moved = base.map_or(0, |base| base.wrapping_sub(self.base));
        let address = Svma(self.address.wrapping_add(moved));
        let file_offset = text.file_offset(address);
        let code = file_offset.and_then(|at| read_most(data, at));
        StaticProbe {
            provider: self.provider.to_owned(),
            name: self.name.to_owned(),
            address,
            file_offset,
            nop: code.and_then(nop),
            semaphore: (self.semaphore != 0).then(|| Svma(self.semaphore.wrapping_add(moved))),
        }
    }
}

/// What is left of the file at an offset, up to the length of a nop.
fn read_most<'data>(data: impl ReadRef<'data>, at: FileOffset) -> Option<&'data [u8]> {
    let left = data.len().ok()?.checked_sub(at.0)?;
    data.read_bytes_at(at.0, left.min(NOP_BYTES)).ok()
}

/// The nop that code begins with. A probe on anything else would be one in the middle of an instruction
/// as easily as not.
fn nop(code: &[u8]) -> Option<Vec<u8>> {
    const NOPS: [&[u8]; 4] = [
        &[0x90],
        &[0x66, 0x90],
        &[0x0f, 0x1f, 0x40, 0x00],
        &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    ];
    let mut nops = NOPS.into_iter();
    nops.find(|nop| code.starts_with(nop)).map(<[u8]>::to_vec)
}

/// Goes through the section's bytes; ends where they are damaged.
struct Notes<'a>(&'a [u8]);

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        loop {
            let (owner, kind, description) = self.entry()?;
            if (owner, kind) == (OWNER, TYPE)
                && let Some(note) = Note::parse(description)
            {
                return Some(note);
            }
        }
    }
}

impl<'a> Notes<'a> {
    /// An `Elf64_Nhdr`, its owner and its description, each padded to four bytes.
    fn entry(&mut self) -> Option<(&'a [u8], u32, &'a [u8])> {
        let [owner, description, kind] = [self.word()?, self.word()?, self.word()?];
        Some((self.padded(owner)?, kind, self.padded(description)?))
    }

    fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }

    fn padded(&mut self, bytes: u32) -> Option<&'a [u8]> {
        let bytes = usize::try_from(bytes).ok()?;
        let taken = self.0.get(..bytes)?;
        // The last entry of a section need not be padded.
        let padded = bytes.checked_next_multiple_of(4)?.min(self.0.len());
        self.0 = &self.0[padded..];
        Some(taken)
    }
}

impl<'a> Note<'a> {
    /// Three addresses and three strings: provider, name, arguments.
    fn parse(description: &'a [u8]) -> Option<Self> {
        let (address, rest) = description.split_first_chunk()?;
        let (base, rest) = rest.split_first_chunk()?;
        let (semaphore, rest) = rest.split_first_chunk()?;
        let mut strings = rest.split(|byte| *byte == 0);
        let mut name = || {
            let bytes = strings.next().filter(|it| it.len() <= MAX_NAME_BYTES)?;
            str::from_utf8(bytes).ok()
        };
        Some(Self {
            address: u64::from_le_bytes(*address),
            base: u64::from_le_bytes(*base),
            semaphore: u64::from_le_bytes(*semaphore),
            provider: name()?,
            name: name()?,
        })
    }
}

#[cfg(test)]
mod tests;
