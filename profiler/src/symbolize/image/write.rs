//! Writes a copy.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt as _,
};

use flate2::read::ZlibDecoder;
use object::elf::{self, SectionHeader64};
use object::pod::{bytes_of, bytes_of_slice};
use object::{LittleEndian, U16, U32, U64};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::plan::{Contents, Plan, Section};
use super::{ENDIAN, no_section};
use crate::process::TargetFile;

/// The alignment of sections, in bytes: more than any structure in one needs.
const ALIGNMENT: u64 = 16;
/// How many bytes residue reads at a time.
const PIECE: usize = 256 << 10;

/// Writes the copy into memory that has no name, and seals it.
pub(super) fn copy(file: &TargetFile, plan: &Plan<'_>) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = Copy {
        to: File::from(memfd_create("residue-symbols", flags)?),
        end: 0,
    };
    copy.write(file, plan)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&copy.to, seals)?;
    Ok(copy.to)
}

/// A copy under way.
struct Copy {
    to: File,
    end: u64,
}

impl Copy {
    /// Writes the header (last), the segments' headers, the sections, their names, and their headers.
    fn write(&mut self, file: &TargetFile, plan: &Plan<'_>) -> io::Result<()> {
        let mut header = plan.header;
        self.end = size_of_val(&header) as u64;
        header.e_phoff = U64::new(ENDIAN, self.end);
        header.e_phnum = count(plan.segments.len());
        self.append(bytes_of_slice(plan.segments))?;
        // The first header is that of no section (elf(5), "Section header").
        let mut headers = vec![no_section(elf::SHT_NULL)];
        let mut names = vec![0];
        for section in &plan.sections {
            headers.push(self.section(file, section, &mut names)?);
        }
        headers.push(self.names(names)?);
        self.align()?;
        header.e_shoff = U64::new(ENDIAN, self.end);
        header.e_shnum = count(headers.len());
        header.e_shstrndx = count(headers.len() - 1);
        self.append(bytes_of_slice(&headers))?;
        self.to.write_all_at(bytes_of(&header), 0)
    }

    fn section(
        &mut self,
        file: &TargetFile,
        section: &Section,
        names: &mut Vec<u8>,
    ) -> io::Result<SectionHeader64<LittleEndian>> {
        self.align()?;
        let begin = self.end;
        self.contents(file, &section.contents)?;
        let flags = section.header.sh_flags.get(ENDIAN) & !u64::from(elf::SHF_COMPRESSED);
        let header = SectionHeader64 {
            sh_name: U32::new(ENDIAN, names.len() as u32),
            sh_flags: U64::new(ENDIAN, flags),
            sh_offset: U64::new(ENDIAN, begin),
            sh_size: U64::new(ENDIAN, self.end - begin),
            // The file's values are numbers of its own sections.
            sh_link: U32::new(ENDIAN, 0),
            sh_info: U32::new(ENDIAN, 0),
            ..section.header
        };
        names.extend_from_slice(section.name);
        names.push(0);
        Ok(header)
    }

    fn contents(&mut self, file: &TargetFile, contents: &Contents) -> io::Result<()> {
        match *contents {
            Contents::Part { offset, bytes } => {
                self.fill(&mut Part::of(file, offset, bytes), bytes)
            }
            Contents::Compressed {
                offset,
                packed,
                bytes,
            } => {
                let packed = BufReader::with_capacity(PIECE, Part::of(file, offset, packed));
                self.fill(&mut ZlibDecoder::new(packed), bytes)
            }
            Contents::Made(ref made) => self.append(made),
        }
    }

    fn names(&mut self, mut names: Vec<u8>) -> io::Result<SectionHeader64<LittleEndian>> {
        let mut header = no_section(elf::SHT_STRTAB);
        header.sh_name = U32::new(ENDIAN, names.len() as u32);
        names.extend_from_slice(b".shstrtab\0");
        header.sh_offset = U64::new(ENDIAN, self.end);
        header.sh_size = U64::new(ENDIAN, names.len() as u64);
        self.append(&names)?;
        Ok(header)
    }

    /// Appends `bytes` bytes, no more and no less.
    fn fill(&mut self, from: &mut impl Read, bytes: u64) -> io::Result<()> {
        let mut piece = vec![0; PIECE.min(usize::try_from(bytes).unwrap_or(PIECE))];
        let mut left = bytes;
        while left > 0 {
            let length = piece.len().min(usize::try_from(left).unwrap_or(PIECE));
            from.read_exact(&mut piece[..length])?;
            self.append(&piece[..length])?;
            left -= length as u64;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self) -> io::Result<()> {
        let missing = self.end.next_multiple_of(ALIGNMENT) - self.end;
        self.append(&[0; ALIGNMENT as usize][..missing as usize])
    }
}

/// What is left to read of a part of a file.
struct Part<'a> {
    file: &'a TargetFile,
    at: u64,
    left: u64,
}

impl<'a> Part<'a> {
    fn of(file: &'a TargetFile, offset: u64, bytes: u64) -> Self {
        Self {
            file,
            at: offset,
            left: bytes,
        }
    }
}

impl Read for Part<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(usize::try_from(self.left).unwrap_or(PIECE));
        self.file.read_exact_at(&mut into[..length], self.at)?;
        self.at += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}

/// The number as the header holds it: a copy has some thousands of sections and segments at most.
fn count(number: usize) -> U16<LittleEndian> {
    U16::new(ENDIAN, u16::try_from(number).unwrap_or(u16::MAX))
}
