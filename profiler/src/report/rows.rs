//! The rows of a report: stacks, each with the amount that the report counts.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use crate::profile::{
    Figures, FrameId, LeftProfile, MappingOwner, MappingProfile, Profile, StackProfile, Walk,
};
use crate::report::{Measure, Options};
use crate::requests::record::{Amount, Stage};
use crate::requests::route::Route;

/// One stack, and how much of the counted memory is its.
pub(super) struct Row<'a> {
    /// Indices into [`Profile::targets`]. None stands for an unknown process. One index only, where
    /// processes are told apart.
    pub targets: BTreeSet<Option<usize>>,
    /// Whether the report tells processes apart.
    pub by_process: bool,
    /// The route of the requests, where the report shows those of several routes.
    pub route: Option<&'a Route>,
    /// The frames, leaf first.
    pub frames: &'a [FrameId],
    pub amount: Amount,
    /// The part of `amount` that is apportioned to the stack.
    pub estimated: Amount,
    /// Whether the whole stack is known.
    pub whole: bool,
}

/// Lists all stacks, with the most bytes first. Stacks of several processes that read the same are
/// one row, unless the report tells processes apart.
pub(super) fn rows<'a>(profile: &'a Profile, shown: Options<'a>) -> Vec<Row<'a>> {
    let by_process = shown.by_process && profile.targets.len() > 1;
    match shown.by.stage() {
        Some(stage) => {
            let several = shown.route.is_none();
            let left = left_behind(profile, stage, shown.route);
            merged(left.map(|left| of_requests(left, several)), by_process)
        }
        None => {
            let stacks = profile.tier(shown.tier).iter();
            merged(stacks.map(|stack| of_stack(stack, shown.by)), by_process)
        }
    }
}

/// Lists the stacks that mapped memory for anything but an allocator's blocks, in the same form.
pub(super) fn mapped<'a>(profile: &'a Profile, shown: Options<'a>) -> Vec<Row<'a>> {
    let by_process = shown.by_process && profile.targets.len() > 1;
    let mappings = profile.mappings.iter();
    let own = mappings.filter(|mapping| mapping.owner != MappingOwner::Allocator);
    let row = |mapping: &'a MappingProfile| {
        let amount = amount(&mapping.figures, shown.by);
        Row::of(mapping.target, &mapping.frames, amount)
    };
    merged(own.map(row), by_process)
}

/// Finds what requests left behind at a stage: requests of `route`, or of all routes.
pub(super) fn left_behind<'a>(
    profile: &'a Profile,
    stage: Stage,
    route: Option<&'a Route>,
) -> impl Iterator<Item = &'a LeftProfile> {
    let requests = profile.requests.iter();
    let all = requests.flat_map(|requests| &requests.left_behind);
    all.filter(move |left| left.stage == stage && route.is_none_or(|route| left.route == *route))
}

/// Adds up all rows.
pub(super) fn total(rows: &[Row<'_>]) -> Amount {
    sum(rows.iter().map(|row| row.amount))
}

/// Tells how much of the counted memory has a stack of its own, as `97.3 %`. None when all of it
/// has.
pub(super) fn walked_share(rows: &[Row<'_>]) -> Option<String> {
    let whole = rows.iter().filter(|row| row.whole);
    let walked = sum(whole.map(|row| row.amount.minus(row.estimated))).bytes;
    let all = total(rows).bytes;
    // The share is rounded down, because 100 % would say that nothing is estimated.
    let per_mille = u128::from(walked) * 1000 / u128::from(all.max(1));
    (walked < all).then(|| format!("{}.{} %", per_mille / 10, per_mille % 10))
}

pub(super) fn sum(amounts: impl Iterator<Item = Amount>) -> Amount {
    amounts.fold(Amount::default(), |mut sum, amount| {
        sum.add(amount);
        sum
    })
}

impl<'a> Row<'a> {
    fn of(target: Option<usize>, frames: &'a [FrameId], amount: Amount) -> Self {
        Self {
            targets: BTreeSet::from([target]),
            by_process: false,
            route: None,
            frames,
            amount,
            estimated: Amount::default(),
            whole: true,
        }
    }
}

fn amount(figures: &Figures, by: Measure) -> Amount {
    Amount {
        bytes: by.bytes(figures),
        objects: by.objects(figures),
    }
}

fn of_stack(stack: &StackProfile, by: Measure) -> Row<'_> {
    Row {
        estimated: amount(&stack.estimated, by),
        whole: !stack.shallow,
        ..Row::of(stack.target, &stack.frames, amount(&stack.figures, by))
    }
}

fn of_requests(left: &LeftProfile, several_routes: bool) -> Row<'_> {
    Row {
        route: several_routes.then_some(&left.route),
        estimated: left.estimated,
        whole: left.walk == Walk::Whole,
        ..Row::of(left.target, &left.frames, left.amount)
    }
}

/// Makes one row for each stack, with the most bytes first. A row does not name a process that
/// holds none of the counted memory.
fn merged<'a>(all: impl Iterator<Item = Row<'a>>, by_process: bool) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    let mut places = HashMap::new();
    for mut row in all.filter(|row| row.amount != Amount::default()) {
        let process = by_process.then(|| row.targets.clone());
        let key = (process, row.route, row.frames, row.whole);
        let place = *places.entry(key).or_insert(rows.len());
        match rows.get_mut(place) {
            Some(known) => {
                known.targets.append(&mut row.targets);
                known.amount.add(row.amount);
                known.estimated.add(row.estimated);
            }
            None => rows.push(Row { by_process, ..row }),
        }
    }
    rows.sort_by_key(|row| Reverse(row.amount.bytes));
    rows
}
