//! Requests by route, each route with the stacks that hold most of what survived its requests.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::{FrameObject, frames};
use crate::profile::{FrameId, Profile, Walk};
use crate::report::rows::{left_behind, sum};
use crate::requests::record::{Amount, Stage};
use crate::requests::table::RouteRow;

/// How many stacks a route lists. The other formats list all.
const TOP_STACKS: usize = 5;

/// A route. `survivors` is what `stacks`, `further_stacks` and `without_stack` add up to.
/// `survivors` is null while the grace of no request is over.
#[derive(Serialize)]
pub(super) struct RouteObject<'a> {
    #[serde(flatten)]
    row: &'a RouteRow,
    survivors: Option<Amount>,
    stacks: Vec<SurvivorsObject<'a>>,
    further_stacks: Amount,
    without_stack: Amount,
}

#[derive(Serialize)]
struct SurvivorsObject<'a> {
    frames: Vec<FrameObject<'a>>,
    #[serde(flatten)]
    amount: Amount,
    estimated: Amount,
    shallow: bool,
}

pub(super) fn routes(profile: &Profile) -> Vec<RouteObject<'_>> {
    let requests = profile.requests.iter();
    let rows = requests.flat_map(|requests| &requests.table.routes);
    rows.map(|row| route(profile, row)).collect()
}

fn route<'a>(profile: &'a Profile, row: &'a RouteRow) -> RouteObject<'a> {
    let survivors = || left_behind(profile, Stage::Survivors, Some(&row.route));
    let missed = survivors().filter(|left| left.walk == Walk::Missed);
    let without_stack = sum(missed.map(|left| left.amount));
    let stacks = by_stack(profile, row);
    let (top, further) = stacks.split_at(stacks.len().min(TOP_STACKS));
    let object = |stack: &Survivors<'a>| SurvivorsObject {
        frames: frames(profile, stack.frames),
        amount: stack.amount,
        estimated: stack.estimated,
        shallow: stack.walk == Walk::Shallow,
    };
    let total = sum(survivors().map(|left| left.amount));
    let is_known = row.survivor_bytes_per_request.is_some() || total != Amount::default();
    RouteObject {
        row,
        survivors: is_known.then_some(total),
        stacks: top.iter().map(object).collect(),
        further_stacks: sum(further.iter().map(|stack| stack.amount)),
        without_stack,
    }
}

struct Survivors<'a> {
    frames: &'a [FrameId],
    walk: Walk,
    amount: Amount,
    estimated: Amount,
}

/// Adds up the survivors by stack, over all processes and statuses, with the most bytes first.
fn by_stack<'a>(profile: &'a Profile, row: &'a RouteRow) -> Vec<Survivors<'a>> {
    let mut stacks: HashMap<(&[FrameId], Walk), Survivors<'a>> = HashMap::new();
    let all = left_behind(profile, Stage::Survivors, Some(&row.route));
    for left in all.filter(|left| left.walk != Walk::Missed) {
        let key = (&left.frames[..], left.walk);
        let stack = stacks.entry(key).or_insert(Survivors {
            frames: &left.frames,
            walk: left.walk,
            amount: Amount::default(),
            estimated: Amount::default(),
        });
        stack.amount.add(left.amount);
        stack.estimated.add(left.estimated);
    }
    let mut stacks: Vec<_> = stacks.into_values().collect();
    stacks.sort_by_key(|stack| (Reverse(stack.amount.bytes), stack.frames, stack.walk));
    stacks
}
