//! The file itself: what may be replaced, who may read it, who holds it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::capture::CaptureError;
use crate::capture::schema::{APPLICATION_ID, HEADER_BYTES, SQLITE_MAGIC};
use crate::private_file;

/// Whether a recording may be written there: what is there may be replaced, and a file can be made.
///
/// # Errors
///
/// Those of [`Writer::create`](super::Writer::create), before anything is changed.
pub fn check_output(path: &Path) -> Result<(), CaptureError> {
    replaceable(path)?;
    match private_file::NewFile::at(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CaptureError::NoDirectory {
            path: path.to_owned(),
        }),
        Err(error) => Err(CaptureError::io(path, error)),
    }
}

/// What may be replaced, if there is something: an empty file, or a capture that nobody is writing.
fn replaceable(path: &Path) -> Result<Option<File>, CaptureError> {
    let old = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
    {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CaptureError::io(path, error)),
    };
    if !is_replaceable(&old).map_err(|error| CaptureError::io(path, error))? {
        return Err(CaptureError::WouldOverwrite {
            path: path.to_owned(),
        });
    }
    match old.try_lock() {
        Ok(()) => Ok(Some(old)),
        Err(TryLockError::WouldBlock) => Err(CaptureError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(CaptureError::io(path, error)),
    }
}

/// Removes what may be replaced.
pub(super) fn remove_old_capture(path: &Path) -> Result<(), CaptureError> {
    if replaceable(path)?.is_none() {
        return Ok(());
    }
    fs::remove_file(path).map_err(|error| CaptureError::io(path, error))?;
    // A journal left by a killed recorder would be played into the new file.
    match fs::remove_file(journal_of(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CaptureError::io(path, error)),
        _ => Ok(()),
    }
}

fn is_replaceable(file: &File) -> io::Result<bool> {
    let attributes = file.metadata()?;
    if !attributes.is_file() {
        return Ok(false);
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    Ok(header.is_empty() || is_capture(&header))
}

/// Whether a file that begins with `header` is a capture of any schema version. The offset of the
/// application id is given in <https://www.sqlite.org/fileformat.html>.
fn is_capture(header: &[u8]) -> bool {
    header.starts_with(SQLITE_MAGIC)
        && header.get(68..72) == Some(APPLICATION_ID.to_be_bytes().as_slice())
}

/// Where SQLite keeps what undoes a transaction.
pub(super) fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-journal");
    name.into()
}

pub(super) fn create_private(path: &Path) -> Result<File, CaptureError> {
    let in_use = || CaptureError::InUse {
        path: path.to_owned(),
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(private_file::MODE)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CaptureError::NoDirectory {
                path: path.to_owned(),
            },
            io::ErrorKind::AlreadyExists => in_use(),
            _ => CaptureError::io(path, error),
        })?;
    private_file::give_to_sudo_user(&file).map_err(|error| CaptureError::io(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use()),
        Err(TryLockError::Error(error)) => Err(CaptureError::io(path, error)),
    }
}

/// Checks what the first 100 bytes say, so that foreign and cut files get a better answer than
/// SQLite's. Offsets are those of <https://www.sqlite.org/fileformat.html>.
pub(super) fn check_header(path: &Path) -> Result<(), CaptureError> {
    let file = File::open(path).map_err(|error| CaptureError::io(path, error))?;
    let attributes = file
        .metadata()
        .map_err(|error| CaptureError::io(path, error))?;
    if !attributes.is_file() {
        return Err(CaptureError::NotACapture {
            path: path.to_owned(),
        });
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64)
        .read_to_end(&mut header)
        .map_err(|error| CaptureError::io(path, error))?;
    if header.is_empty() {
        return Err(CaptureError::Empty {
            path: path.to_owned(),
        });
    }
    let found = attributes.len();
    if header.len() < HEADER_BYTES && SQLITE_MAGIC.starts_with(&header[..header.len().min(16)]) {
        let expected = HEADER_BYTES as u64;
        return Err(CaptureError::Truncated {
            path: path.to_owned(),
            found,
            expected,
        });
    }
    if !is_capture(&header) {
        return Err(CaptureError::NotACapture {
            path: path.to_owned(),
        });
    }
    let expected = stated_length(&header);
    if found < expected {
        return Err(CaptureError::Truncated {
            path: path.to_owned(),
            found,
            expected,
        });
    }
    Ok(())
}

/// Page size times page count, in bytes. A page size of 1 stands for 65536.
fn stated_length(header: &[u8]) -> u64 {
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        bytes => u64::from(bytes),
    };
    let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    page_bytes * u64::from(pages)
}
