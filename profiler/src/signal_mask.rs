//! Signals that wait until a thread takes them. A thread that waits for a file system runs no handler, and the
//! kernel may choose just that thread; a signal that all threads block goes to the thread that waits for it.

use std::{io, mem::MaybeUninit, ptr, sync::OnceLock};

/// The signals that were blocked when residue began.
static BEFORE: OnceLock<libc::sigset_t> = OnceLock::new();

/// Signals that this thread, and the threads that it starts from now on, do not get.
#[derive(Clone, Copy)]
pub struct Blocked(libc::sigset_t);

impl Blocked {
    /// Blocks `signals`, even ignored ones.
    ///
    /// # Errors
    ///
    /// When a number in `signals` is no signal.
    pub fn block(signals: &[libc::c_int]) -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: makes `set` the empty set.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in signals {
            // SAFETY: `set` is a set.
            if unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: `sigemptyset` has filled it.
        let set = unsafe { set.assume_init() };
        let mut before = MaybeUninit::uninit();
        // SAFETY: reads one set and writes the other.
        check(unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr())
        })?;
        // SAFETY: the call that has succeeded wrote it.
        BEFORE.get_or_init(|| unsafe { before.assume_init() });
        Ok(Self(set))
    }

    /// Waits for one of the signals. Returns its number.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, which it has no reason to.
    pub fn wait(&self) -> io::Result<libc::c_int> {
        let mut signal = 0;
        // SAFETY: reads the set and writes the number.
        check(unsafe { libc::sigwait(&raw const self.0, &raw mut signal) })?;
        Ok(signal)
    }
}

/// Gives a command that residue starts the signals that it would get without residue. Makes system calls only.
///
/// # Errors
///
/// When the kernel refuses, which it has no reason to.
pub fn restore() -> io::Result<()> {
    let Some(before) = BEFORE.get() else {
        return Ok(());
    };
    // SAFETY: reads the set.
    check(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut()) })
}

fn check(error: libc::c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
