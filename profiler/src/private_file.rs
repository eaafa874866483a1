//! Files that nobody but their owner may read: what they hold is of processes that others may not look into.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// How they are made: readable and writable by the owner.
pub const MODE: u32 = 0o600;

/// Makes such a file; one that exists is emptied, and keeps its mode.
///
/// # Errors
///
/// When the file system refuses.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(path)
}
