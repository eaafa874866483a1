//! The plan of a copy: which parts of a file go into it.

use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::pod::from_bytes;
use object::read::ReadRef;
use object::read::elf::{CompressionHeader as _, FileHeader as _, SectionHeader as _};

use super::{ENDIAN, ImageError, Share, Shared, Taken, no_section};
use crate::process::FileData;
use crate::process::elf::{MAX_SECTIONS, MAX_SEGMENTS};

/// The most bytes that a compressed section unpacks to, for each of its bytes. Compression shrinks debug
/// information to a third; somebody made what grows a thousandfold for the purpose.
const MAX_GROWTH: u64 = 64;

/// The sections without which there is no name at all. blazesym finds them by their names.
const SYMBOLS: [&[u8]; 5] = [
    b".symtab",
    b".strtab",
    b".dynsym",
    b".dynstr",
    b".note.gnu.build-id",
];
/// The sections that lead from an address to lines and to inlined functions. The places of variables, and the
/// indices of debuggers, are as large again and serve no purpose here.
const DEBUG: [&[u8]; 11] = [
    b".debug_abbrev",
    b".debug_addr",
    b".debug_aranges",
    b".debug_info",
    b".debug_line",
    b".debug_line_str",
    b".debug_ranges",
    b".debug_rnglists",
    b".debug_str",
    b".debug_str_offsets",
    b".debug_types",
];
/// The section that names the file which debug files share.
const LINK: &[u8] = b".gnu_debugaltlink";

/// The plan of a copy.
pub(super) struct Plan<'data> {
    /// The file's header.
    pub header: FileHeader64<LittleEndian>,
    /// The headers of the file's segments, which lead from file offsets to addresses.
    pub segments: &'data [ProgramHeader64<LittleEndian>],
    /// The sections that go into the copy.
    pub sections: Vec<Section>,
}

/// A section of the copy.
pub(super) struct Section {
    /// The section's name.
    pub name: &'static [u8],
    /// The section's header in the file. In the copy, the offset and the length will differ.
    pub header: SectionHeader64<LittleEndian>,
    /// The section's bytes.
    pub contents: Contents,
}

/// Where the bytes of a section come from.
pub(super) enum Contents {
    /// The bytes are in the file.
    Part {
        /// The file offset at which they begin.
        offset: u64,
        /// How many bytes there are.
        bytes: u64,
    },
    /// The bytes are in the file, compressed by zlib.
    Compressed {
        /// The file offset at which the compressed bytes begin.
        offset: u64,
        /// How many compressed bytes there are.
        packed: u64,
        /// How many bytes they unpack to.
        bytes: u64,
    },
    /// Residue made the bytes.
    Made(Vec<u8>),
}

impl Contents {
    fn bytes(&self) -> u64 {
        match self {
            Self::Part { bytes, .. } | Self::Compressed { bytes, .. } => *bytes,
            Self::Made(made) => made.len() as u64,
        }
    }
}

impl<'data> Plan<'data> {
    /// Makes the plan from the section headers. Leaves debug information that finds no room out as a whole,
    /// because its parts refer to each other. `taken` has what the plan took of the share, even after an error.
    pub fn of(
        data: &'data FileData<'_>,
        shared: Option<&Shared>,
        share: &mut Share<'_>,
        taken: &mut Taken,
    ) -> Result<Self, ImageError> {
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| ImageError::Damaged)?;
        let segments = header.program_headers(ENDIAN, data);
        let segments = segments.map_err(|_| ImageError::Damaged)?;
        let mut symbols = sections(data, header, &SYMBOLS)?;
        let debug = sections(data, header, &DEBUG)?;
        if !share.take_symbols(total(&symbols), taken) {
            return Err(ImageError::TooLarge);
        }
        let debug = match share.take_debug(total(&debug), taken) {
            true => debug,
            false => Vec::new(),
        };
        symbols.extend(debug);
        symbols.extend(shared.map(link));
        Ok(Self {
            header: *header,
            segments: &segments[..segments.len().min(MAX_SEGMENTS)],
            sections: symbols,
        })
    }
}

fn total(sections: &[Section]) -> u64 {
    let bytes = sections.iter().map(|section| section.contents.bytes());
    bytes.fold(0, u64::saturating_add)
}

/// The first section of each of these names.
fn sections(
    data: &FileData<'_>,
    header: &FileHeader64<LittleEndian>,
    names: &[&'static [u8]],
) -> Result<Vec<Section>, ImageError> {
    let table = header.sections(ENDIAN, data);
    let table = table.map_err(|_| ImageError::Damaged)?;
    let mut found: Vec<Section> = Vec::new();
    for section in table.iter().take(MAX_SECTIONS) {
        let name = table.section_name(ENDIAN, section).unwrap_or_default();
        let Some(&name) = names.iter().find(|wanted| **wanted == name) else {
            continue;
        };
        if found.iter().all(|section| section.name != name) {
            let contents = contents(data, section);
            found.extend(contents.map(|contents| Section {
                name,
                header: *section,
                contents,
            }));
        }
    }
    Ok(found)
}

/// Where a section's bytes are; `None` if they are not in this file, or are packed in a way that blazesym does
/// not unpack.
fn contents(data: &FileData<'_>, section: &SectionHeader64<LittleEndian>) -> Option<Contents> {
    let (offset, bytes) = section.file_range(ENDIAN)?;
    let end = offset.checked_add(bytes)?;
    if end > data.len().ok()? {
        return None;
    }
    let flags = section.sh_flags(ENDIAN);
    if flags & u64::from(elf::SHF_COMPRESSED) == 0 {
        return Some(Contents::Part { offset, bytes });
    }
    type Compression = elf::CompressionHeader64<LittleEndian>;
    let before = size_of::<Compression>() as u64;
    let head = data.read_bytes_at(offset, before).ok()?;
    let (head, _) = from_bytes::<Compression>(head).ok()?;
    let packed = bytes.checked_sub(before)?;
    let unpacked = head.ch_size(ENDIAN);
    let is_plausible = unpacked <= packed.saturating_mul(MAX_GROWTH);
    (head.ch_type(ENDIAN) == elf::ELFCOMPRESS_ZLIB && is_plausible).then_some(
        Contents::Compressed {
            offset: offset + before,
            packed,
            bytes: unpacked,
        },
    )
}

fn link(shared: &Shared) -> Section {
    Section {
        name: LINK,
        header: no_section(elf::SHT_PROGBITS),
        contents: Contents::Made(shared.link()),
    }
}
