//! Takes the bytes of a capture as they were at one moment, and writes nothing: no file is made, changed or
//! removed, whatever lies beside the capture.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{SeekFrom, seek};

use crate::capture::lock::Locked;
use crate::capture::place::{journal_of, unfit_kind};
use crate::capture::{CaptureError, journal};

/// How long to wait for a recorder that is writing an interval.
const PATIENCE: Duration = Duration::from_secs(5);
/// Captures and journals that are larger are not read. A second of a busy server takes a hundred kilobytes.
const MAX_BYTES: u64 = 4 << 30;
/// As much of a file may never have been written; residue writes all of it, but for one page.
const MAX_HOLES: u64 = 1 << 20;

/// The bytes of the capture at `path`, with a transaction undone that was cut off.
pub(super) fn take(path: &Path) -> Result<Vec<u8>, CaptureError> {
    let capture = Locked::new(open(path)?);
    let is_free = capture
        .wait_to_read(PATIENCE)
        .map_err(|it| CaptureError::io(path, it))?;
    if !is_free {
        return Err(CaptureError::Busy {
            path: path.to_owned(),
        });
    }
    // While this lock is held, a recorder does not change the file. If one is about to, there is nothing to
    // undo: its journal is for what it has not done yet.
    let is_under_way = capture
        .is_reserved()
        .map_err(|it| CaptureError::io(path, it))?;
    let mut image = contents(path, capture.file())?;
    if !is_under_way && let Some(bytes) = journal(path, capture.file())? {
        journal::undo(&mut image, &bytes).map_err(|journal::NamesAFile| {
            CaptureError::HostileJournal {
                path: path.to_owned(),
            }
        })?;
    }
    Ok(image)
}

fn journal(path: &Path, capture: &File) -> Result<Option<Vec<u8>>, CaptureError> {
    let beside = PathBuf::from(journal_of(path.as_os_str()));
    // Between transactions it is empty, and may be root's where the capture is not.
    if (beside.symlink_metadata()).is_ok_and(|it| it.is_file() && it.len() == 0) {
        return Ok(None);
    }
    let file = match open(&beside) {
        Ok(file) => file,
        Err(CaptureError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = contents(&beside, &file)?;
    let is_trusted = is_trusted(&file, capture).map_err(|error| CaptureError::io(path, error))?;
    if !bytes.is_empty() && !is_trusted {
        return Err(CaptureError::ForeignJournal {
            path: path.to_owned(),
        });
    }
    Ok(Some(bytes))
}

/// Whoever may write the capture, or is asking, may say what was in it.
fn is_trusted(journal: &File, capture: &File) -> io::Result<bool> {
    let owner = journal.metadata()?.uid();
    let own = rustix::process::geteuid().as_raw();
    Ok(owner == 0 || owner == own || owner == capture.metadata()?.uid())
}

/// Opens a regular file. Nothing else is touched: opening a device may do something, a FIFO waits.
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

fn contents(path: &Path, file: &File) -> Result<Vec<u8>, CaptureError> {
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
    read(file, length as usize).map_err(failed)
}

/// How many bytes of a sparse file take no room on the disk. A file system that does not know has none.
fn holes(file: &File, length: u64) -> u64 {
    let (mut at, mut holes) = (0, 0);
    while at < length && holes <= MAX_HOLES {
        let hole = seek(file, SeekFrom::Hole(at)).map_or(length, |it| it.min(length));
        at = seek(file, SeekFrom::Data(hole)).map_or(length, |it| it.min(length));
        holes += at.saturating_sub(hole);
        if at <= hole {
            break;
        }
    }
    holes
}

/// As much of the file as there is, up to `length`.
fn read(file: &File, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length)?;
    bytes.resize(length, 0);
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
