//! Takes the bytes of a capture as they were at one moment. Makes, changes and removes no file, whatever lies
//! beside the capture.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{SeekFrom, seek};

use crate::capture::lock::{Level, Locked};
use crate::capture::place::{journal_of, unfit_kind};
use crate::capture::{CaptureError, journal};

/// How long to wait for a recorder that is writing an interval.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a reader locks a capture at a time. A recorder does not wait that long; it writes later what it could
/// not write now.
const HOLD: Duration = Duration::from_secs(1);
/// How often a reader reads a capture again that a recorder has written to meanwhile. The kernel's cache keeps
/// what was read once, so most captures take two tries.
const TRIES: u32 = 8;
/// How many bytes a reader reads at a time.
const PIECE: usize = 1 << 20;
/// The largest capture or journal that a reader accepts, in bytes. A second of a busy server takes a hundred
/// kilobytes.
const MAX_BYTES: u64 = 4 << 30;
/// How many bytes of a file may be holes; residue writes all of a file except one page.
const MAX_HOLES: u64 = 1 << 20;

/// The bytes of the capture at `path`. Undoes a transaction that was cut off.
pub(super) fn take(path: &Path) -> Result<Vec<u8>, CaptureError> {
    take_while(path, HOLD)
}

/// As [`take`]; locks the capture for no longer than `hold` at a time.
pub(super) fn take_while(path: &Path, hold: Duration) -> Result<Vec<u8>, CaptureError> {
    let capture = Locked::new(open(path)?);
    for _ in 0..TRIES {
        if let Some(image) = try_to_take(path, &capture, hold)? {
            return Ok(image);
        }
    }
    Err(CaptureError::Changing {
        path: path.to_owned(),
    })
}

/// `None` if a recorder wrote to the capture before this had read all of it.
fn try_to_take(
    path: &Path,
    capture: &Locked,
    hold: Duration,
) -> Result<Option<Vec<u8>>, CaptureError> {
    let failed = |error| CaptureError::io(path, error);
    lock(path, capture)?;
    // While this holds the lock, a recorder does not change the file: what the recorder's journal undoes is undone
    // already, or not done yet. A journal that appears from now on is not about these bytes.
    let journal = journal(path, capture)?;
    let before = State::of(capture.file()).map_err(failed)?;
    let mut contents = Contents::of(path, capture.file())?;
    let is_all = contents.read_until(Instant::now() + hold).map_err(failed)?;
    capture.lower(Level::None).map_err(failed)?;
    if !is_all {
        // A recorder need not wait for the rest. If it changes nothing meanwhile, the bytes are as good as locked.
        contents.read().map_err(failed)?;
        lock(path, capture)?;
        let after = State::of(capture.file()).map_err(failed)?;
        capture.lower(Level::None).map_err(failed)?;
        if after != before {
            return Ok(None);
        }
    }
    let undone = journal.map_or(Ok(()), |it| journal::undo(&mut contents.bytes, &it));
    undone.map_err(|journal::NamesAFile| CaptureError::HostileJournal {
        path: path.to_owned(),
    })?;
    Ok(Some(contents.bytes))
}

fn lock(path: &Path, capture: &Locked) -> Result<(), CaptureError> {
    let is_free = capture.wait_to_read(PATIENCE);
    match is_free.map_err(|error| CaptureError::io(path, error))? {
        true => Ok(()),
        false => Err(CaptureError::Busy {
            path: path.to_owned(),
        }),
    }
}

/// When a file last changed, and how long it is.
#[derive(Debug, PartialEq, Eq)]
struct State {
    changed: (i64, i64),
    length: u64,
}

impl State {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
        })
    }
}

/// What there is to undo: the journal of a recorder that was killed. The journal of a recorder that is about to
/// write undoes what that recorder has not done yet. The order of the questions is SQLite's own (`hasHotJournal`
/// in its `pager.c`).
fn journal(path: &Path, capture: &Locked) -> Result<Option<Vec<u8>>, CaptureError> {
    let beside = PathBuf::from(journal_of(path.as_os_str()));
    // Between transactions the journal is empty, and may be root's where the capture is not.
    let is_empty =
        || (beside.symlink_metadata()).is_ok_and(|found| found.is_file() && found.len() == 0);
    let failed = |error| CaptureError::io(path, error);
    let is_reserved = || capture.is_reserved().map_err(failed);
    if is_empty() || is_reserved()? {
        return Ok(None);
    }
    let file = match open(&beside) {
        Ok(file) => file,
        Err(CaptureError::Missing { .. }) => return Ok(None),
        // A recorder may have begun, or ended, since the look above.
        Err(_) if is_reserved()? || is_empty() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut contents = Contents::of(&beside, &file)?;
    let read = contents.read();
    read.map_err(|error| CaptureError::io(&beside, error))?;
    let is_trusted = is_trusted(&file, capture.file()).map_err(failed)?;
    if !contents.bytes.is_empty() && !is_trusted {
        return Err(CaptureError::ForeignJournal {
            path: path.to_owned(),
        });
    }
    Ok(Some(contents.bytes))
}

/// Whoever may write the capture, and whoever asks, may say what was in it.
fn is_trusted(journal: &File, capture: &File) -> io::Result<bool> {
    let owner = journal.metadata()?.uid();
    let own = rustix::process::geteuid().as_raw();
    Ok(owner == 0 || owner == own || owner == capture.metadata()?.uid())
}

/// Opens a regular file, and touches nothing else: opening a device may do something, opening a FIFO waits.
fn open(path: &Path) -> Result<File, CaptureError> {
    let failed = |error| CaptureError::io(path, error);
    refuse_unfit(path, path.symlink_metadata().map_err(failed)?.mode())?;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(failed)?;
    refuse_unfit(path, file.metadata().map_err(failed)?.mode())?;
    Ok(file)
}

fn refuse_unfit(path: &Path, mode: u32) -> Result<(), CaptureError> {
    match unfit_kind(rustix::fs::FileType::from_raw_mode(mode)) {
        None => Ok(()),
        Some(kind) => Err(CaptureError::NotAFile {
            path: path.to_owned(),
            kind,
        }),
    }
}

/// How many bytes of a sparse file take no room on the disk: none where the file system does not know.
fn holes(file: &File, length: u64) -> u64 {
    let (mut at, mut holes) = (0, 0);
    while at < length && holes <= MAX_HOLES {
        let hole = seek(file, SeekFrom::Hole(at)).map_or(length, |found| found.min(length));
        at = seek(file, SeekFrom::Data(hole)).map_or(length, |found| found.min(length));
        holes += at.saturating_sub(hole);
        if at <= hole {
            break;
        }
    }
    holes
}

/// The bytes of a file, as far as this has read them.
struct Contents<'a> {
    file: &'a File,
    bytes: Vec<u8>,
    filled: usize,
}

impl<'a> Contents<'a> {
    /// Makes room for all bytes of the file.
    fn of(path: &Path, file: &'a File) -> Result<Self, CaptureError> {
        let failed = |error| CaptureError::io(path, error);
        let length = file.metadata().map_err(failed)?.len();
        if length > MAX_BYTES {
            return Err(CaptureError::TooLarge {
                path: path.to_owned(),
                max_gib: MAX_BYTES >> 30,
            });
        }
        if holes(file, length) > MAX_HOLES {
            return Err(CaptureError::Damaged {
                path: path.to_owned(),
                reason: "most of it was never written".to_owned(),
            });
        }
        let mut bytes = Vec::new();
        let reserved = bytes.try_reserve_exact(length as usize);
        reserved.map_err(|error| failed(error.into()))?;
        bytes.resize(length as usize, 0);
        Ok(Self {
            file,
            bytes,
            filled: 0,
        })
    }

    /// Reads the rest of the file, to the end that it has by now.
    fn read(&mut self) -> io::Result<()> {
        while self.read_piece()? {}
        Ok(())
    }

    /// Reads until `deadline`. Returns whether that was all.
    fn read_until(&mut self, deadline: Instant) -> io::Result<bool> {
        while Instant::now() < deadline {
            if !self.read_piece()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads one piece. Returns whether there may be more.
    fn read_piece(&mut self) -> io::Result<bool> {
        let end = self.bytes.len().min(self.filled + PIECE);
        match self
            .file
            .read_at(&mut self.bytes[self.filled..end], self.filled as u64)
        {
            Ok(0) => {
                self.bytes.truncate(self.filled);
                Ok(false)
            }
            Ok(count) => {
                self.filled += count;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }
}
