//! One file as SQLite sees it: positioned reads and writes, and SQLite's locks.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::slice;

use rusqlite::ffi;

use crate::capture::lock::{Level, Locked};

/// What SQLite keeps of an open file.
#[repr(C)]
pub(super) struct Handle {
    /// The first field, because SQLite knows no other.
    base: ffi::sqlite3_file,
    file: *const Locked,
}

impl Handle {
    /// A handle of `file`; without a file, a handle that SQLite treats as not opened.
    pub(super) fn of(file: Option<&Locked>) -> Self {
        let methods = match file {
            Some(_) => &raw const METHODS,
            None => ptr::null(),
        };
        Self {
            base: ffi::sqlite3_file { pMethods: methods },
            file: file.map_or(ptr::null(), ptr::from_ref),
        }
    }
}

/// Version 1 of the methods: no shared memory, so no write-ahead log, and no mapping of the file.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(is_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// The file behind a handle.
///
/// # Safety
///
/// `file` must be a [`Handle`] of a file that is open.
unsafe fn locked<'a>(file: *mut ffi::sqlite3_file) -> &'a Locked {
    // SAFETY: SQLite calls methods only of what `open` made a handle of, with a file that outlives it.
    unsafe { &*(*file.cast::<Handle>()).file }
}

fn code(result: io::Result<()>, otherwise: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) if is_full(&error) => ffi::SQLITE_FULL,
        Err(_) => otherwise,
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Gives the lock up. The file itself stays open as long as the recording.
unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite calls this with a handle that `open` made.
    let result = unsafe { locked(file) }.lower(Level::None);
    code(result, ffi::SQLITE_IOERR_CLOSE)
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    length: c_int,
    at: i64,
) -> c_int {
    // SAFETY: as in `close`; SQLite hands in room for `length` bytes.
    let (file, to) = unsafe {
        let to = slice::from_raw_parts_mut(to.cast::<u8>(), length as usize);
        (locked(file).file(), to)
    };
    match read_all(file, to, at as u64) {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(_) => ffi::SQLITE_IOERR_READ,
    }
}

/// Fills what lies behind the end of the file with zeros, as SQLite wants. Returns whether all bytes
/// were in the file.
fn read_all(file: &File, to: &mut [u8], at: u64) -> io::Result<bool> {
    let mut filled = 0;
    while filled < to.len() {
        match file.read_at(&mut to[filled..], at + filled as u64) {
            Ok(0) => {
                to[filled..].fill(0);
                return Ok(false);
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    length: c_int,
    at: i64,
) -> c_int {
    // SAFETY: as in `close`; SQLite hands in `length` bytes.
    let (file, from) = unsafe {
        let from = slice::from_raw_parts(from.cast::<u8>(), length as usize);
        (locked(file).file(), from)
    };
    code(file.write_all_at(from, at as u64), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: as in `close`.
    let file = unsafe { locked(file) }.file();
    code(file.set_len(length as u64), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: as in `close`.
    let file = unsafe { locked(file) }.file();
    code(file.sync_data(), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: as in `close`; `out` is a place for the answer.
    let (file, out) = unsafe { (locked(file).file(), &mut *out) };
    let length = file.metadata().map(|metadata| *out = metadata.len() as i64);
    code(length, ffi::SQLITE_IOERR_FSTAT)
}

fn level(lock: c_int) -> Level {
    match lock {
        ffi::SQLITE_LOCK_NONE => Level::None,
        ffi::SQLITE_LOCK_SHARED => Level::Shared,
        ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
        ffi::SQLITE_LOCK_PENDING => Level::Pending,
        _ => Level::Exclusive,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    // SAFETY: as in `close`.
    match unsafe { locked(file) }.raise(level(to)) {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_BUSY,
        Err(_) => ffi::SQLITE_IOERR_LOCK,
    }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, to: c_int) -> c_int {
    // SAFETY: as in `close`.
    let result = unsafe { locked(file) }.lower(level(to));
    code(result, ffi::SQLITE_IOERR_UNLOCK)
}

unsafe extern "C" fn is_reserved(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: as in `size`.
    let (file, out) = unsafe { (locked(file), &mut *out) };
    let answer = file
        .is_reserved()
        .map(|is_reserved| *out = c_int::from(is_reserved));
    code(answer, ffi::SQLITE_IOERR_CHECKRESERVEDLOCK)
}

/// Refuses every operation: there is nothing to control.
unsafe extern "C" fn control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

/// Returns SQLite's own choice for systems like this one.
unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// Returns what SQLite assumes of all file systems of systems like this one: a write that is cut off
/// harms no byte beside those that it was to write.
unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}
