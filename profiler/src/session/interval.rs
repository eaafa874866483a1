//! What a recording writes at each interval.

use std::{collections::BTreeMap, time::Instant};

use residue_ebpf::abi::counters::Counter;

use super::{
    Followed, Session, SessionError, Update, now,
    update::{add, tally},
    windows::{News, Windows},
};
use crate::{
    capture::{Interval, MappingTotals},
    heap::{Figures, Origin},
    requests::record::{ProcessUnbound, WindowEnd},
};

impl Session<'_> {
    /// Writes what is new since the last time, and the figures as they are now.
    /// Names of frames are waited for until `names`; those that come later are written the next time.
    pub(super) fn write(&mut self, names: Instant) -> Result<(), SessionError> {
        let totals = self.drain.totals()?;
        let mut counters = self.drain.counters()?;
        self.python_probes.heaps.seen(&counters);
        let (modules, frames) = self
            .frames
            .take_new(&self.code, &mut self.code_objects, names);
        for note in self.frames.take_notes() {
            self.note(note)?;
        }
        for (counter, more) in [
            (Counter::StacksUndelivered, self.drain.undelivered()),
            (Counter::KernelSkipped, self.kernel.skipped()),
            (Counter::PythonCodeStale, self.code_objects.stale()),
            (Counter::PythonCodeTableFull, self.frames.unnamed()),
            (Counter::FramesNameless, self.frames.nameless()),
            (Counter::SurvivorsUnknown, self.windows.forgotten()),
            (Counter::SurvivorsUncounted, self.windows.uncounted()),
            (Counter::WindowsFull, self.windows.crowded_out()),
            (Counter::NotHttp, self.windows.not_http()),
            (Counter::RoutesFull, self.windows.overflowed()),
        ] {
            add(&mut counters, counter, more);
        }
        let stacks = std::mem::take(&mut self.stacks);
        self.stacks_seen += stacks.len();
        let of_blocks = totals
            .iter()
            .filter(|(id, _)| !self.python_stacks.contains(id));
        let figures = tally(of_blocks, &counters, self.stacks_seen);
        self.tell_of_windows();
        let news = self.windows.take();
        let interval = Interval {
            at_ns: now(),
            modules,
            frames,
            stacks,
            totals,
            mappings: self.mappings(),
            counters,
            windows: news.finished,
            survivors: (news.survivors.into_iter())
                .map(|(key, amount)| (key.window, amount))
                .collect(),
            left_behind: news.left_behind,
            unbound: self.unbound(),
            memory: self.memory.take(),
        };
        if let Some(writer) = &mut self.writer {
            writer.write_interval(interval)?;
        }
        (self.tell)(Update::Written(figures));
        Ok(())
    }

    /// Follows request windows, and tells of those that are over.
    pub(super) fn poll_windows(&mut self) -> Result<(), SessionError> {
        self.windows.poll(&mut self.drain);
        self.tell_of_windows();
        for slot in 0..self.followed.len() {
            let Followed { slot, process, .. } = &self.followed[slot];
            let pid = process.pid();
            for text in self.windows.new_protocols(*slot, &self.drain) {
                self.note(format!("pid {pid} {text}"))?;
            }
        }
        Ok(())
    }

    /// Tells of processes that may read requests where nobody sees it.
    pub(super) fn note_rings(&mut self) -> Result<(), SessionError> {
        for slot in 0..self.followed.len() {
            let Followed { slot, process, .. } = &self.followed[slot];
            if process.has_io_uring() {
                let pid = process.pid();
                if let Some(text) = self.windows.new_ring(*slot, &self.drain) {
                    self.note(format!("pid {pid} {text}"))?;
                }
            }
        }
        Ok(())
    }

    /// What is written is told by nobody.
    fn tell_of_windows(&mut self) {
        if self.writer.is_some() {
            return;
        }
        let News {
            finished,
            survivors,
            ..
        } = self.windows.take();
        if !finished.is_empty() {
            (self.tell)(Update::Windows(finished));
        }
        if !survivors.is_empty() {
            let by_route = survivors.into_iter();
            let by_route = by_route.map(|(key, amount)| (key.route, amount));
            (self.tell)(Update::Survivors(by_route.collect()));
        }
    }

    /// Ends the windows that are open still.
    pub(super) fn end_windows(&mut self) -> Result<(), SessionError> {
        for slot in (0..).take(self.followed.len()) {
            let end = Some(WindowEnd::StillOpen);
            self.windows.end(slot, &mut self.drain, end);
        }
        self.tell_of_windows();
        let unbound = self.unbound();
        (self.tell)(Update::Unbound(unbound));
        Ok(())
    }

    fn unbound(&self) -> Vec<ProcessUnbound> {
        let slots = self.followed.iter().map(|followed| followed.slot);
        slots
            .map(|slot| Windows::unbound(slot, &self.drain))
            .collect()
    }

    fn mappings(&self) -> Vec<MappingTotals> {
        let ranges = self.followed.iter();
        summed(ranges.flat_map(|followed| followed.ranges.totals()))
    }
}

/// One for each origin: what mapped memory without a stack, since there was no room for one, is the same origin in
/// all processes.
fn summed(totals: impl Iterator<Item = (Origin, Figures)>) -> Vec<MappingTotals> {
    let mut sums: BTreeMap<Origin, Figures> = BTreeMap::new();
    for (origin, figures) in totals {
        sums.entry(origin).or_default().add(figures);
    }
    let sums = sums.into_iter();
    sums.map(|((stack, owner), figures)| MappingTotals {
        stack,
        owner,
        figures,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use residue_ebpf::abi::UNKNOWN_STACK;

    use super::*;
    use crate::heap::MappingOwner;

    #[test]
    fn what_two_processes_have_mapped_without_a_stack_is_one_row() {
        let figures = |bytes| Figures {
            inuse_bytes: bytes,
            inuse_objects: 1,
            alloc_bytes: bytes,
            alloc_objects: 1,
        };
        let application = MappingOwner::Application;
        let totals = [
            ((UNKNOWN_STACK, application), figures(10)),
            ((7, application), figures(100)),
            ((UNKNOWN_STACK, MappingOwner::Shared), figures(1000)),
            ((UNKNOWN_STACK, application), figures(20)),
        ];
        let sums = summed(totals.into_iter());
        let unknown = |it: &&MappingTotals| (it.stack, it.owner) == (UNKNOWN_STACK, application);
        assert_eq!(sums.len(), 3);
        let unknown = sums.iter().find(unknown).map(|it| it.figures);
        assert_eq!(
            unknown.map(|it| (it.inuse_bytes, it.inuse_objects)),
            Some((30, 2))
        );
    }
}
