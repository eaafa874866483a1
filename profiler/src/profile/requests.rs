//! What requests did: one row for each route, and what requests left behind by stack.

mod estimate;
mod left_behind;
mod share;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::capture::{Capture, UnboundAt};
use crate::ids::ProcessNumber;
use crate::profile::FrameId;
use crate::profile::build::is_rss_only;
use crate::profile::stacks::Stacks;
use crate::requests::record::{Amount, ProcessUnbound, Stage, Unbound, WindowEnd, WindowRecord};
use crate::requests::route::Route;
use crate::requests::table::{RouteTable, TableBuilder};

/// What requests did, and what they left behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    /// One row for each route, with estimates where no allocation could be bound.
    pub table: RouteTable,
    /// What requests left behind by stack, most bytes first. The rows of one route and stage add up
    /// to what the windows of that route count.
    pub left_behind: Vec<LeftProfile>,
}

/// What requests of one route and status left behind from one symbolized stack of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftProfile {
    /// When the recorder looked.
    pub stage: Stage,
    /// The route of the requests.
    pub route: Route,
    /// The status of the responses.
    pub status: Option<u16>,
    /// Index into [`super::Profile::targets`]. None when the process is unknown.
    pub target: Option<usize>,
    /// The frames, leaf first.
    pub frames: Vec<FrameId>,
    /// How much the requests left behind.
    pub amount: Amount,
    /// The part of `amount` that is apportioned to the stack.
    pub estimated: Amount,
    /// How much of the stack is known.
    pub walk: Walk,
}

/// How much of a stack is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Walk {
    /// The recorder walked the stack.
    Whole,
    /// Only the first frames of several stacks, all of them unwalked.
    Shallow,
    /// No frame: the memory was freed already, or not yet known, when the recorder looked at
    /// stacks.
    Missed,
}

/// Builds the rows of requests. None if the recorder saw no windows.
pub(super) fn build(capture: &Capture, stacks: &mut Stacks<'_>) -> Option<Requests> {
    let windows = &capture.windows;
    if windows.records.is_empty() && windows.unbound.is_empty() {
        return None;
    }
    let mut builder = TableBuilder::default();
    for (record, survived) in &windows.records {
        builder.add(record);
        if let Some(survived) = survived.filter(|_| record.binding.is_bound()) {
            builder.add_survivors(&record.route, survived);
        }
    }
    // Without followed allocations, background memory is unknown and not zero.
    let counted = !is_rss_only(capture);
    let [background, ambiguous] = unbound(&windows.unbound).map(|sum| counted.then_some(sum));
    let mut table = builder.build(background, ambiguous);
    estimate::fill_in(capture, &mut table);
    Some(Requests {
        table,
        left_behind: left_behind::rows(windows, stacks),
    })
}

/// Adds up the background and ambiguous memory of all processes, as the recorder saw it last.
fn unbound(written: &[UnboundAt]) -> [Unbound; 2] {
    let mut last: HashMap<ProcessNumber, ProcessUnbound> = HashMap::new();
    last.extend(written.iter().map(|at| (at.unbound.process, at.unbound)));
    let [mut background, mut ambiguous] = [Unbound::default(); 2];
    for process in last.values() {
        background.add(process.background);
        ambiguous.add(process.ambiguous);
    }
    [background, ambiguous]
}

/// Tells what a window adds to the sums of its route. The table of routes adds up the same.
fn left(record: &WindowRecord, survived: Option<Amount>) -> [(Stage, Option<Amount>); 2] {
    let is_bound = record.binding.is_bound();
    let is_closed = record.end != WindowEnd::StillOpen;
    [
        (
            Stage::Retained,
            (is_bound && is_closed).then_some(record.retained),
        ),
        (Stage::Survivors, survived.filter(|_| is_bound)),
    ]
}
