//! The signals by which somebody asks a recording to end. A thread of its own hears them, whatever the rest of
//! residue is doing: neither a target's file that never answers, nor the names of a large program, holds up somebody
//! who wants to leave.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use libc::c_int;
use tokio::sync::watch;

use super::ending;
use crate::signal_mask::Blocked;

/// Signals that come closer together are one request: a terminal that is closed sends SIGHUP, and so does its shell.
const ONE_REQUEST: Duration = Duration::from_millis(100);

/// How far a recording is, which decides what a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Residue has recorded nothing yet: whoever asks leaves at once.
    Starting,
    /// The first signal ends the recording, and the second makes residue leave at once.
    Recording,
    /// The capture is complete. What residue still does looks at how often somebody has asked.
    Written,
}

/// How often somebody has asked residue to end. A thread of its own listens, so that somebody can ask during a long
/// step, too.
#[derive(Clone, Debug)]
pub struct Signals {
    seen: watch::Receiver<u32>,
    stage: Arc<Mutex<Stage>>,
}

impl Signals {
    /// Blocks SIGINT, SIGTERM, SIGQUIT and SIGHUP, and starts the thread that listens. No other thread may be
    /// running yet: the kernel would give the signals to that one.
    ///
    /// # Errors
    ///
    /// When there is no room for the thread, or the kernel refuses.
    pub fn listen() -> io::Result<Self> {
        let mut signals = vec![libc::SIGINT, libc::SIGTERM, libc::SIGQUIT];
        if !is_ignored(libc::SIGHUP) {
            signals.push(libc::SIGHUP);
        }
        let signals = Blocked::block(&signals)?;
        let (sender, seen) = watch::channel(0);
        let stage = Arc::new(Mutex::new(Stage::Starting));
        let mut asked = Asked {
            seen: sender,
            stage: Arc::clone(&stage),
            last: None,
        };
        let thread = thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || {
            while let Ok(signal) = signals.wait() {
                asked.once_more(signal);
            }
        })?;
        Ok(Self { seen, stage })
    }

    /// Notes that the start is over: whoever asks from now on has a recording. Does not return if somebody has asked
    /// already.
    pub fn recording_begins(&self) {
        *lock(&self.stage) = Stage::Recording;
    }

    /// Notes that the capture is complete.
    pub fn all_is_written(&self) {
        *lock(&self.stage) = Stage::Written;
    }

    /// How often somebody has asked so far.
    pub fn count(&self) -> u32 {
        *self.seen.borrow()
    }

    /// Waits until somebody has asked more than `times` times.
    pub async fn more_than(&self, times: u32) {
        let mut seen = self.seen.clone();
        if seen.wait_for(|count| *count > times).await.is_err() {
            // The listening thread is gone, so nobody will ask.
            std::future::pending().await
        }
    }
}

fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state of the thread that listens.
struct Asked {
    seen: watch::Sender<u32>,
    stage: Arc<Mutex<Stage>>,
    last: Option<Instant>,
}

impl Asked {
    fn once_more(&mut self, signal: c_int) {
        let now = Instant::now();
        let before = self.last.replace(now);
        if before.is_some_and(|before| now.duration_since(before) < ONE_REQUEST) {
            return;
        }
        // This holds the lock while residue leaves, so that the recording does not begin meanwhile.
        let stage = lock(&self.stage);
        let count = *self.seen.borrow();
        match (*stage, count) {
            (Stage::Starting, _) => ending::leave_before_the_beginning(signal),
            (Stage::Recording, 1..) => ending::leave_unfinished(signal),
            _ => self.seen.send_modify(|count| *count += 1),
        }
    }
}

/// Whether residue was started with the signal ignored, as nohup does: a recording that is to outlive its terminal
/// then does.
fn is_ignored(signal: c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present action, which the kernel writes to `action`.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zero is a valid action, and so is what the kernel wrote.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}
