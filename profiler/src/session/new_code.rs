//! A library was loaded while recording.

use std::time::Instant;

use super::{Discovered, NEW_TABLES, Session, SessionError};
use crate::{attach::AttachError, error_text::in_full};

impl Session<'_> {
    /// It may hold an allocator, or what opens windows, and frames will lie in it.
    pub(super) fn attach_new_code(&mut self, slot: usize) -> Result<(), SessionError> {
        let followed = &mut self.followed[slot];
        if !followed.is_counted() {
            return Ok(());
        }
        if followed.process.refresh().is_err() {
            let pid = followed.process.pid();
            let text = format!(
                "pid {pid} loaded a library, and its mappings could not be read: what the library does is not seen"
            );
            // Of one that ended, the next poll sees that.
            return match !followed.process.has_exited() && followed.is_news(&text) {
                true => self.note(text),
                false => Ok(()),
            };
        }
        let discovered = match self.config.tracing.allocations {
            true => self.attach_new_allocators(slot)?,
            false => Discovered::default(),
        };
        let to = (&mut self.kernel, &mut self.windows);
        let followed = &self.followed[slot];
        let gaps = self.window_probes.attach(to, followed, &discovered);
        let gaps = self.or_noted(slot, gaps)?;
        gaps.into_iter().try_for_each(|gap| self.note(gap))
    }

    /// Returns what was found.
    fn attach_new_allocators(&mut self, slot: usize) -> Result<Discovered, SessionError> {
        let followed = &mut self.followed[slot];
        followed.set_code(&mut self.kernel, &mut self.code)?;
        self.code.wait_for_tables(Instant::now() + NEW_TABLES);
        self.deliver_tables()?;
        let followed = &mut self.followed[slot];
        let discovered = Discovered::under_way(&followed.process, self.config.sites);
        let mut gaps = followed.new_gaps(&discovered);
        let gap = followed.attach_python(&mut self.kernel, &discovered);
        gaps.extend(self.or_noted(slot, gap)?);
        let followed = &self.followed[slot];
        let of_python = self
            .python_probes
            .attach(&mut self.kernel, followed, &discovered);
        gaps.extend(self.or_noted(slot, of_python)?);
        gaps.into_iter().try_for_each(|gap| self.note(gap))?;
        let followed = &mut self.followed[slot];
        let pid = followed.process.pid();
        let added = followed.attach(&mut self.kernel, &discovered);
        let added = self.or_noted(slot, added)?;
        if added.functions > 0 {
            let functions = added.functions;
            self.note(format!(
                "pid {pid} loaded a library: {functions} more functions are probed"
            ))?;
        }
        for refused in &added.refused {
            self.note_refusal(slot, refused)?;
        }
        Ok(discovered)
    }

    /// What one process loads must not end the recording of all.
    fn or_noted<T: Default>(
        &mut self,
        slot: usize,
        attached: Result<T, AttachError>,
    ) -> Result<T, SessionError> {
        match attached {
            Ok(attached) => return Ok(attached),
            // It ended meanwhile; the next poll sees that.
            Err(AttachError::ProcessGone { .. }) => {}
            Err(error) if error.is_of_late_probe() => self.note_refusal(slot, &error)?,
            Err(error) => return Err(error.into()),
        }
        Ok(T::default())
    }

    /// Once for each reason.
    fn note_refusal(&mut self, slot: usize, error: &AttachError) -> Result<(), SessionError> {
        let followed = &mut self.followed[slot];
        let pid = followed.process.pid();
        let error = in_full(error);
        let text = format!(
            "pid {pid} loaded a library that could not be probed: {error}. What it does is not seen, or \
             only in part"
        );
        if followed.is_news(&text) {
            self.note(text)?;
        }
        Ok(())
    }
}
