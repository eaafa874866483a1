//! What a report shows: stacks by what is counted, whatever that is.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use crate::profile::{
    Figures, FrameId, LeftProfile, MappingOwner, MappingProfile, Profile, StackProfile, Walk,
};
use crate::report::{Measure, Options};
use crate::window::record::{Amount, Stage};
use crate::window::route::Route;

/// One stack, and how much of what is counted is its.
pub(super) struct Row<'a> {
    /// Indices into [`Profile::targets`]; none for a process that is not known. One alone where processes are told
    /// apart.
    pub targets: BTreeSet<Option<usize>>,
    /// Whether processes are told apart.
    pub by_process: bool,
    /// Whose requests, where those of several routes are shown.
    pub route: Option<&'a Route>,
    /// Leaf first.
    pub frames: &'a [FrameId],
    pub amount: Amount,
    /// How much of that was apportioned to the stack.
    pub estimated: Amount,
    /// Whether the whole stack is known.
    pub whole: bool,
}

/// All stacks, those with the most bytes first. Those of several processes that read the same are one, unless
/// processes are told apart.
pub(super) fn rows<'a>(profile: &'a Profile, shown: Options<'a>) -> Vec<Row<'a>> {
    let by_process = shown.by_process && profile.targets.len() > 1;
    match shown.by.stage() {
        Some(stage) => {
            let several = shown.route.is_none();
            let left = left_behind(profile, stage, shown.route);
            merged(left.map(|it| of_requests(it, several)), by_process)
        }
        None => {
            let stacks = profile.tier(shown.tier).iter();
            merged(stacks.map(|it| of_stack(it, shown.by)), by_process)
        }
    }
}

/// What stacks have mapped that is not there to hold blocks, in the same form.
pub(super) fn mapped<'a>(profile: &'a Profile, shown: Options<'a>) -> Vec<Row<'a>> {
    let by_process = shown.by_process && profile.targets.len() > 1;
    let mappings = profile.mappings.iter();
    let own = mappings.filter(|it| it.owner != MappingOwner::Allocator);
    let row = |it: &'a MappingProfile| {
        let amount = amount(&it.figures, shown.by);
        Row::of(it.target, &it.frames, amount)
    };
    merged(own.map(row), by_process)
}

/// What requests left behind at a stage: those of `route`, or of all.
pub(super) fn left_behind<'a>(
    profile: &'a Profile,
    stage: Stage,
    route: Option<&'a Route>,
) -> impl Iterator<Item = &'a LeftProfile> {
    let all = profile.requests.iter().flat_map(|it| &it.left_behind);
    all.filter(move |it| it.stage == stage && route.is_none_or(|route| it.route == *route))
}

/// All rows together.
pub(super) fn total(rows: &[Row<'_>]) -> Amount {
    sum(rows.iter().map(|row| row.amount))
}

/// How much of what is counted has a stack of its own, as `97.3 %`; `None` when all of it has.
pub(super) fn walked_share(rows: &[Row<'_>]) -> Option<String> {
    let whole = rows.iter().filter(|row| row.whole);
    let walked = sum(whole.map(|row| row.amount.minus(row.estimated))).bytes;
    let all = total(rows).bytes;
    // Rounded down: 100 % would say that nothing is estimated.
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

fn of_requests(it: &LeftProfile, several_routes: bool) -> Row<'_> {
    Row {
        route: several_routes.then_some(&it.route),
        estimated: it.estimated,
        whole: it.walk == Walk::Whole,
        ..Row::of(it.target, &it.frames, it.amount)
    }
}

/// One row a stack, most bytes first. A process that has nothing of what is counted is none of a row's.
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
