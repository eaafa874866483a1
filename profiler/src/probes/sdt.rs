//! Reads static probes (USDT): places that a program's author has marked with a macro of `sys/sdt.h`.
//!
//! Each static probe is a `nop` and a note in the section `.note.stapsdt`. The note says where the nop is, who
//! provides the probe, and the name of the probe. SystemTap's wiki describes the format under "User Space Probe
//! Implementation".

use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::ReadRef;
use object::read::elf::{FileHeader as _, SectionHeader as _};

use super::symbols::{DamagedSymbols, array};
use crate::process::address::TextSegments;
use crate::process::{FileOffset, Svma};

const ENDIAN: LittleEndian = LittleEndian;
/// The owner of these notes, with the zero that ends the string.
const OWNER: &[u8] = b"stapsdt\0";
/// `NT_STAPSDT`.
const TYPE: u32 = 3;
/// The most notes to read. libc has more probes than most objects: a hundred.
const MAX_NOTES: usize = 1 << 16;
/// The longest name of a provider or a probe, bytes.
const MAX_NAME_BYTES: usize = 256;
/// The longest nop that gets a probe, bytes.
const NOP_BYTES: u64 = 5;

/// The content of one note.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note<'a> {
    /// The address of the nop at link time.
    address: u64,
    /// The address of the section `.stapsdt.base` at link time.
    base: u64,
    /// The address, at link time, of a counter that says how many tools listen; zero where there is none.
    semaphore: u64,
    provider: &'a str,
    name: &'a str,
}

/// A static probe of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticProbe {
    /// The provider of the probe.
    pub provider: String,
    /// The name of the probe.
    pub name: String,
    /// Where the probe is, SVMA.
    pub address: Svma,
    /// Where the probe is in the file; `None` when its address is in no executable segment.
    pub file_offset: Option<FileOffset>,
    /// The bytes of the instruction there; `None` if it is no nop, as it must be.
    pub nop: Option<Vec<u8>>,
    /// The SVMA of a counter. The program executes the nop only while the counter is above zero.
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
    /// Finds the present place of the probe. Prelink moves all addresses by one distance and does not change the
    /// notes, so the distance that the base has moved applies to all.
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

/// Reads the file from an offset on, up to the length of a nop.
fn read_most<'data>(data: impl ReadRef<'data>, at: FileOffset) -> Option<&'data [u8]> {
    let left = data.len().ok()?.checked_sub(at.0)?;
    data.read_bytes_at(at.0, left.min(NOP_BYTES)).ok()
}

/// The nop that code begins with. Residue probes nothing else, because a probe in the middle of an instruction
/// would break the program.
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

/// Goes through the notes in the bytes of the section, and ends where they are damaged.
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
    /// Takes an entry off: an `Elf64_Nhdr`, the owner and the description, each padded to four bytes.
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
    /// Parses a description: three addresses, and the three strings provider, name and arguments.
    fn parse(description: &'a [u8]) -> Option<Self> {
        let (address, rest) = description.split_first_chunk()?;
        let (base, rest) = rest.split_first_chunk()?;
        let (semaphore, rest) = rest.split_first_chunk()?;
        let mut strings = rest.split(|byte| *byte == 0);
        let mut name = || {
            let bytes = strings.next()?;
            if bytes.len() > MAX_NAME_BYTES {
                return None;
            }
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
