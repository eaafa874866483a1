//! Who listens to a recording. A recording tells each [`Sink`] the same: what it is, which processes it follows,
//! which requests are over, the figures of each interval, and what a person should know.
//!
//! Sinks do not disturb one another. One that fails is told nothing more, the others hear of that, and the recording
//! goes on for as long as any of them keeps what it is told.

mod capture;
mod lines;
mod progress;
mod stream;
#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use thiserror::Error;

use crate::{
    capture::{CaptureError, Interval, Meta, Process},
    error_text::in_full,
    ids::ProcessNumber,
    remark::Remark,
    requests::record::WindowRecord,
};

pub use capture::CaptureFile;
pub use lines::{Form, LineStyle, Lines};
pub use progress::Progress;

/// How much of a recording a sink keeps. A recording looks only for what some sink keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeps {
    /// Nothing: the sink tells a person how things stand.
    Nothing,
    /// The requests.
    Requests,
    /// Requests, stacks, and memory over time.
    Everything,
}

/// What listens to a recording. The recording calls the methods in the order in which they stand here; those in the
/// middle come as often as there is something to tell. An error is the last that a sink says.
pub trait Sink {
    /// What the sink makes, for messages, such as `standard output`.
    fn name(&self) -> String;

    /// How much the sink keeps.
    fn keeps(&self) -> Keeps {
        Keeps::Nothing
    }

    /// All probes are in, and nothing counts yet. Returns what a person should know of what the sink makes.
    ///
    /// # Errors
    ///
    /// When the sink cannot begin. The recording does not begin either.
    fn begin(&mut self, meta: &Meta) -> Result<Option<Remark>, SinkError> {
        let _ = meta;
        Ok(None)
    }

    /// The recording follows a process from now on.
    ///
    /// # Errors
    ///
    /// When the sink can take nothing more, as for every method below.
    fn follow(&mut self, process: &Process) -> Result<(), SinkError> {
        let _ = process;
        Ok(())
    }

    /// Everything counts from now on.
    ///
    /// # Errors
    ///
    /// See [`Sink::follow`].
    fn started(&mut self, started: &Started) -> Result<(), SinkError> {
        let _ = started;
        Ok(())
    }

    /// The recording of a process is over before the whole recording is.
    ///
    /// # Errors
    ///
    /// See [`Sink::follow`].
    fn retire(&mut self, end: &ProcessEnd) -> Result<(), SinkError> {
        let _ = end;
        Ok(())
    }

    /// A person should know this.
    ///
    /// # Errors
    ///
    /// See [`Sink::follow`].
    fn remark(&mut self, at_ns: u64, remark: &Remark) -> Result<(), SinkError> {
        let _ = (at_ns, remark);
        Ok(())
    }

    /// These requests are over. The next interval has them once more.
    ///
    /// # Errors
    ///
    /// See [`Sink::follow`].
    fn requests(&mut self, requests: &[WindowRecord]) -> Result<(), SinkError> {
        let _ = requests;
        Ok(())
    }

    /// An interval is over: everything that happened in it, and the figures as they are now.
    ///
    /// # Errors
    ///
    /// See [`Sink::follow`].
    fn interval(&mut self, interval: &Interval, tally: &Tally) -> Result<(), SinkError> {
        let _ = (interval, tally);
        Ok(())
    }

    /// The recording is over, since this time in nanoseconds since 1970 UTC. A sink that has failed before hears of
    /// this too.
    ///
    /// # Errors
    ///
    /// When what the sink makes is not complete.
    fn finish(&mut self, ended_ns: u64) -> Result<(), SinkError> {
        let _ = ended_ns;
        Ok(())
    }
}

/// Why a sink can take nothing more.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The capture cannot be written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl SinkError {
    /// Whether nobody reads standard output any more, as in `residue watch … | head`, which is no error.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// How a recording began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// For each process that is recorded: its pid and name, for a person.
    pub processes: Vec<String>,
    /// How many functions are probed.
    pub functions: usize,
    /// From the start of residue to when all probes were in.
    pub took: Duration,
    /// What the walks of stacks go by.
    pub tables: Tables,
}

/// The unwind tables of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// How many objects have one.
    pub objects: usize,
    /// How much of the kernel's memory they take, bytes.
    pub bytes: usize,
    /// How long the recording waited for them when all probes were in.
    pub waited: Duration,
}

/// How the recording of one process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEnd {
    /// The number of the process in this recording.
    pub process: ProcessNumber,
    /// When, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Why, for a person.
    pub reason: String,
}

/// Where a recording stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes allocated since attach and not yet freed.
    pub outstanding_bytes: u64,
    /// Allocations not yet freed.
    pub outstanding_objects: u64,
    /// Allocations since attach.
    pub allocations: u64,
    /// Distinct stacks.
    pub stacks: usize,
    /// Events that could not be recorded.
    pub lost: u64,
}

/// All sinks of a recording.
#[derive(Default)]
pub struct Sinks<'a> {
    listeners: Vec<Listener<'a>>,
    /// Why the first sink failed that has failed.
    failure: Option<SinkError>,
}

struct Listener<'a> {
    sink: Box<dyn Sink + 'a>,
    has_failed: bool,
    /// Intervals since the sink has failed.
    missed: u64,
}

impl<'a> Sinks<'a> {
    /// Adds a sink. Sinks hear of everything in the order in which they were added.
    #[must_use]
    pub fn and(mut self, sink: impl Sink + 'a) -> Self {
        self.listeners.push(Listener {
            sink: Box::new(sink),
            has_failed: false,
            missed: 0,
        });
        self
    }

    /// The most that any sink keeps.
    #[must_use]
    pub fn keep(&self) -> Keeps {
        let working = self.listeners.iter().filter(|it| !it.has_failed);
        let keeps = working.map(|listener| listener.sink.keeps());
        keeps.max().unwrap_or(Keeps::Nothing)
    }

    /// Whether the recording still serves anybody.
    ///
    /// # Errors
    ///
    /// When every sink has failed that keeps anything: why the first did.
    pub fn check(&mut self) -> Result<(), SinkError> {
        if self.keep() > Keeps::Nothing {
            return Ok(());
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Begins all sinks. Returns what a person should know of what they make.
    ///
    /// # Errors
    ///
    /// When one of them cannot begin.
    pub fn begin(&mut self, meta: &Meta) -> Result<Vec<Remark>, SinkError> {
        let mut remarks = Vec::new();
        for listener in &mut self.listeners {
            remarks.extend(listener.sink.begin(meta)?);
        }
        Ok(remarks)
    }

    /// See [`Sink::follow`].
    pub fn follow(&mut self, process: &Process) {
        self.each(0, |sink| sink.follow(process));
    }

    /// See [`Sink::started`].
    pub fn started(&mut self, started: &Started) {
        self.each(0, |sink| sink.started(started));
    }

    /// See [`Sink::retire`].
    pub fn retire(&mut self, end: &ProcessEnd) {
        self.each(end.at_ns, |sink| sink.retire(end));
    }

    /// See [`Sink::remark`].
    pub fn remark(&mut self, at_ns: u64, remark: &Remark) {
        self.each(at_ns, |sink| sink.remark(at_ns, remark));
    }

    /// See [`Sink::requests`].
    pub fn requests(&mut self, at_ns: u64, requests: &[WindowRecord]) {
        self.each(at_ns, |sink| sink.requests(requests));
    }

    /// See [`Sink::interval`].
    pub fn interval(&mut self, interval: &Interval, tally: &Tally) {
        self.each(interval.at_ns, |sink| sink.interval(interval, tally));
        let failed = self.listeners.iter_mut().filter(|it| it.has_failed);
        failed.for_each(|listener| listener.missed += 1);
    }

    /// Ends all sinks.
    ///
    /// # Errors
    ///
    /// When what one of them makes is not complete: why, of the first one.
    pub fn finish(mut self, ended_ns: u64) -> Result<(), SinkError> {
        for (sink, missed) in self.missed() {
            let missing = format!("the last {missed} intervals");
            self.remark(ended_ns, &Remark::SinkMissed { sink, missing });
        }
        let mut failures = Vec::new();
        for listener in &mut self.listeners {
            failures.extend(listener.sink.finish(ended_ns).err());
        }
        failures
            .into_iter()
            .for_each(|failure| self.keep_failure(failure));
        self.failure.map_or(Ok(()), Err)
    }

    /// Keeps the first failure that is one.
    fn keep_failure(&mut self, failure: SinkError) {
        if self.failure.as_ref().is_none_or(SinkError::is_closed_pipe) {
            self.failure = Some(failure);
        }
    }

    fn missed(&self) -> Vec<(String, u64)> {
        let failed = self.listeners.iter().filter(|it| it.missed > 0);
        failed.map(|it| (it.sink.name(), it.missed)).collect()
    }

    fn each(
        &mut self,
        at_ns: u64,
        mut tell: impl FnMut(&mut (dyn Sink + 'a)) -> Result<(), SinkError>,
    ) {
        let mut failed = Vec::new();
        for listener in self.listeners.iter_mut().filter(|it| !it.has_failed) {
            if let Err(error) = tell(&mut *listener.sink) {
                listener.has_failed = true;
                failed.push((listener.sink.name(), error));
            }
        }
        for (sink, error) in failed {
            let reason = in_full(&error);
            self.keep_failure(error);
            // Where nobody is left, the recording ends with the error.
            if self.keep() > Keeps::Nothing {
                self.remark(at_ns, &Remark::SinkFailed { sink, reason });
            }
        }
    }
}
