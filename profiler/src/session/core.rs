//! What all processes of a recording have in common.

use super::{
    Config, SessionError, clock::now, cost::Costs, samples::SampleFile, stacks::Stacks,
    windows::Windows,
};
use crate::{
    attach::{Channels, Kernel, ProgramSet},
    drain::Drain,
    ids::ProcessNumber,
    remark::Remark,
    sink::{Keeps, ProcessEnd, Sinks},
};

/// The two ends of the pipeline, and what is between them: the kernel side, and who listens.
pub struct Core<'a> {
    pub config: &'a Config,
    pub kernel: Kernel,
    pub drain: Drain,
    pub stacks: Stacks,
    pub windows: Windows,
    pub costs: Costs,
    pub samples: Option<SampleFile>,
    pub sinks: Sinks<'a>,
}

impl<'a> Core<'a> {
    /// Nothing counts yet.
    pub fn new(
        config: &'a Config,
        (kernel, channels): (Kernel, Channels),
        stacks: Stacks,
        sinks: Sinks<'a>,
    ) -> Self {
        let by_stack = sinks.keep() == Keeps::Everything;
        Self {
            config,
            kernel,
            drain: Drain::new(channels),
            stacks,
            windows: Windows::new(&config.windows, config.tracing.allocations, by_stack),
            costs: Costs::new(config.max_slowdown),
            samples: None,
            sinks,
        }
    }

    /// Tells everybody who listens what a person should know.
    pub fn remark(&mut self, remark: &Remark) {
        self.sinks.remark(now(), remark);
    }

    /// Tells of each of these.
    pub fn remarks(&mut self, remarks: impl IntoIterator<Item = Remark>) {
        remarks.into_iter().for_each(|remark| self.remark(&remark));
    }

    /// Tells everybody who listens that the figures of a process, given by its number in this recording, stay as they
    /// are.
    pub fn retire(&mut self, process: ProcessNumber, reason: String) {
        let at_ns = now();
        self.sinks.retire(&ProcessEnd {
            process,
            at_ns,
            reason,
        });
    }

    /// Whether probes count what they cost.
    pub fn counts_costs(&self) -> bool {
        self.config.programs == ProgramSet::Counting
    }

    /// Whether there are probes that count what they cost. Those of processes that are over are not.
    pub fn has_costs(&self) -> bool {
        self.counts_costs() && self.kernel.has_probes()
    }

    /// Hands unwind tables that are ready to the kernel side.
    pub fn deliver_tables(&mut self) -> Result<(), SessionError> {
        let no_room = self.stacks.code.deliver(&mut self.kernel)?;
        self.remarks(no_room.into_iter().map(Remark::NoTableRoom));
        Ok(())
    }

    /// Has the kernel side walk the stacks of contexts that seem to grow.
    pub fn review(&mut self) -> Result<(), SessionError> {
        let totals = self.drain.totals()?;
        Ok(self.stacks.review(&totals, &mut self.kernel)?)
    }

    /// Tells of the requests that are over and were not told of yet.
    pub fn tell_of_requests(&mut self) {
        let requests = self.windows.untold();
        if !requests.is_empty() {
            self.sinks.requests(now(), requests);
        }
    }
}
