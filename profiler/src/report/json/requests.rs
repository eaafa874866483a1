//! Requests by route, each with the stacks that hold the most of what survived them.

use std::collections::HashMap;

use serde::Serialize;

use super::{FrameObject, frames};
use crate::profile::{FrameId, Profile, Walk};
use crate::report::rows::{left_behind, sum};
use crate::window::record::{Amount, Stage};
use crate::window::table::RouteRow;

/// Stacks that a route lists; the other formats have all.
const TOP_STACKS: usize = 5;

/// `survivors` is what `stacks`, `further_stacks` and `without_stack` add up to, and null while no grace is
/// over.
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
    let rows = profile.requests.iter().flat_map(|it| &it.table.routes);
    rows.map(|row| route(profile, row)).collect()
}

fn route<'a>(profile: &'a Profile, row: &'a RouteRow) -> RouteObject<'a> {
    let survivors = || left_behind(profile, Stage::Survivors, Some(&row.route));
    let missed = survivors().filter(|it| it.walk == Walk::Missed);
    let without_stack = sum(missed.map(|it| it.amount));
    let stacks = by_stack(profile, row);
    let (top, further) = stacks.split_at(stacks.len().min(TOP_STACKS));
    let object = |stack: &Survivors<'a>| SurvivorsObject {
        frames: frames(profile, stack.frames),
        amount: stack.amount,
        estimated: stack.estimated,
        shallow: stack.walk == Walk::Shallow,
    };
    let total = sum(survivors().map(|it| it.amount));
    let is_known = row.survivor_bytes_per_request.is_some() || total != Amount::default();
    RouteObject {
        row,
        survivors: is_known.then_some(total),
        stacks: top.iter().map(object).collect(),
        further_stacks: sum(further.iter().map(|it| it.amount)),
        without_stack,
    }
}

struct Survivors<'a> {
    frames: &'a [FrameId],
    walk: Walk,
    amount: Amount,
    estimated: Amount,
}

/// Of all processes and statuses together, most bytes first.
fn by_stack<'a>(profile: &'a Profile, row: &'a RouteRow) -> Vec<Survivors<'a>> {
    let mut stacks: HashMap<(&[FrameId], Walk), Survivors<'a>> = HashMap::new();
    let all = left_behind(profile, Stage::Survivors, Some(&row.route));
    for it in all.filter(|it| it.walk != Walk::Missed) {
        let stack = stacks.entry((&it.frames, it.walk)).or_insert(Survivors {
            frames: &it.frames,
            walk: it.walk,
            amount: Amount::default(),
            estimated: Amount::default(),
        });
        stack.amount.add(it.amount);
        stack.estimated.add(it.estimated);
    }
    let mut stacks: Vec<_> = stacks.into_values().collect();
    stacks.sort_by_key(|it| (std::cmp::Reverse(it.amount.bytes), it.frames, it.walk));
    stacks
}
