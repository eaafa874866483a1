//! The sink that tells the person who records how things stand, on standard error.

use std::{path::PathBuf, time::Duration};

use indicatif::{HumanBytes, HumanCount};

use super::{Sink, SinkError, Started, Tally};
use crate::{
    capture::Interval,
    messages::{say, show_status},
    remark::Remark,
    wording::printable,
};

/// What a person sees of a recording while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Says remarks only.
    pub quiet: bool,
    /// Shows figures in the last line of the terminal.
    pub has_status: bool,
    /// Where the capture goes, if one is written.
    pub output: Option<PathBuf>,
    /// When the recording ends by itself, if it does.
    pub duration: Option<Duration>,
    /// Whether allocations are followed.
    pub follows_allocations: bool,
    /// The figures of the last interval.
    pub last: Tally,
}

impl Progress {
    /// The figures of the last interval, for a person.
    #[must_use]
    pub fn summary(&self) -> String {
        let Tally {
            outstanding_bytes,
            outstanding_objects,
            allocations,
            stacks,
            lost,
        } = self.last;
        let lost = match lost {
            0 => String::new(),
            lost => format!("; LOST {} events, see the report", HumanCount(lost)),
        };
        // Zeros would say that there is nothing.
        if !self.follows_allocations {
            return format!("no allocation followed (--rss-only){lost}");
        }
        format!(
            "{} outstanding in {} allocations, of {} seen from {stacks} stacks{lost}",
            HumanBytes(outstanding_bytes),
            HumanCount(outstanding_objects),
            HumanCount(allocations),
        )
    }

    fn opening(&self, started: &Started) -> String {
        let processes = printable(&started.processes.join(", "));
        let Some(output) = &self.output else {
            return format!("watching {processes}; Ctrl-C ends it");
        };
        let until = self.duration.map_or_else(
            || "until Ctrl-C".to_owned(),
            |duration| format!("for {}", humantime::format_duration(duration)),
        );
        format!(
            "recording {processes}: {} functions probed in {} ms, {} unwind tables ({}) {} ms after that; {until}, \
             into {}",
            started.functions,
            started.took.as_millis(),
            started.tables.objects,
            HumanBytes(started.tables.bytes as u64),
            started.tables.waited.as_millis(),
            output.display()
        )
    }
}

impl Sink for &mut Progress {
    fn name(&self) -> String {
        "standard error".to_owned()
    }

    fn started(&mut self, started: &Started) -> Result<(), SinkError> {
        if !self.quiet {
            say(self.opening(started));
            if self.has_status {
                show_status("");
            }
        }
        Ok(())
    }

    fn remark(&mut self, _: u64, remark: &Remark) -> Result<(), SinkError> {
        say(format!("note: {}", printable(&remark.to_string())));
        Ok(())
    }

    fn interval(&mut self, _: &Interval, tally: &Tally) -> Result<(), SinkError> {
        self.last = *tally;
        if self.has_status && !self.quiet {
            show_status(self.summary());
        }
        Ok(())
    }
}
