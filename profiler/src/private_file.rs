//! Files that nobody but their owner may read: they hold what residue saw in processes that others may not
//! look into.

mod new_file;
mod sudo;

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

pub use new_file::NewFile;
pub use sudo::{Given, give_to_sudo_user};

/// The mode of such a file: readable and writable by the owner.
pub const MODE: u32 = 0o600;

/// The remark on a file that residue could not give to the user who called sudo.
pub const STAYS_ROOTS: &str = "the file system gives no file to another user: what is written there is root's, read it as root";

/// Makes such a file. Leaves alone what exists, wherever it leads.
///
/// # Errors
///
/// When something is there already, or the file system refuses.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)
}
