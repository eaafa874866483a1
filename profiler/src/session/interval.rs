//! What a recording writes at each interval.

use residue_ebpf::abi::counters::Counter;

use super::{
    Session, SessionError, Update, now,
    update::{add, tally},
};
use crate::capture::{Interval, MappingTotals};

impl Session<'_> {
    /// Writes what is new since the last time, and the figures as they are now.
    pub(super) fn write(&mut self) -> Result<(), SessionError> {
        let totals = self.drain.totals()?;
        let mut counters = self.drain.counters()?;
        self.python_heaps.seen(&counters);
        let (modules, frames) = (self.frames).take_new(&self.code, &mut self.code_objects);
        for (counter, more) in [
            (Counter::StacksUndelivered, self.drain.undelivered()),
            (Counter::KernelSkipped, self.kernel.skipped()),
            (Counter::PythonCodeStale, self.code_objects.stale()),
            (Counter::PythonCodeTableFull, self.frames.unnamed()),
        ] {
            add(&mut counters, counter, more);
        }
        let stacks = std::mem::take(&mut self.stacks);
        self.stacks_seen += stacks.len();
        let of_blocks = totals
            .iter()
            .filter(|(id, _)| !self.python_stacks.contains(id));
        let figures = tally(of_blocks, &counters, self.stacks_seen);
        self.writer.write_interval(&Interval {
            at_ns: now(),
            modules,
            frames,
            stacks,
            totals,
            mappings: self.mappings(),
            counters,
            ..Interval::default()
        })?;
        (self.tell)(Update::Written(figures));
        Ok(())
    }

    fn mappings(&self) -> Vec<MappingTotals> {
        let ranges = self
            .followed
            .iter()
            .flat_map(|followed| followed.ranges.totals());
        ranges
            .map(|((stack, owner), figures)| MappingTotals {
                stack,
                owner,
                figures,
            })
            .collect()
    }
}
