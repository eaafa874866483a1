//! How the recording of a process ends, and how all of it does: the file first, the probes last.

use super::{Session, SessionError, Update, now};
use crate::{attach::Remaining, target::Pid};

/// A recording that is over.
pub struct Finished {
    /// Whether the capture, if one was to be written, is complete.
    pub written: Result<(), SessionError>,
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
            probes: self.kernel.into_remaining(),
        }
    }

    /// Returns when the last event counted.
    fn write_last(&mut self) -> Result<u64, SessionError> {
        for followed in self.followed.iter_mut().filter(|followed| followed.open) {
            followed.close(&mut self.kernel)?;
        }
        let ended = now();
        self.note_children()?;
        self.note_rings()?;
        self.poll()?;
        self.end_windows()?;
        self.look_at_memory();
        self.memory.end();
        self.write()?;
        if let Some(text) = self.python_probes.heaps.summary() {
            (self.tell)(Update::Note(text));
        }
        Ok(ended)
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
        if let Some(writer) = &mut self.writer {
            writer.end_process(slot, now(), how)?;
        }
        self.windows.end(slot, &mut self.drain, None);
        self.note(format!("{text}; the report shows what it held then"))
    }

    fn note_children(&mut self) -> Result<(), SessionError> {
        let followed: Vec<Pid> = self.followed.iter().map(|f| f.process.pid()).collect();
        let mut unfollowed: Vec<Pid> = followed
            .iter()
            .flat_map(|&pid| crate::target::children(pid))
            .filter(|pid| !followed.contains(pid))
            .collect();
        unfollowed.sort_unstable();
        unfollowed.dedup();
        if unfollowed.is_empty() {
            return Ok(());
        }
        self.note(format!(
            "child processes that were not recorded: {unfollowed:?}; give --children or their pids"
        ))
    }
}
