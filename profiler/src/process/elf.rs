//! What discovery needs to know of an ELF file: what the file is, where its code goes, and what it is linked
//! with. Pure: the bytes may come from anywhere and may be anything.

use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::ReadRef;
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _};

use super::address::{FileOffset, Segment, Svma, TextSegments};

/// Names of sections that only the Go linker writes.
const GO_SECTIONS: [&[u8]; 3] = [b".go.buildinfo", b".note.go.buildid", b".gopclntab"];
/// Where `e_ident` states the class (elf.h).
const EI_CLASS: usize = 4;
/// More dynamic entries than any linker writes.
pub(super) const MAX_DYNAMIC_ENTRIES: usize = 4096;
/// The most segments. A linked object has some ten.
pub(crate) const MAX_SEGMENTS: usize = 4096;
/// The most bytes of notes. Real ones take some hundred.
const MAX_NOTE_BYTES: u64 = 1 << 20;
/// The most sections. A linked object has some forty; an object with one for each function is not linked yet.
pub(crate) const MAX_SECTIONS: usize = 4096;
/// The longest build id, in bytes: linkers make ids of 8 to 32 bytes, and accept up to 64 from the user.
const MAX_BUILD_ID_BYTES: usize = 64;
/// The most libraries that an object needs. Most need a few, some a hundred.
const MAX_NEEDED: usize = 512;
/// The longest name of a file, in bytes (limits.h, `NAME_MAX`). No longer name leads to a library.
const MAX_NAME_BYTES: usize = 255;
/// The most bytes of all names of needed libraries together.
const MAX_NEEDED_BYTES: usize = 32 << 10;

/// Why residue cannot look into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUsable {
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// `ELFCLASS32`: i386 or x32.
    #[error("a 32-bit ELF file")]
    ThirtyTwoBit,
    /// Another processor's code.
    #[error("an ELF file for another machine (e_machine {0})")]
    OtherMachine(u16),
    /// Headers that contradict themselves, or a file that is cut off.
    #[error("a damaged ELF file")]
    Damaged,
}

/// The facts about an ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElfFacts {
    /// Where the code is.
    pub text: TextSegments,
    /// `NT_GNU_BUILD_ID`, if there is one.
    pub build_id: Option<Vec<u8>>,
    /// Where the `PT_DYNAMIC` segment goes; `None` in a static executable.
    pub dynamic: Option<Svma>,
    /// Whether the file asks for a dynamic linker (`PT_INTERP`).
    pub has_interpreter: bool,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<Vec<u8>>,
    /// `DT_SONAME`.
    pub soname: Option<Vec<u8>>,
    /// Whether the Go linker made the file.
    pub is_go: bool,
}

type Header = FileHeader64<LittleEndian>;
const ENDIAN: LittleEndian = LittleEndian;

impl ElfFacts {
    /// Reads the headers, the notes and the dynamic section.
    ///
    /// # Errors
    /// When the file is no 64-bit x86-64 ELF file, or is damaged.
    pub fn read<'data>(data: impl ReadRef<'data>) -> Result<Self, NotUsable> {
        let (header, segments) = headers(data)?;
        let mut facts = Self {
            text: TextSegments::new(segments.iter().filter_map(load_segment)),
            is_go: has_go_section(header, data),
            ..Self::default()
        };
        for segment in segments {
            facts.has_interpreter |= segment.p_type(ENDIAN) == elf::PT_INTERP;
            facts.read_notes(segment, data);
            facts.read_dynamic(segment, segments, data);
        }
        Ok(facts)
    }

    /// Whether a program with these headers brings all of its code. Such a program has no dynamic section or,
    /// where the kernel can load it anywhere (static-pie), one that asks for no dynamic linker and no
    /// library. The dynamic linker looks the same when somebody runs it by its name, but it has a soname.
    #[must_use]
    pub fn is_static(&self) -> bool {
        let asks_for_nobody = !self.has_interpreter && self.needed.is_empty();
        self.dynamic.is_none() || (asks_for_nobody && self.soname.is_none())
    }

    fn read_notes<'data>(
        &mut self,
        segment: &elf::ProgramHeader64<LittleEndian>,
        data: impl ReadRef<'data>,
    ) {
        if segment.p_filesz(ENDIAN) > MAX_NOTE_BYTES {
            return;
        }
        let Ok(Some(mut notes)) = segment.notes(ENDIAN, data) else {
            return;
        };
        while let Ok(Some(note)) = notes.next() {
            match (note.name(), note.n_type(ENDIAN)) {
                (elf::ELF_NOTE_GNU, elf::NT_GNU_BUILD_ID) => {
                    let id = Some(note.desc()).filter(|id| id.len() <= MAX_BUILD_ID_BYTES);
                    self.build_id = id.map(<[u8]>::to_vec);
                }
                (b"Go", _) => self.is_go = true,
                _ => {}
            }
        }
    }

    fn read_dynamic<'data>(
        &mut self,
        segment: &elf::ProgramHeader64<LittleEndian>,
        segments: &[elf::ProgramHeader64<LittleEndian>],
        data: impl ReadRef<'data>,
    ) {
        // The first dynamic segment counts.
        if self.dynamic.is_some() {
            return;
        }
        let Ok(Some(entries)) = segment.dynamic(ENDIAN, data) else {
            return;
        };
        self.dynamic = Some(Svma(segment.p_vaddr(ENDIAN)));
        let entries = &entries[..entries.len().min(MAX_DYNAMIC_ENTRIES)];
        let value = |tag: i64| {
            let entry = entries.iter().find(|entry| entry.d_tag(ENDIAN) == tag)?;
            Some(entry.d_val(ENDIAN))
        };
        let Some(strings) = value(elf::DT_STRTAB).and_then(|at| file_offset(segments, at)) else {
            return;
        };
        let end = strings.saturating_add(value(elf::DT_STRSZ).unwrap_or(0));
        let string = |offset: u64| {
            let start = strings.checked_add(offset).filter(|start| *start < end)?;
            let string = data.read_bytes_at_until(start..end, 0).ok()?;
            (string.len() <= MAX_NAME_BYTES).then(|| string.to_vec())
        };
        self.read_names(entries, string);
    }

    fn read_names(
        &mut self,
        entries: &[elf::Dyn64<LittleEndian>],
        string: impl Fn(u64) -> Option<Vec<u8>>,
    ) {
        let mut left = MAX_NEEDED_BYTES;
        for entry in entries {
            match entry.d_tag(ENDIAN) {
                elf::DT_NEEDED if self.needed.len() < MAX_NEEDED => {
                    let name = string(entry.d_val(ENDIAN)).filter(|name| name.len() <= left);
                    left -= name.as_ref().map_or(0, Vec::len);
                    self.needed.extend(name);
                }
                elf::DT_SONAME => self.soname = string(entry.d_val(ENDIAN)),
                _ => {}
            }
        }
    }
}

/// Where the code of an ELF file is, for callers that need nothing else.
///
/// # Errors
/// When the file is no 64-bit x86-64 ELF file, or its headers are damaged.
pub fn text_segments<'data>(data: impl ReadRef<'data>) -> Result<TextSegments, NotUsable> {
    let (_, segments) = headers(data)?;
    Ok(TextSegments::new(segments.iter().filter_map(load_segment)))
}

type Headers<'data> = (&'data Header, &'data [elf::ProgramHeader64<LittleEndian>]);

fn headers<'data>(data: impl ReadRef<'data>) -> Result<Headers<'data>, NotUsable> {
    check_kind(data)?;
    let header = Header::parse(data).map_err(|_| NotUsable::Damaged)?;
    let segments = header.program_headers(ENDIAN, data);
    let segments = segments.map_err(|_| NotUsable::Damaged)?;
    Ok((header, &segments[..segments.len().min(MAX_SEGMENTS)]))
}

/// Checks `e_ident` and `e_machine`, before anything reads a field that depends on the class.
fn check_kind<'data>(data: impl ReadRef<'data>) -> Result<(), NotUsable> {
    let ident = data.read_bytes_at(0, 20).map_err(|()| NotUsable::NotElf)?;
    if !ident.starts_with(&elf::ELFMAG) {
        return Err(NotUsable::NotElf);
    }
    if ident[EI_CLASS] == elf::ELFCLASS32 {
        return Err(NotUsable::ThirtyTwoBit);
    }
    match u16::from_le_bytes([ident[18], ident[19]]) {
        elf::EM_X86_64 => Ok(()),
        other => Err(NotUsable::OtherMachine(other)),
    }
}

fn load_segment(header: &elf::ProgramHeader64<LittleEndian>) -> Option<Segment> {
    (header.p_type(ENDIAN) == elf::PT_LOAD).then(|| Segment {
        offset: FileOffset(header.p_offset(ENDIAN)),
        address: Svma(header.p_vaddr(ENDIAN)),
        file_bytes: header.p_filesz(ENDIAN),
        executable: header.p_flags(ENDIAN) & elf::PF_X != 0,
    })
}

/// The place in the file of the data at `address`, in whichever segment.
fn file_offset(segments: &[elf::ProgramHeader64<LittleEndian>], address: u64) -> Option<u64> {
    let mut loaded = segments.iter().filter_map(load_segment);
    let found = loaded.find_map(|segment| segment.file_offset(Svma(address)));
    found.map(|offset| offset.0)
}

fn has_go_section<'data>(header: &Header, data: impl ReadRef<'data>) -> bool {
    header.sections(ENDIAN, data).is_ok_and(|sections| {
        sections.iter().take(MAX_SECTIONS).any(|section| {
            let name = sections.section_name(ENDIAN, section);
            name.is_ok_and(|name| GO_SECTIONS.contains(&name)) && section.sh_size(ENDIAN) > 0
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header and nothing behind it.
    fn header(class: u8, machine: u16) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..4].copy_from_slice(&elf::ELFMAG);
        (bytes[4], bytes[5], bytes[6]) = (class, elf::ELFDATA2LSB, elf::EV_CURRENT);
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes
    }

    #[test]
    fn this_test_program_is_understood() {
        let bytes = std::fs::read("/proc/self/exe").expect("a program can read itself");
        let facts = ElfFacts::read(&bytes[..]).expect("a program that runs is whole");
        assert!(facts.needed.iter().any(|name| name.starts_with(b"libc.so")));
        assert!(facts.dynamic.is_some() && !facts.is_go && !facts.is_static());
    }

    #[test]
    fn other_kinds_of_file_are_told_apart() {
        let read = |bytes: &[u8]| ElfFacts::read(bytes).expect_err("not usable");
        assert_eq!(read(b"#!/bin/sh\n"), NotUsable::NotElf);
        assert_eq!(read(b""), NotUsable::NotElf);
        assert_eq!(
            read(&header(elf::ELFCLASS32, elf::EM_386)),
            NotUsable::ThirtyTwoBit
        );
        let x32 = header(elf::ELFCLASS32, elf::EM_X86_64);
        assert_eq!(read(&x32), NotUsable::ThirtyTwoBit);
        let arm = header(elf::ELFCLASS64, elf::EM_AARCH64);
        assert_eq!(read(&arm), NotUsable::OtherMachine(elf::EM_AARCH64));
    }

    #[test]
    fn a_file_cut_off_anywhere_never_panics() {
        let bytes = std::fs::read("/proc/self/exe").expect("a program can read itself");
        for length in (0..4096).chain((4096..bytes.len()).step_by(1 << 16)) {
            let _ = ElfFacts::read(&bytes[..length]);
        }
    }

    /// A file with one segment of notes, one of a dynamic section, and one of the whole file. It holds
    /// `dynamic`, then `strings`, then `notes`.
    fn file(dynamic: &[(i64, u64)], strings: &[u8], notes: &[u8]) -> Vec<u8> {
        const HEADERS: u64 = 64 + 3 * 56;
        let mut entries: Vec<(i64, u64)> = dynamic.to_vec();
        let dynamic_bytes = 16 * (entries.len() as u64 + 3);
        let strings_at = HEADERS + dynamic_bytes;
        entries.extend([
            (elf::DT_STRTAB, strings_at),
            (elf::DT_STRSZ, strings.len() as u64),
            (elf::DT_NULL, 0),
        ]);
        let notes_at = strings_at + strings.len() as u64;
        let all = notes_at + notes.len() as u64;
        let mut bytes = header(elf::ELFCLASS64, elf::EM_X86_64);
        bytes[20] = elf::EV_CURRENT;
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&3_u16.to_le_bytes());
        for (kind, offset, length) in [
            (elf::PT_LOAD, 0, all),
            (elf::PT_DYNAMIC, HEADERS, dynamic_bytes),
            (elf::PT_NOTE, notes_at, notes.len() as u64),
        ] {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(elf::PF_R.to_le_bytes());
            for number in [offset, offset, offset, length, length, 4] {
                bytes.extend(number.to_le_bytes());
            }
        }
        for (tag, value) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(strings);
        bytes.extend(notes);
        bytes
    }

    fn build_id(bytes: usize) -> Vec<u8> {
        let numbers = [4, bytes as u32, elf::NT_GNU_BUILD_ID];
        let mut note: Vec<u8> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
        note.extend(b"GNU\0");
        note.resize(note.len() + bytes, 7);
        note
    }

    #[test]
    fn a_build_id_that_no_linker_makes_is_none() {
        let id_of = |bytes: usize| {
            let file = file(&[], b"", &build_id(bytes));
            ElfFacts::read(&file[..]).expect("it is whole").build_id
        };
        for bytes in [8, 20, 64] {
            assert_eq!(id_of(bytes), Some(vec![7; bytes]));
        }
        for bytes in [68, 1 << 16, 1 << 19] {
            assert_eq!(id_of(bytes), None);
        }
    }

    /// Each entry names the same text, so that a file of 70 KB asks for 16 MiB.
    #[test]
    fn what_an_object_needs_takes_no_more_than_names_of_files_do() {
        let needed = |text: &[u8], entries: usize| {
            let dynamic = vec![(elf::DT_NEEDED, 0); entries];
            let facts = ElfFacts::read(&file(&dynamic, text, b"")[..]).expect("it is whole");
            facts.needed
        };
        assert_eq!(needed(b"libc.so.6\0", 2), [b"libc.so.6", b"libc.so.6"]);
        assert_eq!(needed(&[&[b'a'; 4000][..], b"\0"].concat(), 4000).len(), 0);
        let long = needed(&[&[b'a'; 255][..], b"\0"].concat(), 4000);
        assert_eq!(long.len(), MAX_NEEDED_BYTES / 255);
        assert_eq!(needed(b"a\0", 4000).len(), MAX_NEEDED);
    }
}
