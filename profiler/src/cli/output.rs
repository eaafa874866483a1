//! Where `-o` leads. Residue looks at the place before the work begins, so that a wrong one costs
//! nobody any time.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;
use thiserror::Error;

use crate::{
    messages::say,
    private_file::{Given, NewFile, STAYS_ROOTS},
};

/// The mode bit of directories in which nobody replaces the files of others (inode(7)).
const STICKY: u32 = 0o1000;

/// The place where a report goes.
#[derive(Debug)]
pub enum Output {
    /// A device or a FIFO: residue writes to it.
    Stream(PathBuf, File),
    /// A file: residue replaces it.
    File(PathBuf, NewFile),
}

/// Why residue cannot write there.
#[derive(Debug, Error)]
pub enum OutputError {
    /// A path such as `/` or `..`.
    #[error("{} names no file: give -o one, such as report.svg", .0.display())]
    NoName(PathBuf),
    /// The path leads to something that is no file.
    #[error("{} is {what}: name a file with -o", path.display())]
    NotAFile {
        /// The path after `-o`.
        path: PathBuf,
        /// What is there, with its article.
        what: &'static str,
    },
    /// There is no directory for the file.
    #[error("there is no directory {}: make it, or choose another -o", .0.display())]
    NoDirectory(PathBuf),
    /// Somebody else would get the report, or must not lose a file.
    #[error("{} belongs to another user: choose another -o", .0.display())]
    Foreign(PathBuf),
    /// There is no room.
    #[error("the disk is full, nothing was written to {}: free some space, or choose another -o", .0.display())]
    Full(PathBuf),
    /// Anything else.
    #[error("cannot write {}: choose another -o", path.display())]
    Io {
        /// The path after `-o`.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Output {
    /// Opens the place for writing. Changes nothing before [`Output::complete`].
    ///
    /// # Errors
    ///
    /// When residue cannot write there.
    pub fn open(path: &Path) -> Result<Self, OutputError> {
        let error = |source| OutputError::of(path, source);
        match what_is_there(path)? {
            There::Stream(place) => {
                let file = reopen(&place).map_err(error)?;
                Ok(Self::Stream(path.to_owned(), file))
            }
            There::Replaceable => {
                let file = NewFile::at(path).map_err(error)?;
                if file.given() == Given::Refused {
                    say(format!("note: {STAYS_ROOTS}"));
                }
                Ok(Self::File(path.to_owned(), file))
            }
        }
    }

    /// Ends the writing; a file has its name from now on.
    ///
    /// # Errors
    ///
    /// When the file system refuses: then there is no file.
    pub fn complete(self) -> Result<(), OutputError> {
        match self {
            Self::Stream(..) => Ok(()),
            Self::File(path, file) => file
                .complete()
                .map_err(|source| OutputError::of(&path, source)),
        }
    }

    /// The error to show when writing has failed.
    #[must_use]
    pub fn error(&self, source: io::Error) -> OutputError {
        let (Self::Stream(path, _) | Self::File(path, _)) = self;
        OutputError::of(path, source)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(_, file) => file.write(bytes),
            Self::File(_, file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl OutputError {
    fn of(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full(path),
            _ => Self::Io { path, source },
        }
    }
}

enum There {
    /// What is there, not opened for writing yet.
    Stream(OwnedFd),
    Replaceable,
}

fn what_is_there(path: &Path) -> Result<There, OutputError> {
    let directory = directory_of(path)?;
    let not_a_file = |what| {
        let path = path.to_owned();
        Err(OutputError::NotAFile { path, what })
    };
    let itself = match fs::symlink_metadata(path) {
        Ok(itself) => itself,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(There::Replaceable),
        Err(error) => return Err(OutputError::of(path, error)),
    };
    if fs::metadata(path).is_ok_and(|found| found.is_dir()) {
        return not_a_file("a directory");
    }
    let is_followed = itself.is_symlink() && has_links_to_what_is_open(&directory);
    let (place, found) = look(path, is_followed).map_err(|error| OutputError::of(path, error))?;
    match found.file_type() {
        kind if kind.is_file() && is_followed => not_a_file("a link to an open file"),
        kind if kind.is_file() || kind.is_symlink() => check_replaceable(path, &found, &directory),
        kind if kind.is_char_device() => Ok(There::Stream(place)),
        // A link to something open leads to a pipe that the user of residue has made.
        kind if kind.is_fifo() && is_followed => Ok(There::Stream(place)),
        kind if kind.is_fifo() => check_fifo(path, &found, place),
        kind if kind.is_block_device() => not_a_file("a disk"),
        _ => not_a_file("a socket"),
    }
}

/// Holds what is there without opening it: to open a device may do something, to open a FIFO may wait.
fn look(path: &Path, follow: bool) -> io::Result<(OwnedFd, Metadata)> {
    let link = if follow {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC | link;
    let place = rustix::fs::open(path, flags, Mode::empty())?;
    let found = File::from(place.try_clone()?).metadata()?;
    Ok((place, found))
}

/// Whether links in the directory lead to open files, such as `/dev/stderr` and `/proc/self/fd/3`.
/// Nobody but the kernel and root makes links there.
fn has_links_to_what_is_open(directory: &Path) -> bool {
    directory == Path::new("/dev") || directory.starts_with("/proc")
}

/// The directory of the file, without links.
fn directory_of(path: &Path) -> Result<PathBuf, OutputError> {
    let parent = match (path.file_name(), path.parent()) {
        (None, _) => return Err(OutputError::NoName(path.to_owned())),
        (_, Some(parent)) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match parent.canonicalize() {
        Ok(directory) if directory.is_dir() => Ok(directory),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(OutputError::of(path, error))
        }
        _ => Err(OutputError::NoDirectory(parent.to_owned())),
    }
}

/// Whether the kernel will let this user replace what is there.
fn check_replaceable(
    path: &Path,
    found: &Metadata,
    directory: &Path,
) -> Result<There, OutputError> {
    let us = geteuid();
    let is_ours = |uid: u32| us.is_root() || uid == us.as_raw();
    let directory = fs::metadata(directory).map_err(|error| OutputError::of(path, error))?;
    let is_sticky = directory.mode() & STICKY != 0;
    if is_sticky && !is_ours(found.uid()) && !is_ours(directory.uid()) {
        return Err(OutputError::Foreign(path.to_owned()));
    }
    Ok(There::Replaceable)
}

/// Checks that a FIFO belongs to root or to this user: whoever made it reads what is written.
fn check_fifo(path: &Path, found: &Metadata, place: OwnedFd) -> Result<There, OutputError> {
    match [0, geteuid().as_raw()].contains(&found.uid()) {
        true => Ok(There::Stream(place)),
        false => Err(OutputError::Foreign(path.to_owned())),
    }
}

/// Opens what [`look`] holds, whatever its name leads to by now.
fn reopen(place: &OwnedFd) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

#[cfg(test)]
mod tests;
