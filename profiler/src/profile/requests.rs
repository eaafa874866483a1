//! Requests: one row a route, and by stack what they left behind.

mod estimate;
mod left_behind;
mod share;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::capture::{Capture, UnboundAt};
use crate::profile::FrameId;
use crate::profile::build::is_rss_only;
use crate::profile::stacks::Stacks;
use crate::window::record::{Amount, ProcessUnbound, Stage, Unbound, WindowEnd, WindowRecord};
use crate::window::route::Route;
use crate::window::table::{RouteTable, TableBuilder};

/// What requests did and left behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    /// One row a route, with estimates where allocations could not be bound.
    pub table: RouteTable,
    /// What was left behind by stack, most bytes first. Those of one route and stage add up to what its
    /// windows count.
    pub left_behind: Vec<LeftProfile>,
}

/// What requests of one route and status left behind from one symbolized stack of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftProfile {
    /// When it was looked at.
    pub stage: Stage,
    /// Whose requests.
    pub route: Route,
    /// Of their responses.
    pub status: Option<u16>,
    /// Index into [`super::Profile::targets`]; none when the process is not known.
    pub target: Option<usize>,
    /// Leaf first.
    pub frames: Vec<FrameId>,
    /// How much.
    pub amount: Amount,
    /// How much of that was apportioned to the stack.
    pub estimated: Amount,
    /// How much of the stack is known.
    pub walk: Walk,
}

/// How much of a stack is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Walk {
    /// It was walked.
    Whole,
    /// These are only the first frames of stacks none of which was walked.
    Shallow,
    /// Nothing: it was gone, or not there yet, when stacks were looked at.
    Missed,
}

/// None where no windows were recorded.
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
    // Nobody counted what nobody followed.
    let counted = !is_rss_only(capture);
    let [background, ambiguous] = unbound(&windows.unbound).map(|it| counted.then_some(it));
    let mut table = builder.build(background, ambiguous);
    estimate::fill_in(capture, &mut table);
    Some(Requests {
        table,
        left_behind: left_behind::rows(windows, stacks),
    })
}

/// Background and ambiguous memory of all processes together, as it was last.
fn unbound(written: &[UnboundAt]) -> [Unbound; 2] {
    let mut last: HashMap<u16, ProcessUnbound> = HashMap::new();
    last.extend(written.iter().map(|it| (it.unbound.process, it.unbound)));
    let [mut background, mut ambiguous] = [Unbound::default(); 2];
    for process in last.values() {
        background.add(process.background);
        ambiguous.add(process.ambiguous);
    }
    [background, ambiguous]
}

/// What the window counts for in the sums of its route: as much as in the table.
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
