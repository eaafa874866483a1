//! What a report shows: stacks by what is counted, whatever that is.

use std::collections::HashMap;

use crate::profile::{FrameId, LeftProfile, Profile, StackProfile, Walk};
use crate::report::{Measure, Options};
use crate::window::record::{Amount, Stage};
use crate::window::route::Route;

/// One stack, and how much of what is counted is its.
pub(super) struct Row<'a> {
    /// Index into [`Profile::targets`]; none when the process is not known.
    pub target: Option<usize>,
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

/// All stacks, those with the most bytes first.
pub(super) fn rows<'a>(profile: &'a Profile, shown: Options<'a>) -> Vec<Row<'a>> {
    let mut rows = match shown.by.stage() {
        Some(stage) => merged(left_behind(profile, stage, shown.route), shown.route),
        None => {
            let stacks = profile.tier(shown.tier).iter();
            stacks.map(|stack| of_stack(stack, shown.by)).collect()
        }
    };
    rows.sort_by_key(|row| std::cmp::Reverse(row.amount.bytes));
    rows
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

fn of_stack(stack: &StackProfile, by: Measure) -> Row<'_> {
    let amount = |figures| Amount {
        bytes: by.bytes(figures),
        objects: by.objects(figures),
    };
    Row {
        target: stack.target,
        route: None,
        frames: &stack.frames,
        amount: amount(&stack.figures),
        estimated: amount(&stack.estimated),
        whole: !stack.shallow,
    }
}

/// One row a stack, whatever the responses' status; and one a route, unless only one is `wanted`.
fn merged<'a>(
    left_behind: impl Iterator<Item = &'a LeftProfile>,
    wanted: Option<&Route>,
) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    let mut places = HashMap::new();
    for it in left_behind {
        let route = wanted.is_none().then_some(&it.route);
        let place = *places
            .entry((it.target, route, &it.frames[..], it.walk))
            .or_insert(rows.len());
        if place == rows.len() {
            rows.push(Row {
                target: it.target,
                route,
                frames: &it.frames,
                amount: Amount::default(),
                estimated: Amount::default(),
                whole: it.walk == Walk::Whole,
            });
        }
        rows[place].amount.add(it.amount);
        rows[place].estimated.add(it.estimated);
    }
    rows
}
