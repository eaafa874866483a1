//! What a recording tells at each interval.

use std::{collections::BTreeMap, time::Instant};

use residue_ebpf::abi::counters::Counter;

use super::{
    Core, SessionError, clock::now, memory::MemoryLog, processes::Processes, stacks::NewStacks,
    windows::News,
};
use crate::{
    capture::{Interval, MappingTotals},
    heap::{Figures, Origin},
};

/// Tells everything that is new since the last time, and the figures as they are now. Waits for the names of frames
/// until `names`; those that come later are told the next time.
///
/// # Errors
///
/// When the kernel refuses to read a map, which it has no reason to.
pub fn tell(
    core: &mut Core<'_>,
    processes: &mut Processes,
    memory: &mut MemoryLog,
    names: Instant,
) -> Result<(), SessionError> {
    let totals = core.drain.totals()?;
    let NewStacks {
        modules,
        frames,
        stacks,
    } = core.stacks.take_new(names);
    let remarks = core.stacks.take_remarks();
    core.remarks(remarks);
    let counters = counters(core)?;
    processes.saw(&counters);
    core.tell_of_requests();
    let News {
        finished,
        survivors,
        left_behind,
    } = core.windows.take();
    let tally = core.stacks.tally(&totals, &counters);
    let interval = Interval {
        at_ns: now(),
        modules,
        frames,
        stacks,
        mappings: summed(processes.mappings()),
        totals,
        counters,
        windows: finished,
        survivors,
        left_behind,
        unbound: processes.take_unbound(core),
        memory: memory.take(),
    };
    core.sinks.interval(&interval, &tally);
    Ok(())
}

/// The kernel side's counters, with what user space knows of the same.
fn counters(core: &mut Core<'_>) -> Result<Vec<(Counter, u64)>, SessionError> {
    let mut counters = core.drain.counters()?;
    let of_kernel = [
        (Counter::StacksUndelivered, core.drain.undelivered()),
        (Counter::KernelSkipped, core.kernel.skipped()),
    ];
    let of_names = core.stacks.missing().into_iter();
    let of_windows = core.windows.missing().into_iter();
    for (which, more) in of_kernel.into_iter().chain(of_names).chain(of_windows) {
        let mut all = counters.iter_mut();
        if let Some((_, value)) = all.find(|(counter, _)| *counter == which) {
            *value += more;
        }
    }
    Ok(counters)
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
    use super::*;
    use crate::{heap::MappingOwner, ids::StackId};

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
            ((StackId::UNKNOWN, application), figures(10)),
            ((StackId(7), application), figures(100)),
            ((StackId::UNKNOWN, MappingOwner::Shared), figures(1000)),
            ((StackId::UNKNOWN, application), figures(20)),
        ];
        let sums = summed(totals.into_iter());
        let unknown = |it: &&MappingTotals| (it.stack, it.owner) == (StackId::UNKNOWN, application);
        assert_eq!(sums.len(), 3);
        let unknown = sums.iter().find(unknown).map(|it| it.figures);
        assert_eq!(
            unknown.map(|it| (it.inuse_bytes, it.inuse_objects)),
            Some((30, 2))
        );
    }
}
