//! Runs a recording for a command: from the first signal that may come to the last probe that is taken out.

use std::{path::PathBuf, process::ExitStatus};

use anyhow::Context as _;

use super::{ending, shell::quoted, signals::Signals};
use crate::{
    attach::ensure_tracefs,
    capture::Meta,
    messages::{clear_status, say},
    remark::Remark,
    session::{Config, Finished, Session, SessionError, raise_limits},
    sink::{CaptureFile, LineStyle, Lines, Progress, Sink, SinkError, Sinks},
};

/// What is made of a recording.
#[derive(Debug)]
pub struct Outputs {
    /// Where the capture goes, if one is written.
    pub capture: Option<PathBuf>,
    /// How requests are written to standard output, if they are.
    pub lines: Option<LineStyle>,
    /// Whether a person sees warnings and errors only.
    pub quiet: bool,
}

/// Prepares this process for recording. To be called before any thread is started: it changes what this thread and
/// its children see.
///
/// # Errors
///
/// When the limit on address space is too low for `max_live` allocations.
pub fn prepare(max_live: u32) -> anyhow::Result<()> {
    ensure_tracefs();
    Ok(raise_limits(max_live)?)
}

/// Records until somebody asks to end, or the recording ends by itself. Returns how the command ended, if there was one
/// and it has ended.
///
/// # Errors
///
/// When a process cannot be recorded, or something that is made of the recording is not complete.
pub fn run(config: &Config, outputs: Outputs) -> anyhow::Result<Option<ExitStatus>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    runtime.block_on(record(config, outputs))
}

async fn record(config: &Config, outputs: Outputs) -> anyhow::Result<Option<ExitStatus>> {
    // From here on Ctrl-C ends the recording instead of residue.
    let signals = Signals::listen().context("failed to listen to signals")?;
    let allocations = config.tracing.allocations;
    let mut progress = progress(config, &outputs);
    let mut sinks = Sinks::default().and(&signals).and(&mut progress);
    if let Some(path) = outputs.capture.clone() {
        sinks = sinks.and(CaptureFile::at(path));
    }
    if let Some(style) = outputs.lines {
        sinks = sinks.and(Lines::new(style, allocations));
    }
    let mut session = Session::start(config, sinks)?;
    let recorded = session.run(signals.more_than(0)).await;
    let Finished {
        written,
        command,
        probes,
    } = session.finish();
    signals.all_is_written();
    let recorded = recorded.or_else(closed_pipe_is_no_error);
    let written = written.or_else(closed_pipe_is_no_error);
    let recorded = recorded.and(written);
    clear_status();
    if recorded.is_ok() {
        say_what_is_written(&progress);
    }
    ending::take_out(probes, &signals, outputs.quiet).await;
    recorded?;
    Ok(command)
}

fn progress(config: &Config, outputs: &Outputs) -> Progress {
    Progress {
        quiet: outputs.quiet,
        has_status: outputs.lines.is_none(),
        output: outputs.capture.clone(),
        duration: config.duration,
        follows_allocations: config.tracing.allocations,
        ..Progress::default()
    }
}

fn say_what_is_written(progress: &Progress) {
    if let Some(path) = progress.output.as_ref().filter(|_| !progress.quiet) {
        let (summary, path) = (progress.summary(), quoted(path));
        say(format!(
            "{summary}\nwrote {path}; next: residue report {path}"
        ));
    }
}

/// As in `residue watch … | head`.
fn closed_pipe_is_no_error(error: SessionError) -> Result<(), SessionError> {
    match error {
        SessionError::Sink(error) if error.is_closed_pipe() => Ok(()),
        error => Err(error),
    }
}

impl Sink for &Signals {
    fn name(&self) -> String {
        "signals".to_owned()
    }

    fn begin(&mut self, _: &Meta) -> Result<Option<Remark>, SinkError> {
        self.recording_begins();
        Ok(None)
    }
}
