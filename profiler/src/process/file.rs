//! A file of a target: the only way to open one, and the only way to read one.
//!
//! The recorded user decides what the target's names lead to. A name may be that of a FIFO, whose opening
//! waits for ever, or of a device, whose opening alone does something. A link may lead out of the target's
//! root. And somebody may cut off or overwrite a file that was whole a moment ago, while residue reads it. So
//! the kernel follows a name inside the target's root and nowhere else. Residue looks at what the name leads
//! to before it opens anything. It opens only regular files that the target may read itself, or has mapped,
//! and reads their bytes by position into bounded memory. Residue maps no file: whoever reads a mapping of a
//! file that is cut off gets SIGBUS.

mod data;
mod owner;
mod root;

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, openat};

pub use data::{FileData, ReadBudget};
pub(super) use owner::read_status;
pub(super) use root::map_file;
pub use root::{Root, RootId};

use super::FileKey;

/// A regular file, held open, so that no other file gets its inode.
#[derive(Debug)]
pub struct TargetFile {
    file: File,
    path: PathBuf,
    key: FileKey,
    bytes: u64,
    /// When the file last changed: seconds, nanoseconds.
    changed: (i64, i64),
}

impl TargetFile {
    /// Opens what a name that the kernel made leads to, such as `/proc/PID/exe`. [`Root::open`] follows names
    /// that a target can choose.
    ///
    /// # Errors
    ///
    /// When there is nothing, no regular file, or residue may not read it.
    pub fn behind(link: &Path) -> io::Result<Self> {
        let place = openat(CWD, link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Self::at(&place)
    }

    /// Opens what residue has found and not opened yet.
    fn at(place: &OwnedFd) -> io::Result<Self> {
        let link = descriptor(place.as_raw_fd());
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        // The check comes before the opening: to open a FIFO wakes a process that waits for a reader, to open
        // a device may start or reset the device.
        if !is_regular(place)? {
            return Err(io::Error::other("it is no regular file"));
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(link)?;
        Self::of(file)
    }

    fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            path: descriptor(file.as_raw_fd()),
            key: FileKey {
                device: metadata.dev(),
                inode: metadata.ino(),
            },
            bytes: metadata.len(),
            changed: changed(&metadata),
            file,
        })
    }

    /// A path that opens this very file, in this process and in the kernel, for as long as this value holds
    /// the file open.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the file, as `stat` states it. Some file systems state another device in
    /// `/proc/PID/maps`.
    #[must_use]
    pub fn key(&self) -> FileKey {
        self.key
    }

    /// How long the file was when residue opened it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nobody has written to the file, cut it off, renamed or removed it since residue opened it.
    #[must_use]
    pub fn is_as_opened(&self) -> bool {
        let now = self.file.metadata();
        now.is_ok_and(|now| now.len() == self.bytes && changed(&now) == self.changed)
    }

    /// The file's bytes, for readers of some parts. The answer keeps what it has read, up to a bound, until it
    /// is dropped.
    #[must_use]
    pub fn data(&self) -> FileData<'_> {
        FileData::of(self, None)
    }

    /// The same for several files, with one bound for all of them together.
    #[must_use]
    pub fn data_within(&self, budget: &ReadBudget) -> FileData<'_> {
        FileData::of(self, Some(budget))
    }

    /// All bytes of the file.
    ///
    /// # Errors
    ///
    /// When the file is longer than `most` bytes, or somebody has cut it off since.
    pub fn read_whole(&self, most: u64) -> io::Result<Vec<u8>> {
        if self.bytes > most {
            return Err(io::Error::other(format!("it is longer than {most} bytes")));
        }
        let mut whole = vec![0; usize::try_from(self.bytes).map_err(io::Error::other)?];
        self.read_exact_at(&mut whole, 0)?;
        Ok(whole)
    }

    /// Fills `into` from a position on.
    ///
    /// # Errors
    ///
    /// When the file ends before that: somebody has cut it off.
    pub fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}

fn is_regular(place: &OwnedFd) -> io::Result<bool> {
    let kind = rustix::fs::fstat(place)?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(kind).is_file())
}

/// When the inode last changed. Anybody may set when a file was written, but nobody may set this; a new name
/// or mode changes it as well.
fn changed(metadata: &Metadata) -> (i64, i64) {
    (metadata.ctime(), metadata.ctime_nsec())
}

/// The path by which the kernel names something that this process holds open.
fn descriptor(number: i32) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{number}"))
}

#[cfg(test)]
mod tests;
