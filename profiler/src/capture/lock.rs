//! SQLite's locks on the bytes of a file, so that residue and `sqlite3` alike can read a capture under
//! way. <https://www.sqlite.org/lockingv3.html>, and `unixLock` in SQLite's `os_unix.c`, say where the
//! locks lie, and in which order a program takes them.
//!
//! The locks belong to the open file, not to the process (`F_OFD_SETLK`): closing another descriptor of
//! the same file does not give them up.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

/// A range of bytes: where it begins, and how long it is.
type Range = (i64, i64);

const PENDING: Range = (0x4000_0000, 1);
const RESERVED: Range = (PENDING.0 + 1, 1);
const SHARED: Range = (PENDING.0 + 2, 510);
const PENDING_AND_RESERVED: Range = (PENDING.0, 2);
const ALL: Range = (PENDING.0, 512);

/// How long a waiting reader pauses before it tries again.
const PAUSE: Duration = Duration::from_millis(5);

/// What the holder of a lock may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Nothing.
    #[default]
    None,
    /// Read.
    Shared,
    /// Read, and become the one who writes.
    Reserved,
    /// As [`Reserved`](Self::Reserved), while readers that are at work finish and no new ones begin.
    Pending,
    /// Write.
    Exclusive,
}

/// A file, with the lock that this process holds on the file. Dropping the value gives the lock up.
#[derive(Debug)]
pub(super) struct Locked {
    file: File,
    held: Cell<Level>,
}

impl Locked {
    /// The file, with no lock on it yet.
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            held: Cell::default(),
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Waits for permission to read; false when a writer did not finish in time.
    pub(super) fn wait_to_read(&self, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        while !self.raise(Level::Shared)? {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(PAUSE);
        }
        Ok(true)
    }

    /// Raises the lock to `to`. False when another holder's lock forbids that.
    pub(super) fn raise(&self, to: Level) -> io::Result<bool> {
        while self.held.get() < to {
            let next = match (self.held.get(), to) {
                (Level::None, _) => Level::Shared,
                (Level::Shared, Level::Reserved) => Level::Reserved,
                (Level::Shared | Level::Reserved, _) => Level::Pending,
                _ => Level::Exclusive,
            };
            if !self.step(next)? {
                return Ok(false);
            }
            self.held.set(next);
        }
        Ok(true)
    }

    fn step(&self, to: Level) -> io::Result<bool> {
        match to {
            Level::None => Ok(true),
            Level::Shared => {
                // A writer that waits for readers to finish lets no new ones in.
                let taken = self.set(libc::F_RDLCK, PENDING)? && self.set(libc::F_RDLCK, SHARED)?;
                self.set(libc::F_UNLCK, PENDING)?;
                Ok(taken)
            }
            Level::Reserved => self.set(libc::F_WRLCK, RESERVED),
            Level::Pending => self.set(libc::F_WRLCK, PENDING),
            Level::Exclusive => self.set(libc::F_WRLCK, SHARED),
        }
    }

    /// Lowers the lock to `to`, which is [`Level::Shared`] or [`Level::None`].
    pub(super) fn lower(&self, to: Level) -> io::Result<()> {
        if self.held.get() <= to {
            return Ok(());
        }
        match to {
            Level::None => self.set(libc::F_UNLCK, ALL)?,
            _ => {
                self.set(libc::F_RDLCK, SHARED)? && self.set(libc::F_UNLCK, PENDING_AND_RESERVED)?
            }
        };
        self.held.set(to);
        Ok(())
    }

    /// Whether this or another open file has the right to write, or to write next.
    pub(super) fn is_reserved(&self) -> io::Result<bool> {
        if self.held.get() >= Level::Reserved {
            return Ok(true);
        }
        let mut lock = flock(libc::F_WRLCK, RESERVED);
        self.fcntl(libc::F_OFD_GETLK, &mut lock)?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }

    fn set(&self, kind: libc::c_int, range: Range) -> io::Result<bool> {
        match self.fcntl(libc::F_OFD_SETLK, &mut flock(kind, range)) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => Ok(false),
                _ => Err(error),
            },
        }
    }

    fn fcntl(&self, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
        // SAFETY: the descriptor is open, and both commands read and write one `flock`, which `lock` is.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), command, std::ptr::from_mut(lock)) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

impl Drop for Locked {
    /// Closing the file is not enough: a child that has not run its program yet has the same open file.
    fn drop(&mut self) {
        // What fails here is given up when the last copy is closed.
        let _ = self.lower(Level::None);
        let _ = self.file.unlock();
    }
}

fn flock(kind: libc::c_int, (start, length): Range) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        // The kernel insists on zero for locks of open files.
        l_pid: 0,
    }
}
