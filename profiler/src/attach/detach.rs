//! Takes probes out, or leaves them for the kernel to take out.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use aya::programs::trace_point::TracePointLink;

use super::{Kernel, Probe};
use crate::ids::Slot;

/// How many threads take probes out at once. The kernel waits for an RCU grace period, tens of milliseconds,
/// for every probe that it removes, and these waits overlap. More threads are not faster, and residue cannot
/// exit before the waits that have begun are over.
const AT_ONCE: usize = 4;

/// The threads that take probes out while the recording goes on, [`AT_ONCE`] at most, however many processes end.
#[derive(Clone, Default)]
pub(super) struct Aside(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// In the order in which their processes ended.
    waiting: VecDeque<Probe>,
    /// By slot, how many probes are not out yet.
    left: HashMap<Slot, usize>,
    threads: usize,
}

impl Aside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_out(&self, probes: Vec<Probe>) {
        let mut state = self.state();
        for probe in probes {
            *state.left.entry(probe.slot).or_default() += 1;
            state.waiting.push_back(probe);
        }
        while state.threads < AT_ONCE.min(state.waiting.len()) {
            let aside = self.clone();
            let thread = thread::Builder::new().name("detach".to_owned());
            state.threads += 1;
            if thread.spawn(move || aside.work()).is_err() {
                // No thread can start: whoever asks does the work.
                drop(state);
                return self.work();
            }
        }
    }

    fn work(&self) {
        loop {
            let mut state = self.state();
            let Some(probe) = state.waiting.pop_front() else {
                state.threads -= 1;
                return;
            };
            drop(state);
            let slot = probe.slot;
            drop(probe);
            if let Entry::Occupied(mut left) = self.state().left.entry(slot) {
                *left.get_mut() -= 1;
                if *left.get() == 0 {
                    left.remove();
                }
            }
        }
    }
}

/// The probes of a recording that is over. Dropping this value takes the probes out, one by one.
pub struct Remaining {
    probes: Vec<Probe>,
    tracepoints: Vec<TracePointLink>,
}

impl Kernel {
    /// Takes out the probes of one process, while the recording of other processes goes on. The process must be
    /// closed.
    pub fn detach_aside(&mut self, slot: Slot) {
        let probes = self.probes_of(slot);
        self.aside.take_out(probes);
    }

    /// Whether probes of the process in a slot are still being taken out.
    pub fn is_detaching(&self, slot: Slot) -> bool {
        self.aside.state().left.contains_key(&slot)
    }

    pub(super) fn probes_of(&mut self, slot: Slot) -> Vec<Probe> {
        let (gone, kept) = std::mem::take(&mut self.probes)
            .into_iter()
            .partition(|probe| probe.slot == slot);
        self.probes = kept;
        gone
    }

    /// Whether any process has probes.
    pub const fn has_probes(&self) -> bool {
        !self.probes.is_empty()
    }

    /// The probes that are still in. All processes must be closed.
    #[must_use]
    pub fn into_remaining(mut self) -> Remaining {
        self.probes
            .extend(std::mem::take(&mut self.aside.state().waiting));
        Remaining {
            probes: self.probes,
            tracepoints: self.tracepoints,
        }
    }
}

impl Remaining {
    /// How many probes there are, including those on tracepoints.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.probes.len() + self.tracepoints.len()
    }

    /// Takes all probes out, and adds one to `gone` for each.
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
            // When no thread can start, fewer threads share the work.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

/// How often the process that keeps the descriptors looks whether its parent has exited.
const LOOK: Duration = Duration::from_millis(10);

/// Lets this process exit at once, even with probes in. The kernel takes a probe out when the last descriptor
/// of the probe is closed, and whoever closes that descriptor has to wait. So this function forks a child,
/// which does nothing but keep the descriptors a little longer than this process.
///
/// # Errors
///
/// When the kernel cannot start another process. This process then exits slowly.
pub fn leave_probes_behind() -> io::Result<()> {
    let parent = rustix::process::getpid().as_raw_pid();
    // SAFETY: the child only makes system calls, on memory of its own, and never returns.
    match unsafe { libc::fork() } {
        0 => outlive(parent),
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Waits in the child until the parent has exited. The child closes the standard streams, so that nobody who
/// reads them waits for the child, and begins a session of its own, so that no Ctrl-C reaches it.
fn outlive(parent: libc::pid_t) -> ! {
    let nap = libc::timespec {
        tv_sec: 0,
        tv_nsec: LOOK.subsec_nanos().into(),
    };
    // SAFETY: only system calls, as a process with threads must do between fork and exit; `nap` outlives its
    // use.
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
