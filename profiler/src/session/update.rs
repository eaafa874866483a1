//! What a recording tells while it goes on.

use std::time::Duration;

use residue_ebpf::abi::{
    counters::{Counter, CounterKind},
    heap::StackTotals,
};

use crate::requests::{
    record::{Amount, ProcessUnbound, WindowRecord},
    route::Route,
};

/// See the module documentation.
#[derive(Clone, Debug)]
pub enum Update {
    /// All probes are in. The capture, if one is written, is made after this is told.
    Attached,
    /// Everything counts from now on.
    Started {
        /// For each process: what it is.
        processes: Vec<String>,
        /// How many functions are probed.
        functions: usize,
        /// From the start of residue to when all probes were in.
        took: Duration,
        /// What the walks of stacks go by.
        tables: Tables,
    },
    /// Tally were written.
    Written(Tally),
    /// Something that whoever records should know.
    Note(String),
    /// Request windows that are over.
    Windows(Vec<WindowRecord>),
    /// What survived of windows whose grace is over.
    Survivors(Vec<(Route, Amount)>),
    /// The recording is over: what was allocated in no single window.
    Unbound(Vec<ProcessUnbound>),
}

/// The unwind tables of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// How many objects have one.
    pub objects: usize,
    /// What they take of the kernel's memory.
    pub bytes: usize,
    /// How long they were waited for when all probes were in.
    pub waited: Duration,
}

/// Where a recording stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes allocated since attach and not yet freed.
    pub outstanding_bytes: u64,
    /// Allocations not yet freed.
    pub outstanding_objects: u64,
    /// Allocations since attach.
    pub allocations: u64,
    /// Distinct stacks.
    pub stacks: usize,
    /// Events that could not be recorded.
    pub lost: u64,
}

/// Adds up the figures of a moment.
pub(super) fn tally<'a>(
    totals: impl Iterator<Item = &'a (u32, StackTotals)>,
    counters: &[(Counter, u64)],
    stacks: usize,
) -> Tally {
    let mut figures = Tally {
        stacks,
        ..Tally::default()
    };
    for (_, totals) in totals {
        figures.outstanding_bytes += totals.alloc_bytes.saturating_sub(totals.freed_bytes);
        figures.outstanding_objects += totals.alloc_objects.saturating_sub(totals.freed_objects);
        figures.allocations += totals.alloc_objects;
    }
    let lost = counters.iter().filter(|(counter, _)| {
        counter.kind() == CounterKind::Lost && *counter != Counter::LiveSetFullBytes
    });
    figures.lost = lost.map(|(_, value)| value).sum();
    figures
}

/// Adds what user space knows to one of the kernel side's counters.
pub(super) fn add(counters: &mut [(Counter, u64)], which: Counter, more: u64) {
    if let Some((_, value)) = counters.iter_mut().find(|(counter, _)| *counter == which) {
        *value += more;
    }
}
