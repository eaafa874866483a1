//! A library was loaded while recording.

use std::time::Instant;

use super::{Discovered, NEW_TABLES, Session, SessionError};
use crate::{attach::AttachError, error_text::in_full};

impl Session<'_> {
    /// It may hold an allocator, or what opens windows, and frames will lie in it.
    pub(super) fn attach_new_code(&mut self, slot: usize) -> Result<(), SessionError> {
        match self.try_attach_new_code(slot) {
            // It ended meanwhile; the next poll sees that.
            Err(SessionError::Attach(AttachError::ProcessGone { .. })) => Ok(()),
            Err(SessionError::Attach(error)) if error.is_of_one_process() => {
                self.note_refusal(slot, &error)
            }
            attached => attached,
        }
    }

    fn try_attach_new_code(&mut self, slot: usize) -> Result<(), SessionError> {
        let followed = &mut self.followed[slot];
        if !followed.is_counted() || followed.process.refresh().is_err() {
            return Ok(());
        }
        let discovered = match self.config.tracing.allocations {
            true => self.attach_new_allocators(slot)?,
            false => Some(Discovered::default()),
        };
        let Some(discovered) = discovered else {
            return Ok(());
        };
        let to = (&mut self.kernel, &mut self.windows);
        let followed = &self.followed[slot];
        match self.window_probes.attach(to, followed, &discovered) {
            Ok(gaps) => gaps.into_iter().try_for_each(|gap| self.note(gap)),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns what was found, unless the process is gone.
    fn attach_new_allocators(&mut self, slot: usize) -> Result<Option<Discovered>, SessionError> {
        let followed = &mut self.followed[slot];
        followed.set_code(&mut self.kernel, &mut self.code)?;
        self.code.wait_for_tables(Instant::now() + NEW_TABLES);
        self.deliver_tables()?;
        let followed = &mut self.followed[slot];
        // What was found before is still there; only something new would matter.
        let Ok(discovered) = Discovered::of(&followed.process, self.config.sites) else {
            return Ok(None);
        };
        let gaps = followed.new_gaps(&discovered);
        let gap = followed.attach_python(&mut self.kernel, &discovered)?;
        gaps.into_iter()
            .chain(gap)
            .try_for_each(|gap| self.note(gap))?;
        let followed = &self.followed[slot];
        let gaps = self
            .python_probes
            .attach(&mut self.kernel, followed, &discovered)?;
        gaps.into_iter().try_for_each(|gap| self.note(gap))?;
        let followed = &mut self.followed[slot];
        match followed.attach(&mut self.kernel, &discovered) {
            Ok(0) => {}
            Ok(added) => {
                let pid = followed.process.pid();
                self.note(format!(
                    "pid {pid} loaded a library: {added} more functions are probed"
                ))?;
            }
            Err(AttachError::ProcessGone { .. }) => return Ok(None),
            Err(error) if error.is_of_one_probe() => self.note_refusal(slot, &error)?,
            Err(error) => return Err(error.into()),
        }
        Ok(Some(discovered))
    }

    /// What one process loads must not end the recording of all.
    fn note_refusal(&mut self, slot: usize, error: &AttachError) -> Result<(), SessionError> {
        let pid = self.followed[slot].process.pid();
        let error = in_full(error);
        self.note(format!(
            "pid {pid} loaded a library that could not be probed: {error}. What it does is not seen, or \
             only in part"
        ))
    }
}
