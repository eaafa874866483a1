//! Lines of another process, with a limit on the wait for each.

use std::{
    io::{BufRead as _, BufReader, Read},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Reads a pipe in a thread of its own, so that its writer never waits for the test.
#[derive(Debug)]
pub struct Lines {
    receiver: Receiver<String>,
    all: Arc<Mutex<String>>,
}

impl Lines {
    /// Starts reading.
    #[must_use]
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        let all = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&all);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_str(&line);
                kept.push('\n');
                drop(kept);
                // The test may have stopped listening; what is kept is complete all the same.
                drop(sender.send(line));
            }
        });
        Self { receiver, all }
    }

    /// The next line.
    ///
    /// # Errors
    ///
    /// When none comes within `limit`, or the pipe was closed.
    pub fn next(&self, limit: Duration) -> Result<String> {
        match self.receiver.recv_timeout(limit) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("no line came within {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the process closed its output"),
        }
    }

    /// The next line that begins with `start`; those before it are skipped.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next), with everything that was read.
    pub fn next_starting(&self, start: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left) {
                Ok(line) if line.starts_with(start) => return Ok(line),
                Ok(_) => {}
                Err(error) => bail!("waiting for {start:?}: {error}; it wrote:\n{}", self.all()),
            }
        }
    }

    /// Waits until the pipe is closed.
    ///
    /// # Errors
    ///
    /// When it is still open after `limit`.
    pub fn wait_for_end(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => bail!("the output is still open after {limit:?}"),
            }
        }
    }

    /// Everything read so far.
    #[must_use]
    pub fn all(&self) -> String {
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
