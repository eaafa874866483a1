//! Writes a capture in a thread of its own: a slow disk, or a reader who holds the file, holds up no recording.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::capture::kept::{Kept, Row};
use crate::capture::{CaptureError, Interval, Meta, Process, Writer};
use crate::ids::ProcessNumber;
use crate::private_file::Given;

/// How long the caller waits for the thread when too much waits to be written: a thread that a single large interval
/// has just woken takes that interval at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// A [`Writer`] for which the caller hardly ever waits before [`BackgroundWriter::finish`]. What the disk has not taken
/// yet waits in memory, within bounds. Dropping the value without finishing leaves a capture that reads as cut off, and
/// so does a failure.
#[derive(Debug)]
pub struct BackgroundWriter {
    path: PathBuf,
    given: Given,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the recording and the thread share.
#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something waits to be written, or the end has come.
    changed: Condvar,
    /// The thread has taken what waited, or has ended.
    taken: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    kept: Kept,
    /// Nothing more comes.
    end: Option<End>,
    /// The thread has ended.
    is_over: bool,
    /// Why the thread has ended, until somebody asks.
    failure: Option<CaptureError>,
}

/// How a capture ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The capture is complete, since this time in nanoseconds since 1970 UTC.
    Complete(u64),
    /// Nobody completes the capture.
    CutOff,
}

impl BackgroundWriter {
    /// Begins a capture, as [`Writer::create`] does, in the thread.
    ///
    /// # Errors
    ///
    /// Those of [`Writer::create`], and [`CaptureError::Io`] when no thread can be started.
    pub fn create(path: &Path, meta: &Meta) -> Result<Self, CaptureError> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let (path, meta) = (path.to_owned(), meta.clone());
        let (tell, told) = mpsc::channel();
        let thread = thread::Builder::new().name("capture".to_owned());
        let to = path.clone();
        let thread = thread
            // SQLite's file stays with one thread.
            .spawn(move || match Writer::create(&to, &meta) {
                Ok(writer) => {
                    // The other end waits for this.
                    let _ = tell.send(Ok(writer.given()));
                    let over = Over(of_thread);
                    over.0.write(writer);
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            })
            .map_err(|source| CaptureError::io(&path, source))?;
        let ended = |_| CaptureError::io(&path, io::ErrorKind::Other.into());
        let given = told.recv().map_err(ended)??;
        Ok(Self {
            path,
            given,
            shared,
            thread: Some(thread),
        })
    }

    /// Whether the file belongs to the user who called sudo, if somebody did.
    #[must_use]
    pub const fn given(&self) -> Given {
        self.given
    }

    /// Adds a process that is recorded from now on.
    ///
    /// # Errors
    ///
    /// When something that was added before cannot be written, as for every method here. That is said once.
    pub fn add_process(&mut self, process: Process) -> Result<(), CaptureError> {
        self.add(|kept| kept.rows.push(Row::Process(process)))
    }

    /// Marks a process as ended, with a reason for a person.
    ///
    /// # Errors
    ///
    /// See [`BackgroundWriter::add_process`].
    pub fn end_process(
        &mut self,
        process: ProcessNumber,
        at_ns: u64,
        reason: &str,
    ) -> Result<(), CaptureError> {
        let reason = reason.to_owned();
        self.add(|kept| {
            kept.rows.push(Row::End {
                process,
                at_ns,
                reason,
            });
        })
    }

    /// Adds a remark for the reader of the report.
    ///
    /// # Errors
    ///
    /// See [`BackgroundWriter::add_process`].
    pub fn note(&mut self, at_ns: u64, text: String) -> Result<(), CaptureError> {
        self.add(|kept| kept.rows.push(Row::Note { at_ns, text }))
    }

    /// Adds an interval.
    ///
    /// # Errors
    ///
    /// See [`BackgroundWriter::add_process`].
    pub fn write_interval(&mut self, interval: &Interval) -> Result<(), CaptureError> {
        self.add(|kept| kept.add(interval.clone()))
    }

    /// Waits until everything is written, and marks the capture as complete.
    ///
    /// # Errors
    ///
    /// When something cannot be written, unless that was said before. The capture then reads as cut off.
    pub fn finish(mut self, ended_ns: u64) -> Result<(), CaptureError> {
        let ended = self.end(End::Complete(ended_ns));
        self.shared.lock().failure.take().map_or(ended, Err)
    }

    fn add(&mut self, add: impl FnOnce(&mut Kept)) -> Result<(), CaptureError> {
        let too_much = |waiting: &mut Waiting| !waiting.kept.is_empty() && !waiting.kept.may_wait();
        let mut waiting = self.shared.lock();
        if too_much(&mut waiting) {
            let in_time = self
                .shared
                .taken
                .wait_timeout_while(waiting, PATIENCE, |waiting| {
                    !waiting.is_over && too_much(waiting)
                });
            waiting = in_time.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(failure) = waiting.failure.take() {
            return Err(failure);
        }
        if waiting.is_over {
            return Err(self.died());
        }
        if too_much(&mut waiting) {
            // What comes from now on is missing.
            waiting.end.get_or_insert(End::CutOff);
            self.shared.changed.notify_one();
            let path = self.path.clone();
            return Err(CaptureError::TooSlow { path });
        }
        add(&mut waiting.kept);
        self.shared.changed.notify_one();
        Ok(())
    }

    fn end(&mut self, end: End) -> Result<(), CaptureError> {
        self.shared.lock().end.get_or_insert(end);
        self.shared.changed.notify_one();
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(self.died()),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// The thread has panicked, which was said where it happened.
    fn died(&self) -> CaptureError {
        let source = io::Error::other("residue's own thread that writes the file has ended");
        CaptureError::io(&self.path, source)
    }
}

impl Drop for BackgroundWriter {
    fn drop(&mut self) {
        // Whoever drops a capture that is not finished knows why.
        let _ = self.end(End::CutOff);
    }
}

/// Says that the thread has ended, however it ends.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.taken.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut writer: Writer) {
        let failure = loop {
            let (kept, end) = self.next();
            if let Err(error) = writer.write_all(kept) {
                break Some(error);
            }
            match end {
                None => {}
                Some(End::CutOff) => break None,
                Some(End::Complete(ended_ns)) => break writer.finish(ended_ns).err(),
            }
        };
        self.lock().failure = failure;
    }

    /// Waits for something to write, or for the end.
    fn next(&self) -> (Kept, Option<End>) {
        let nothing = |waiting: &mut Waiting| waiting.kept.is_empty() && waiting.end.is_none();
        let waiting = self.changed.wait_while(self.lock(), nothing);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        self.taken.notify_all();
        (std::mem::take(&mut waiting.kept), waiting.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::read;
    use crate::requests::record::MemoryAt;

    fn interval(at_ns: u64, looks: usize) -> Interval {
        let look = MemoryAt {
            process: ProcessNumber(0),
            at_ns,
            unbound_bytes: None,
            resident_bytes: Some(at_ns),
        };
        Interval {
            at_ns,
            memory: vec![look; looks],
            ..Interval::default()
        }
    }

    #[test]
    fn what_is_added_is_written_before_the_end() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("background.residue");
        let mut writer = BackgroundWriter::create(&path, &Meta::default())?;
        for at_ns in 1..=20 {
            writer.write_interval(&interval(at_ns, 1))?;
        }
        writer.finish(21)?;
        let capture = read(&path)?;
        assert_eq!((capture.last_ns, capture.ended_ns), (20, Some(21)));
        Ok(())
    }

    #[test]
    fn a_disk_that_takes_nothing_makes_nobody_keep_without_end() {
        // Without its thread nothing is taken.
        let mut writer = BackgroundWriter {
            path: PathBuf::from("slow.residue"),
            given: Given::Done,
            shared: Arc::default(),
            thread: None,
        };
        let mut added = (1..=64).map(|at_ns| writer.write_interval(&interval(at_ns, 1 << 16)));
        let failure = added.find_map(Result::err);
        assert!(
            matches!(failure, Some(CaptureError::TooSlow { .. })),
            "{failure:?}"
        );
        let end = writer.shared.lock().end;
        assert!(
            matches!(end, Some(End::CutOff)),
            "its end is missing: {end:?}"
        );
    }

    #[test]
    fn a_large_interval_alone_is_not_too_much() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("large.residue");
        let mut writer = BackgroundWriter::create(&path, &Meta::default())?;
        writer.write_interval(&interval(1, 1 << 20))?;
        writer.note(2, "after it".to_owned())?;
        writer.finish(3)?;
        assert_eq!(read(&path)?.ended_ns, Some(3));
        Ok(())
    }

    #[test]
    fn a_thread_that_has_panicked_is_no_complete_capture() {
        let shared = Arc::<Shared>::default();
        let over = Over(Arc::clone(&shared));
        let thread = thread::spawn(move || {
            let _over = over;
            panic!("as a defect would");
        });
        let mut writer = BackgroundWriter {
            path: PathBuf::from("panicked.residue"),
            given: Given::Done,
            shared,
            thread: Some(thread),
        };
        while !writer.shared.lock().is_over {
            thread::yield_now();
        }
        assert!(writer.note(1, String::new()).is_err());
        assert!(writer.finish(2).is_err());
    }
}
