//! A copy, in memory, of what symbolizing needs of an ELF file: its segments' headers, its symbol tables and
//! its debug information.
//!
//! blazesym opens files by their names and maps them. It is given a copy instead, under a name that only the
//! kernel makes (`/proc/PID/fd/N`): nobody can cut a copy off while it is mapped, it is not larger than what
//! was agreed on, and it names no other file: the sections by which blazesym looks for debug files on its own
//! are left out, or name a copy as well. Compressed sections are unpacked here, where it is counted how much
//! comes out of them.

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
    /// Headers that contradict themselves, or a file that was cut off.
    #[error("it is damaged, or was cut off while it was read")]
    Damaged,
    /// Its symbol tables alone are more than may be read.
    #[error("its symbol tables are too large")]
    TooLarge,
    /// There is no room for a copy.
    #[error("there is no memory for a copy of its symbols")]
    NoMemory(#[from] std::io::Error),
}

/// The copy.
#[derive(Debug)]
pub(super) struct Image {
    /// Sealed: nobody writes to it any more.
    _copy: File,
    path: PathBuf,
    /// What the copy refers to.
    _shared: Option<Box<Shared>>,
    taken: Taken,
}

impl Image {
    /// Copies what is needed of a file, and of what it shares with other debug files, `shared`. If that fails,
    /// the room for it is given back.
    pub(super) fn of(
        file: &TargetFile,
        shared: Option<Shared>,
        share: &mut Share<'_>,
    ) -> Result<Self, ImageError> {
        let mut taken = Taken::default();
        let copy = Self::copy(file, shared.as_ref(), share, &mut taken);
        taken += shared.as_ref().map(|it| it.image.taken).unwrap_or_default();
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

    /// What it has taken, with what it shares.
    pub(super) fn taken(&self) -> Taken {
        self.taken
    }

    /// A path that opens it, for as long as this exists, in this process and in its children.
    fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for the functions at some places.
    pub(super) fn question(&self, places: Places) -> Question {
        let copy = self.path.clone();
        Question { copy, places }
    }
}

/// What several debug files have in common is in a file of its own (dwz(1), `.gnu_debugaltlink`).
#[derive(Debug)]
pub(super) struct Shared {
    /// The copy of that file.
    pub(super) image: Image,
    /// The build id that it has, and has to have.
    pub(super) build_id: Vec<u8>,
}

impl Shared {
    /// The section that names the copy.
    fn link(&self) -> Vec<u8> {
        let mut link = self.image.path().as_os_str().as_encoded_bytes().to_vec();
        link.push(0);
        link.extend_from_slice(&self.build_id);
        link
    }
}

/// The header of a section of this type, without anything in it.
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
