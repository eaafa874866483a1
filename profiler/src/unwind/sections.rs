//! Finds the call frame information in an ELF file.

use gimli::{BaseAddresses, EhFrameHdr, EndianSlice};
use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::read::ReadRef;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};

use super::UnwindError;
use crate::process::elf::{MAX_SECTIONS, NotUsable};

const ENDIAN: LittleEndian = LittleEndian;
/// The most bytes of a section: twenty times what large programs have (node 20: 2.7 MiB for 27 MiB of code).
const MAX_SECTION_BYTES: u64 = 64 << 20;
/// The bytes of the longest name of interest, with the zero that ends the name.
const NAME_BYTES: u64 = ".debug_frame\0".len() as u64;

/// A section of call frame information.
pub(crate) struct CfiSection<'data> {
    /// The bytes of the section.
    pub bytes: &'data [u8],
    /// The bases of relative pointers in the section, SVMA.
    pub bases: BaseAddresses,
    /// Whether an entry with a length of zero ends the section, because nothing states where the section ends.
    pub ends_at_zero: bool,
}

/// The sections of call frame information that an object has.
#[derive(Default)]
pub(crate) struct CfiSections<'data> {
    /// `.eh_frame`
    pub eh_frame: Option<CfiSection<'data>>,
    /// `.debug_frame`
    pub debug_frame: Option<CfiSection<'data>>,
}

impl<'data> CfiSections<'data> {
    /// Finds the sections by the section headers, and `.eh_frame`, where those are missing, by its program header.
    pub fn read(data: impl ReadRef<'data>) -> Result<Self, UnwindError> {
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| NotUsable::Damaged)?;
        let headers = header.section_headers(ENDIAN, data).unwrap_or_default();
        let names = header
            .section_strings_index(ENDIAN, data)
            .ok()
            .and_then(|index| headers.get(index.0));
        let mut found = Self::default();
        if let Some(names) = names {
            found.read_named(data, headers, names)?;
        }
        if found.eh_frame.is_none() {
            let segments = header.program_headers(ENDIAN, data);
            let segments = segments.map_err(|_| NotUsable::Damaged)?;
            found.eh_frame = by_program_header(data, segments)?;
        }
        Ok(found)
    }

    fn read_named(
        &mut self,
        data: impl ReadRef<'data>,
        headers: &'data [SectionHeader64<LittleEndian>],
        names: &SectionHeader64<LittleEndian>,
    ) -> Result<(), UnwindError> {
        let mut bases = BaseAddresses::default();
        let (mut eh_frame, mut debug_frame) = (None, None);
        for section in headers.iter().take(MAX_SECTIONS) {
            let address = section.sh_addr(ENDIAN);
            match name(data, names, section) {
                b".text" => bases = bases.set_text(address),
                b".got" => bases = bases.set_got(address),
                b".eh_frame" => {
                    bases = bases.set_eh_frame(address);
                    eh_frame = bytes(data, section)?;
                }
                b".debug_frame" => debug_frame = bytes(data, section)?,
                _ => {}
            }
        }
        let cfi = |bytes| CfiSection {
            bytes,
            bases: bases.clone(),
            ends_at_zero: false,
        };
        (self.eh_frame, self.debug_frame) = (eh_frame.map(cfi), debug_frame.map(cfi));
        Ok(())
    }
}

/// The name of a section, cut to the bytes of the longest name of interest. Empty if residue cannot read the name.
fn name<'data>(
    data: impl ReadRef<'data>,
    names: &SectionHeader64<LittleEndian>,
    section: &SectionHeader64<LittleEndian>,
) -> &'data [u8] {
    let at = u64::from(section.sh_name(ENDIAN));
    let length = names.sh_size(ENDIAN).saturating_sub(at).min(NAME_BYTES);
    let start = names.sh_offset(ENDIAN).saturating_add(at);
    let bytes = data.read_bytes_at(start, length).unwrap_or_default();
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The bytes of a section; `None` if the section is not in this file, or is compressed. Only Go programs have a
/// compressed `.debug_frame`, and Go keeps frame pointers.
fn bytes<'data>(
    data: impl ReadRef<'data>,
    section: &SectionHeader64<LittleEndian>,
) -> Result<Option<&'data [u8]>, UnwindError> {
    let compressed = section.sh_flags(ENDIAN) & u64::from(elf::SHF_COMPRESSED) != 0;
    if compressed || section.sh_type(ENDIAN) == elf::SHT_NOBITS {
        return Ok(None);
    }
    bounded(data, section.sh_offset(ENDIAN), section.sh_size(ENDIAN)).map(Some)
}

fn bounded<'data>(
    data: impl ReadRef<'data>,
    offset: u64,
    length: u64,
) -> Result<&'data [u8], UnwindError> {
    if length > MAX_SECTION_BYTES {
        return Err(UnwindError::TooLarge("sections"));
    }
    data.read_bytes_at(offset, length)
        .map_err(|()| UnwindError::Damaged)
}

/// Finds `.eh_frame` by the program header `PT_GNU_EH_FRAME`, which states where `.eh_frame_hdr` is. That section
/// points to the start of `.eh_frame`, but nothing states the end.
fn by_program_header<'data>(
    data: impl ReadRef<'data>,
    segments: &[ProgramHeader64<LittleEndian>],
) -> Result<Option<CfiSection<'data>>, UnwindError> {
    let is_hdr = |segment: &&ProgramHeader64<_>| segment.p_type(ENDIAN) == elf::PT_GNU_EH_FRAME;
    let Some(hdr) = segments.iter().find(is_hdr) else {
        return Ok(None);
    };
    let hdr_bytes = bounded(data, hdr.p_offset(ENDIAN), hdr.p_filesz(ENDIAN))?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(hdr.p_vaddr(ENDIAN));
    let parsed = EhFrameHdr::from(EndianSlice::new(hdr_bytes, gimli::LittleEndian))
        .parse(&bases, 8)
        .and_then(|parsed| parsed.eh_frame_ptr().direct());
    let address = parsed.map_err(|_| UnwindError::Damaged)?;
    let Some((offset, length)) = to_segment_end(segments, address) else {
        return Err(UnwindError::Damaged);
    };
    Ok(Some(CfiSection {
        bytes: bounded(data, offset, length.min(MAX_SECTION_BYTES))?,
        bases: bases.set_eh_frame(address),
        ends_at_zero: true,
    }))
}

/// The file offset of `address`, SVMA, and how many bytes of the segment follow there.
fn to_segment_end(segments: &[ProgramHeader64<LittleEndian>], address: u64) -> Option<(u64, u64)> {
    let loaded = segments
        .iter()
        .filter(|segment| segment.p_type(ENDIAN) == elf::PT_LOAD);
    loaded.into_iter().find_map(|segment| {
        let into = address.checked_sub(segment.p_vaddr(ENDIAN))?;
        let length = segment.p_filesz(ENDIAN).checked_sub(into)?;
        Some((segment.p_offset(ENDIAN).checked_add(into)?, length)).filter(|_| length > 0)
    })
}
