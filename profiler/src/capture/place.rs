//! Where a recording goes: a name in a directory. Residue opens the directory once, and each file in it once, so
//! that nobody who may write there can put another file in its place.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::capture::header::{HEADER_BYTES, is_capture};
use crate::capture::lock::Locked;
use crate::capture::{CaptureError, journal};
use crate::private_file::{self, Given};

/// Flags that open what is there already, whatever that is, without waiting for the other end of a FIFO.
const EXISTING: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
/// Flags that make a file, and fail if there is one already.
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
    /// The place that `path` names, whether something is there or not.
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
        let old = self.replaceable()?;
        self.old_journal(old.as_ref())?;
        let access = Access::WRITE_OK | Access::EXEC_OK;
        accessat(&self.directory, ".", access, AtFlags::EACCESS).map_err(|error| self.error(error))
    }

    /// Removes what the recording may replace: an empty file, or a capture that nobody is writing, with its
    /// journal. Does nothing if nothing is there. Whoever replaces a capture holds the capture's lock until all
    /// of it is gone.
    pub(super) fn clear(&self) -> Result<(), CaptureError> {
        let Some(old) = self.replaceable()? else {
            return Ok(());
        };
        if let Some(journal) = self.old_journal(Some(&old))? {
            self.remove(&self.journal(), journal)?;
        }
        let old = FileId::of(&old).map_err(|error| self.error(error))?;
        self.remove(&self.name, old)
    }

    /// The file that is there, locked; `None` if nothing is there.
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

    /// The journal that a killed recorder has left: of `capture`, or, if somebody has removed the capture, an
    /// empty one. Anything else of that name is an error, and stays.
    fn old_journal(&self, capture: Option<&File>) -> Result<Option<FileId>, CaptureError> {
        let found = match statat(&self.directory, self.journal(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.error(error)),
        };
        let owner = capture
            .map(|file| file.metadata().map(|metadata| metadata.uid()))
            .transpose();
        let owner = owner.map_err(|error| self.error(error))?;
        let own = geteuid().as_raw();
        let is_trusted = [0, own].contains(&found.st_uid) || owner == Some(found.st_uid);
        let is_file = unfit_kind(rustix::fs::FileType::from_raw_mode(found.st_mode)).is_none();
        let is_journal = || match found.st_size {
            0 => true,
            _ => capture.is_some() && self.begins_as_a_journal(),
        };
        match is_trusted && is_file && is_journal() {
            true => Ok(Some(FileId(found.st_dev, found.st_ino))),
            false => Err(self.journal_in_the_way()),
        }
    }

    fn begins_as_a_journal(&self) -> bool {
        let mut beginning = [0; journal::MAGIC.len()];
        let file = openat(&self.directory, self.journal(), EXISTING, Mode::empty());
        file.is_ok_and(|file| File::from(file).read_exact(&mut beginning).is_ok())
            && beginning == journal::MAGIC
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

    /// Makes the capture, readable by its owner only, and locks it to tell other recorders that it is taken.
    pub(super) fn make_capture(&self) -> Result<NewCapture<'_>, CaptureError> {
        let file = self.make(&self.name).map_err(|error| match error {
            // [`clear`](Self::clear) removed whatever was there: somebody else began in this moment.
            Errno::EXIST => self.in_use(),
            _ => self.error(error),
        })?;
        // Another recorder may have taken the new file for an empty one that is left over, and may have replaced
        // it.
        self.take(&file)?;
        let id = FileId::of(&file).map_err(|error| self.error(error))?;
        if !id.has_name(&self.directory, &self.name) {
            return Err(self.in_use());
        }
        let unkept = Unkept { place: self, id };
        // Residue does not give the journal away: whoever has the journal can have a file deleted by it.
        let given = private_file::give_to_sudo_user(&file).map_err(|error| self.error(error))?;
        Ok(NewCapture {
            unkept,
            file,
            given,
        })
    }

    /// Makes the journal of a capture whose lock this process holds. An existing journal may be somebody's trap,
    /// so it stays, unless its capture is gone.
    pub(super) fn make_journal(&self, _of: &NewCapture<'_>) -> Result<Journal, CaptureError> {
        let file = match self.make(&self.journal()) {
            Err(Errno::EXIST) => {
                if let Some(old) = self.old_journal(None)? {
                    self.remove(&self.journal(), old)?;
                }
                self.make(&self.journal())
            }
            made => made,
        };
        let file = file.map_err(|error| match error {
            Errno::EXIST => self.journal_in_the_way(),
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

    /// Removes a file, unless the name leads to another file by now.
    fn remove(&self, name: &OsStr, file: FileId) -> Result<(), CaptureError> {
        if !file.has_name(&self.directory, name) {
            return Err(self.in_use());
        }
        unlinkat(&self.directory, name, AtFlags::empty()).map_err(|error| self.error(error))
    }

    fn journal(&self) -> OsString {
        journal_of(&self.name)
    }

    fn in_use(&self) -> CaptureError {
        CaptureError::InUse {
            path: self.path.clone(),
        }
    }

    fn journal_in_the_way(&self) -> CaptureError {
        CaptureError::JournalInTheWay {
            path: self.path.clone(),
        }
    }

    fn error(&self, error: impl Into<io::Error>) -> CaptureError {
        let error = error.into();
        match error.kind() {
            // Residue makes the files itself, so only the directory can be missing.
            io::ErrorKind::NotFound => CaptureError::NoDirectory {
                path: self.path.clone(),
            },
            _ => CaptureError::io(&self.path, error),
        }
    }
}

/// The identity of a file, whatever its name: the device and the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self(metadata.dev(), metadata.ino()))
    }

    /// Whether a name in a directory leads to this file.
    fn has_name(self, directory: &OwnedFd, name: &OsStr) -> bool {
        let named = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        named.is_ok_and(|named| Self(named.st_dev, named.st_ino) == self)
    }
}

/// A new capture, with its lock. Dropping it without [`keep`](Self::keep) removes the file.
#[derive(Debug)]
pub(super) struct NewCapture<'a> {
    /// Rust drops this field before the file, whose closing gives the lock up.
    unkept: Unkept<'a>,
    file: File,
    /// Whether the capture belongs to the user who called sudo.
    pub(super) given: Given,
}

impl NewCapture<'_> {
    /// Keeps the file from now on.
    pub(super) fn keep(self) -> File {
        std::mem::forget(self.unkept);
        self.file
    }
}

/// Removes a file when it is dropped.
#[derive(Debug)]
struct Unkept<'a> {
    place: &'a Place,
    id: FileId,
}

impl Drop for Unkept<'_> {
    fn drop(&mut self) {
        // If the removal fails, the next recording replaces the empty file.
        let _ = self.place.remove(&self.place.name, self.id);
    }
}

/// The recording's journal, which is empty between transactions. Dropping the value removes the journal, unless
/// the journal still holds what a failed recorder has not undone yet.
#[derive(Debug)]
pub(super) struct Journal {
    directory: OwnedFd,
    name: OsString,
    file: Locked,
}

impl Journal {
    /// The file. Nobody else has opened it for writing, so nobody else locks it.
    pub(super) fn file(&self) -> &Locked {
        &self.file
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let is_empty = self
            .file
            .file()
            .metadata()
            .is_ok_and(|metadata| metadata.len() == 0);
        let is_ours =
            FileId::of(self.file.file()).is_ok_and(|id| id.has_name(&self.directory, &self.name));
        if is_empty && is_ours {
            // If the removal fails, the empty journal does no harm.
            let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// The name of the file in which SQLite keeps what undoes a transaction.
pub(super) fn journal_of(name: &OsStr) -> OsString {
    let mut name = name.to_owned();
    name.push("-journal");
    name
}

/// The kind of a file that cannot be a capture, for a person; `None` for a regular file.
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
