//! A copy, in memory, of what the symbolizer needs of an ELF file: the segments' headers, the symbol tables
//! and the debug information.
//!
//! blazesym opens files by their names and maps them. Residue gives it a copy instead, under a name that only
//! the kernel makes (`/proc/PID/fd/N`). Nobody can cut a copy off while it is mapped, the copy is no larger
//! than its budget, and it names no other file: residue leaves out the sections by which blazesym looks for
//! debug files on its own, or makes them name a copy as well. Residue unpacks compressed sections here, where
//! it counts how many bytes come out of them.

mod budget;
mod plan;
mod write;

use std::{
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use object::{LittleEndian, U32, U64, elf::SectionHeader64};

use super::look_up::{Places, Question};
use crate::process::TargetFile;
pub(super) use budget::{Budget, Share, Taken};
use plan::Plan;

const ENDIAN: LittleEndian = LittleEndian;

/// Why there is no copy of a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    /// The headers contradict themselves, or somebody cut the file off.
    #[error("it is damaged, or was cut off while it was read")]
    Damaged,
    /// The symbol tables alone are larger than their budget.
    #[error("its symbol tables are too large")]
    TooLarge,
    /// There is no room for a copy.
    #[error("there is no memory for a copy of its symbols")]
    NoMemory(#[from] std::io::Error),
}

/// The copy of a file.
#[derive(Debug)]
pub(super) struct Image {
    /// The copy is sealed: nobody can write to it any more.
    _copy: File,
    path: PathBuf,
    /// The copy of the file that this copy refers to.
    _shared: Option<Box<Shared>>,
    taken: Taken,
}

impl Image {
    /// Copies what the symbolizer needs of a file, and of `shared`, which the file has in common with other
    /// debug files. If that fails, this gives the room back.
    pub(super) fn of(
        file: &TargetFile,
        shared: Option<Shared>,
        share: &mut Share<'_>,
    ) -> Result<Self, ImageError> {
        let mut taken = Taken::default();
        let copy = Self::copy(file, shared.as_ref(), share, &mut taken);
        taken += shared
            .as_ref()
            .map(|shared| shared.image.taken)
            .unwrap_or_default();
        let copy = copy.inspect_err(|_| share.give_back(taken))?;
        Ok(Self {
            path: PathBuf::from(format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                copy.as_raw_fd()
            )),
            _copy: copy,
            _shared: shared.map(Box::new),
            taken,
        })
    }

    fn copy(
        file: &TargetFile,
        shared: Option<&Shared>,
        share: &mut Share<'_>,
        taken: &mut Taken,
    ) -> Result<File, ImageError> {
        let data = file.data();
        let plan = Plan::of(&data, shared, share, taken)?;
        Ok(write::copy(file, &plan)?)
    }

    /// How many bytes the copy and its shared copy have taken.
    pub(super) fn taken(&self) -> Taken {
        self.taken
    }

    /// A path that opens the copy, in this process and in its children, as long as this value exists.
    fn path(&self) -> &Path {
        &self.path
    }

    /// The question for the functions at some places.
    pub(super) fn question(&self, places: Places) -> Question {
        let copy = self.path.clone();
        Question { copy, places }
    }
}

/// The copy of what several debug files have in common, which is in a file of its own (dwz(1),
/// `.gnu_debugaltlink`).
#[derive(Debug)]
pub(super) struct Shared {
    /// The copy of that file.
    pub(super) image: Image,
    /// The build id that the file has, and has to have.
    pub(super) build_id: Vec<u8>,
}

impl Shared {
    /// The bytes of the section that names the copy.
    fn link(&self) -> Vec<u8> {
        let mut link = self.image.path().as_os_str().as_encoded_bytes().to_vec();
        link.push(0);
        link.extend_from_slice(&self.build_id);
        link
    }
}

/// The header of an empty section of this type.
fn no_section(sh_type: u32) -> SectionHeader64<LittleEndian> {
    SectionHeader64 {
        sh_name: U32::new(ENDIAN, 0),
        sh_type: U32::new(ENDIAN, sh_type),
        sh_flags: U64::new(ENDIAN, 0),
        sh_addr: U64::new(ENDIAN, 0),
        sh_offset: U64::new(ENDIAN, 0),
        sh_size: U64::new(ENDIAN, 0),
        sh_link: U32::new(ENDIAN, 0),
        sh_info: U32::new(ENDIAN, 0),
        sh_addralign: U64::new(ENDIAN, 1),
        sh_entsize: U64::new(ENDIAN, 0),
    }
}
