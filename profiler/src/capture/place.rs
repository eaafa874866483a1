//! Where a recording goes: a name in a directory. The directory is opened once, and each file in it once,
//! so that nobody who may write there can put another in its place.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::capture::CaptureError;
use crate::capture::header::{HEADER_BYTES, is_capture};
use crate::capture::lock::Locked;
use crate::private_file;

/// Opens what is there already, whatever that is: without waiting for the other end of a FIFO.
const EXISTING: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
/// Makes what is not there yet, or fails.
const NEW: OFlags = OFlags::RDWR
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Checks that a recording may be written to `path`, and changes nothing.
///
/// # Errors
///
/// Those of [`Writer::create`](crate::capture::Writer::create).
pub fn check_output(path: &Path) -> Result<(), CaptureError> {
    Place::open(path)?.check()
}

/// A name in a directory.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    /// The place that `path` names, whether there is something or not.
    pub(super) fn open(path: &Path) -> Result<Self, CaptureError> {
        let Some(name) = path.file_name() else {
            return Err(in_the_way(path, "a directory"));
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty()).map_err(|error| {
            let path = path.to_owned();
            match error {
                Errno::NOENT => CaptureError::NoDirectory { path },
                _ => CaptureError::io(&path, error.into()),
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            name: name.to_owned(),
        })
    }

    /// Checks that a recording may be written here, and changes nothing.
    pub(super) fn check(&self) -> Result<(), CaptureError> {
        self.replaceable()?;
        let access = Access::WRITE_OK | Access::EXEC_OK;
        accessat(&self.directory, ".", access, AtFlags::EACCESS).map_err(|error| self.error(error))
    }

    /// Removes what may be replaced: nothing, an empty file, or a capture that nobody is writing.
    pub(super) fn clear(&self) -> Result<(), CaptureError> {
        if self.replaceable()?.is_some() {
            self.remove(&self.name)?;
            // A journal left by a killed recorder belongs to the old capture.
            self.remove(&self.journal())?;
        } else if self.has_empty_journal() {
            self.remove(&self.journal())?;
        }
        Ok(())
    }

    fn replaceable(&self) -> Result<Option<File>, CaptureError> {
        let Some(old) = self.existing()? else {
            return Ok(None);
        };
        if !is_replaceable(&old).map_err(|error| self.error(error))? {
            return Err(CaptureError::WouldOverwrite {
                path: self.path.clone(),
            });
        }
        self.take(&old)?;
        Ok(Some(old))
    }

    /// What a killed recorder leaves, if somebody removed its capture.
    fn has_empty_journal(&self) -> bool {
        let found = statat(&self.directory, self.journal(), AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|it| {
            it.st_size == 0 && unfit_kind(rustix::fs::FileType::from_raw_mode(it.st_mode)).is_none()
        })
    }

    fn existing(&self) -> Result<Option<File>, CaptureError> {
        let found = match statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.error(error)),
        };
        if let Some(kind) = unfit_kind(rustix::fs::FileType::from_raw_mode(found.st_mode)) {
            return Err(in_the_way(&self.path, kind));
        }
        let file = openat(&self.directory, &self.name, EXISTING, Mode::empty());
        file.map(|file| Some(file.into()))
            .map_err(|error| self.error(error))
    }

    /// Makes the capture, for its owner only, and tells other recorders that it is taken.
    pub(super) fn make_capture(&self) -> Result<File, CaptureError> {
        let file = self.make(&self.name).map_err(|error| match error {
            // Whatever was there before is gone: somebody else began in this moment.
            Errno::EXIST => self.in_use(),
            _ => self.error(error),
        })?;
        // Not so the journal: whoever has that can have a file deleted by it.
        private_file::give_to_sudo_user(&file).map_err(|error| self.error(error))?;
        self.take(&file)?;
        Ok(file)
    }

    /// Makes the journal. One that exists is left alone: it may be somebody's trap.
    pub(super) fn make_journal(&self) -> Result<Journal, CaptureError> {
        let file = self.make(&self.journal()).map_err(|error| match error {
            Errno::EXIST => CaptureError::JournalInTheWay {
                path: self.path.clone(),
            },
            _ => self.error(error),
        })?;
        let directory = self.directory.try_clone();
        Ok(Journal {
            directory: directory.map_err(|error| self.error(error))?,
            name: self.journal(),
            file: Locked::new(file),
        })
    }

    fn make(&self, name: &OsStr) -> Result<File, Errno> {
        let mode = Mode::from_raw_mode(private_file::MODE);
        openat(&self.directory, name, NEW, mode).map(File::from)
    }

    fn take(&self, file: &File) -> Result<(), CaptureError> {
        match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(self.in_use()),
            Err(TryLockError::Error(error)) => Err(self.error(error)),
        }
    }

    fn remove(&self, name: &OsStr) -> Result<(), CaptureError> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error(error)),
        }
    }

    fn journal(&self) -> OsString {
        journal_of(&self.name)
    }

    fn in_use(&self) -> CaptureError {
        CaptureError::InUse {
            path: self.path.clone(),
        }
    }

    fn error(&self, error: impl Into<io::Error>) -> CaptureError {
        CaptureError::io(&self.path, error.into())
    }
}

/// The recording's journal. It is empty between transactions, and goes when it is dropped; what a failed
/// recorder has not undone yet stays.
#[derive(Debug)]
pub(super) struct Journal {
    directory: OwnedFd,
    name: OsString,
    file: Locked,
}

impl Journal {
    /// The file, which nobody else has opened for writing, so that nobody locks it.
    pub(super) fn file(&self) -> &Locked {
        &self.file
    }

    /// Whether the name still leads to this file.
    fn is_ours(&self) -> io::Result<bool> {
        let ours = self.file.file().metadata()?;
        let named = statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((named.st_dev, named.st_ino) == (ours.dev(), ours.ino()))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let is_empty = self.file.file().metadata().is_ok_and(|it| it.len() == 0);
        if is_empty && self.is_ours().unwrap_or(false) {
            // An empty journal that stays does no harm.
            let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Where SQLite keeps what undoes a transaction.
pub(super) fn journal_of(name: &OsStr) -> OsString {
    let mut name = name.to_owned();
    name.push("-journal");
    name
}

/// What a file is that cannot be a capture, for a person; none of a regular file.
pub(super) fn unfit_kind(kind: rustix::fs::FileType) -> Option<&'static str> {
    use rustix::fs::FileType;
    match kind {
        FileType::RegularFile => None,
        FileType::Symlink => Some("a symbolic link"),
        FileType::Directory => Some("a directory"),
        FileType::Fifo => Some("a FIFO"),
        FileType::Socket => Some("a socket"),
        _ => Some("a device"),
    }
}

fn in_the_way(path: &Path, kind: &'static str) -> CaptureError {
    CaptureError::InTheWay {
        path: path.to_owned(),
        kind,
    }
}

fn is_replaceable(file: &File) -> io::Result<bool> {
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    Ok(header.is_empty() || is_capture(&header))
}
