//! A file of a target: the only way to open one, and the only way to read one.
//!
//! Whoever is recorded decides what its names lead to. A name may be that of a FIFO, whose opening waits
//! for ever, or of a device, whose opening alone does something; a link may lead out of the target's root;
//! and a file that was whole a moment ago may be cut off or written over while it is read. So a name is
//! followed by the kernel inside the target's root and nowhere else, what it leads to is looked at before
//! it is opened, only regular files are opened that the target may read itself, or has mapped, and their bytes
//! are read by their positions into bounded memory. Nothing is mapped: whoever reads a mapping of a file that is cut off gets SIGBUS.

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

/// A regular file, held open, so that its inode stays its own.
#[derive(Debug)]
pub struct TargetFile {
    file: File,
    path: PathBuf,
    key: FileKey,
    bytes: u64,
    /// When it was changed last: seconds, nanoseconds.
    changed: (i64, i64),
}

impl TargetFile {
    /// Opens what a name that the kernel made leads to, such as `/proc/PID/exe`. Not for names that a target
    /// can choose: those are followed by [`Root::open`].
    ///
    /// # Errors
    ///
    /// When there is nothing, no regular file, or no permission to read it.
    pub fn behind(link: &Path) -> io::Result<Self> {
        let place = openat(CWD, link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Self::at(&place)
    }

    /// Opens what was found and not opened yet.
    fn at(place: &OwnedFd) -> io::Result<Self> {
        let link = descriptor(place.as_raw_fd());
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        // Asked before it is opened: to open a FIFO wakes who waits for a reader, to open a device may
        // start or reset it.
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

    /// A path that opens this very file, for as long as it is held open, in this process and for the kernel.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file it is, as `stat` tells. Some file systems state another device in `/proc/PID/maps`.
    #[must_use]
    pub fn key(&self) -> FileKey {
        self.key
    }

    /// How long it was when it was opened, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nobody has written to it or cut it off since it was opened, nor renamed or removed it.
    #[must_use]
    pub fn is_as_opened(&self) -> bool {
        let now = self.file.metadata();
        now.is_ok_and(|it| it.len() == self.bytes && changed(&it) == self.changed)
    }

    /// Its bytes, for those who read some parts of it: what is read is kept, up to a bound, until the
    /// answer is dropped.
    #[must_use]
    pub fn data(&self) -> FileData<'_> {
        FileData::of(self, None)
    }

    /// The same, when several files are read and all of them together up to a bound.
    #[must_use]
    pub fn data_within(&self, budget: &ReadBudget) -> FileData<'_> {
        FileData::of(self, Some(budget))
    }

    /// All of it.
    ///
    /// # Errors
    ///
    /// When it is longer than `most` bytes, or was cut off since.
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
    /// When the file ends before that: it was cut off.
    pub fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}

fn is_regular(place: &OwnedFd) -> io::Result<bool> {
    let kind = rustix::fs::fstat(place)?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(kind).is_file())
}

/// Anybody may set when a file was written. Nobody sets this; a new name or mode changes it as well.
fn changed(metadata: &Metadata) -> (i64, i64) {
    (metadata.ctime(), metadata.ctime_nsec())
}

/// The kernel's name for something that this process holds open.
fn descriptor(number: i32) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{number}"))
}

#[cfg(test)]
mod tests;
