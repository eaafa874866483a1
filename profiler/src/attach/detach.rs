//! Takes probes out, or leaves that to the kernel.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use aya::programs::trace_point::TracePointLink;

use super::{Kernel, Probe};

/// The kernel waits out an RCU grace period for every probe that it removes, tens of milliseconds. So many
/// waits overlap; more do not make it quicker, and whoever leaves waits for those that are under way.
const AT_ONCE: usize = 4;

/// The probes of a recording that is over. Dropping them takes them out, one by one.
pub struct Remaining {
    probes: Vec<Probe>,
    tracepoints: Vec<TracePointLink>,
}

impl Kernel {
    /// Takes out the probes of one process, of which nothing may count any more, while others are recorded on.
    pub fn detach_aside(&mut self, process: u16) {
        let probes = self.probes_of(process);
        let aside = thread::Builder::new().name("detach".to_owned());
        // Without room for a thread they are dropped here and now, with the closure.
        let _ = aside.spawn(move || drop_in_parallel(probes, &AtomicUsize::new(0)));
    }

    pub(super) fn probes_of(&mut self, process: u16) -> Vec<Probe> {
        let (gone, kept) = std::mem::take(&mut self.probes)
            .into_iter()
            .partition(|probe| probe.process == process);
        self.probes = kept;
        gone
    }

    /// Whether any process has probes.
    pub const fn has_probes(&self) -> bool {
        !self.probes.is_empty()
    }

    /// What is left to be taken out. All processes must be closed.
    #[must_use]
    pub fn into_remaining(self) -> Remaining {
        Remaining {
            probes: self.probes,
            tracepoints: self.tracepoints,
        }
    }
}

impl Remaining {
    /// How many there are, those of tracepoints included.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.probes.len() + self.tracepoints.len()
    }

    /// Takes all out, and counts in `gone` while it does.
    pub fn take_out(self, gone: &AtomicUsize) {
        drop_in_parallel(self.probes, gone);
        drop_in_parallel(self.tracepoints, gone);
    }
}

fn drop_in_parallel<T: Send>(values: Vec<T>, gone: &AtomicUsize) {
    let values = Mutex::new(values);
    let next = || values.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some(value) = next() {
            drop(value);
            gone.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 1..AT_ONCE {
            // Without room for a thread there are fewer at once.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

/// How often the process that holds the descriptors looks whether its parent is gone.
const LOOK: Duration = Duration::from_millis(10);

/// Lets this process exit at once, whatever probes are in: the kernel takes them out as the last descriptor of
/// each is closed, and waits for each. A child, which does nothing else, is the last to hold them.
///
/// # Errors
///
/// When there is no room for another process. The exit then takes its time.
pub fn leave_probes_behind() -> io::Result<()> {
    let parent = rustix::process::getpid().as_raw_pid();
    // SAFETY: the child makes system calls only, on memory of its own, and never returns.
    match unsafe { libc::fork() } {
        0 => outlive(parent),
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whoever reads our output must not wait for us, and no Ctrl-C is meant for us.
fn outlive(parent: libc::pid_t) -> ! {
    let nap = libc::timespec {
        tv_sec: 0,
        tv_nsec: LOOK.subsec_nanos().into(),
    };
    // SAFETY: system calls only, as between fork and exit of a process with threads; `nap` outlives its use.
    unsafe {
        libc::setsid();
        for standard in 0..=2 {
            libc::close(standard);
        }
        while libc::getppid() == parent {
            libc::nanosleep(&raw const nap, std::ptr::null_mut());
        }
        libc::_exit(0)
    }
}
