//! How the recording of a process ends, and how all of it does: the file first, the probes last.

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use super::{
    Session, SessionError, Update,
    children::When,
    launch::{Launched, describe_status},
    now,
};
use crate::attach::Remaining;

/// How long the last interval waits for names of frames. The debug information of the largest programs takes some
/// seconds to read.
const LAST_NAMES: Duration = Duration::from_secs(10);

/// A recording that is over.
pub struct Finished {
    /// Whether the capture, if one was to be written, is complete.
    pub written: Result<(), SessionError>,
    /// How the command ended, if there was one and it has ended.
    pub command: Option<ExitStatus>,
    /// What the kernel still has to take out. It takes a tenth of a second or more for each.
    pub probes: Remaining,
}

impl Session<'_> {
    /// Stops counting and completes the capture. The probes stay in until somebody takes them out.
    #[must_use = "the probes are still in"]
    pub fn finish(mut self) -> Finished {
        let written = self.write_last();
        let complete = |ended_ns| match self.writer {
            Some(writer) => Ok(writer.finish(ended_ns)?),
            None => Ok(()),
        };
        Finished {
            written: written.and_then(complete),
            command: self.command.as_mut().and_then(Launched::status),
            probes: self.kernel.into_remaining(),
        }
    }

    /// Returns when the last event counted.
    fn write_last(&mut self) -> Result<u64, SessionError> {
        if self.has_costs() {
            self.look_a_last_time()?;
        }
        for followed in self.followed.iter_mut().filter(|followed| followed.open) {
            followed.close(&mut self.kernel)?;
        }
        let ended = now();
        self.note_costs()?;
        self.note_children(When::AtTheEnd)?;
        self.note_rings()?;
        self.poll()?;
        self.end_windows()?;
        self.look_at_memory();
        self.memory.end();
        self.write(Instant::now() + LAST_NAMES)?;
        if let Some(text) = self.python_probes.heaps.summary() {
            (self.tell)(Update::Note(text));
        }
        Ok(ended)
    }

    /// Of a command that is ours, we are told.
    pub(super) fn how_it_ended(&mut self, slot: usize) -> String {
        let pid = self.followed[slot].process.pid();
        let command = self.command.as_mut().filter(|command| command.is(pid));
        let status = command.and_then(Launched::status);
        status.map_or_else(|| "ended".to_owned(), describe_status)
    }

    /// A process's recording is over before ours.
    pub(super) fn end(&mut self, slot: usize, how: &str) -> Result<(), SessionError> {
        let followed = &mut self.followed[slot];
        if !followed.open {
            return Ok(());
        }
        followed.close(&mut self.kernel)?;
        let (slot, pid) = (followed.slot, followed.process.pid());
        let text = format!("pid {pid} ({}) {how}", followed.process.comm());
        let reason = match &followed.retired {
            Some(why) => format!("{why}, later {how}"),
            None => how.to_owned(),
        };
        if let Some(writer) = &mut self.writer {
            writer.end_process(slot, now(), &reason)?;
        }
        self.windows.end(slot, &mut self.drain, None);
        self.over.push(usize::from(slot));
        self.note(format!("{text}; the report shows what it held then"))
    }

    /// Makes room in the kernel's maps for those that are recorded on.
    pub(super) fn forget_those_over(&mut self) {
        let over = std::mem::take(&mut self.over);
        if over.is_empty() || self.followed.iter().all(|it| !it.open) {
            return;
        }
        let over = over.into_iter().map(|slot| &self.followed[slot]);
        let (slots, ids): (Vec<_>, Vec<_>) = over
            // The requests of one that was let go are followed on.
            .map(|it| (it.slot, (!it.open).then_some(it.pid().get())))
            .unzip();
        let ids: Vec<_> = ids.into_iter().flatten().collect();
        self.kernel.forget(&slots, &ids);
    }
}
