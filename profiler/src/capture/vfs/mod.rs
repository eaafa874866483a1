//! The file system by which SQLite reaches a capture during a recording: two files that are open already.
//!
//! SQLite by itself opens the capture and, in every transaction, its journal by their names. Whoever may
//! write into the directory can put a journal there in between; SQLite then plays that journal into the
//! capture and deletes whatever file it names. This file system never looks at a name. SQLite's
//! `os_unix.c` has what SQLite does by itself; <https://www.sqlite.org/vfs.html> describes the interface.

mod files;

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::capture::lock::Locked;
use crate::capture::place::Journal;
use files::Handle;

/// The name by which SQLite knows the capture, and the name that SQLite makes of it for the journal.
const CAPTURE: &CStr = c"capture";
const JOURNAL: &CStr = c"capture-journal";

/// The number of the next file system, which tells the file systems of one process apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A database in the two files.
#[derive(Debug)]
pub(super) struct Database {
    /// The connection uses the file system, so Rust drops it first.
    db: Connection,
    _vfs: Vfs,
}

impl Database {
    /// An empty database that SQLite writes into these files alone.
    pub(super) fn open(capture: Locked, journal: Journal) -> rusqlite::Result<Self> {
        let vfs = Vfs::register(Files { capture, journal })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let name = CAPTURE.to_string_lossy();
        let db = Connection::open_with_flags_and_vfs(&*name, flags, vfs.name.as_c_str())?;
        // Whoever owns the capture by now can put a trigger into it.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // SQLite empties the journal and does not remove it: there is one for the whole recording.
        let set = |name, value| db.pragma_update(None, name, value);
        set("journal_mode", "TRUNCATE")?;
        set("temp_store", "MEMORY")?;
        Ok(Self { db, _vfs: vfs })
    }

    /// The connection for writing.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.db
    }
}

/// The two files of a recording.
#[derive(Debug)]
struct Files {
    capture: Locked,
    journal: Journal,
}

/// A file system that has these two files only, registered with SQLite.
#[derive(Debug)]
struct Vfs {
    name: CString,
    /// Made by [`Box::into_raw`], and taken back when this value is dropped.
    methods: *mut ffi::sqlite3_vfs,
    files: *mut Files,
}

impl Vfs {
    fn register(files: Files) -> rusqlite::Result<Self> {
        let name = CString::new(format!("residue-{}", NEXT.fetch_add(1, Ordering::Relaxed)))?;
        // SAFETY: SQLite's default file system is a static of its own; it is only copied from here.
        let default = unsafe { ffi::sqlite3_vfs_find(ptr::null()).as_ref() };
        let default = default.ok_or(rusqlite::Error::InvalidQuery)?;
        let files = Box::into_raw(Box::new(files));
        let methods = Box::into_raw(Box::new(ffi::sqlite3_vfs {
            szOsFile: size_of::<Handle>() as c_int,
            pNext: ptr::null_mut(),
            zName: name.as_ptr(),
            pAppData: files.cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_path),
            // Time, sleep and randomness need no files.
            ..*default
        }));
        let vfs = Self {
            name,
            methods,
            files,
        };
        // SAFETY: the methods, and all that they point to, stay where they are until `drop` below, which
        // takes them back from SQLite first.
        match unsafe { ffi::sqlite3_vfs_register(methods, 0) } {
            ffi::SQLITE_OK => Ok(vfs),
            code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
        }
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        // SAFETY: both were made by `Box::into_raw` in `register` and are given back nowhere else. SQLite
        // forgets the methods first, and the one connection that used them is closed: `Database` drops it
        // before.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.methods);
            drop(Box::from_raw(self.methods));
            drop(Box::from_raw(self.files));
        }
    }
}

/// The files of the file system whose methods SQLite calls.
///
/// # Safety
///
/// `vfs` must be the registered methods of a [`Vfs`] that lives.
unsafe fn files_of<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Files {
    // SAFETY: `register` put a pointer to `Files` there, which lives as long as the `Vfs`.
    unsafe { &*(*vfs).pAppData.cast() }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    _name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this with the methods that `register` gave it.
    let files = unsafe { files_of(vfs) };
    let wanted = if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
        Some(&files.capture)
    } else if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 {
        Some(files.journal.file())
    } else {
        // Temporary files: `temp_store` keeps those in memory.
        None
    };
    // SAFETY: SQLite hands in room for a `Handle`, whose size `register` stated. What the handle points
    // to lives as long as the file system, and SQLite closes its files before.
    unsafe { file.cast::<Handle>().write(Handle::of(wanted)) };
    // SAFETY: SQLite hands in a place for the flags, or null.
    if let Some(out) = unsafe { flags_out.as_mut() } {
        *out = flags;
    }
    match wanted {
        Some(_) => ffi::SQLITE_OK,
        None => ffi::SQLITE_CANTOPEN,
    }
}

/// Empties the journal. SQLite may delete no other file.
unsafe extern "C" fn delete(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _sync: c_int,
) -> c_int {
    // SAFETY: SQLite calls this with the methods that `register` gave it, and a name that ends with a
    // zero.
    let (files, name) = unsafe { (files_of(vfs), CStr::from_ptr(name)) };
    if name != JOURNAL {
        return ffi::SQLITE_IOERR_DELETE;
    }
    match files.journal.file().file().set_len(0) {
        Ok(()) => ffi::SQLITE_OK,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

/// Says whether a file exists. An empty journal counts as none, and there never is a file beside the two.
unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: as in `delete`; `out` is a place for the answer.
    let (files, name, out) = unsafe { (files_of(vfs), CStr::from_ptr(name), &mut *out) };
    let journal = files.journal.file().file();
    let is_there = name == CAPTURE
        || name == JOURNAL && journal.metadata().is_ok_and(|metadata| metadata.len() > 0);
    *out = c_int::from(is_there);
    ffi::SQLITE_OK
}

/// Copies the name: names are whole as they are.
unsafe extern "C" fn full_path(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite hands in a name that ends with a zero.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if name.len() > room as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: there is room for the name, as was just seen, and the two places are different.
    unsafe { out.copy_from_nonoverlapping(name.as_ptr().cast(), name.len()) };
    ffi::SQLITE_OK
}
