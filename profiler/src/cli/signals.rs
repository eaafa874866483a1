//! The signals by which somebody asks a recording to end. They are heard whatever residue is at: a file of a
//! target that never answers, or the names of a large program, hold up nobody who wants to leave.

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

/// How far a recording is. It decides what a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is recorded yet: whoever asks leaves at once.
    Starting,
    /// The first one to ask ends the recording, and whoever asks again leaves at once.
    Recording,
    /// Everything is written. What is still done looks at how often somebody has asked.
    Written,
}

/// How often residue was asked to end. A thread of its own listens, so that what takes long is asked too.
#[derive(Clone, Debug)]
pub struct Signals {
    seen: watch::Receiver<u32>,
    stage: Arc<Mutex<Stage>>,
}

impl Signals {
    /// From here on SIGINT, SIGTERM, SIGQUIT and SIGHUP end nothing by themselves. No other thread may have been
    /// started: it would get them.
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

    /// The start is over: whoever asks from now on has something recorded. Does not return if somebody has asked.
    pub fn recording_begins(&self) {
        *lock(&self.stage) = Stage::Recording;
    }

    /// Everything is written.
    pub fn all_is_written(&self) {
        *lock(&self.stage) = Stage::Written;
    }

    /// How often somebody has asked so far.
    pub fn count(&self) -> u32 {
        *self.seen.borrow()
    }

    /// Ready once somebody has asked more often than so many times.
    pub async fn more_than(&self, times: u32) {
        let mut seen = self.seen.clone();
        if seen.wait_for(|count| *count > times).await.is_err() {
            // Nobody listens any more, so nobody is heard.
            std::future::pending().await
        }
    }
}

fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread that listens knows.
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
        // Held while residue leaves, so that the recording does not begin meanwhile.
        let stage = lock(&self.stage);
        let count = *self.seen.borrow();
        match (*stage, count) {
            (Stage::Starting, _) => ending::leave_before_the_beginning(signal),
            (Stage::Recording, 1..) => ending::leave_unfinished(signal),
            _ => self.seen.send_modify(|count| *count += 1),
        }
    }
}

/// Whether we were started so, as nohup does: a recording that was meant to outlive its terminal does.
fn is_ignored(signal: c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present action, which the kernel writes to `action`.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zero is a valid action, and so is what the kernel wrote.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}
