//! What requests left behind, by stack.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::share::{Share, share_out};
use super::{LeftProfile, Walk, left};
use crate::capture::Windows;
use crate::ids::{ProcessNumber, StackId};
use crate::profile::FrameId;
use crate::profile::stacks::Stacks;
use crate::requests::record::{Amount, LeftBehind, Stage};
use crate::requests::route::Route;

/// The marker of memory whose stack was gone when the recorder looked at stacks. Mostly, the
/// process had freed the memory within that second.
const MISSED: &str = "[stack not looked at in time]";

/// The key of requests that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Group {
    pub stage: Stage,
    pub route: Route,
    pub status: Option<u16>,
    pub process: ProcessNumber,
}

impl Group {
    fn of(left: &LeftBehind) -> Self {
        Self {
            stage: left.stage,
            route: left.route.row(),
            status: left.status,
            process: left.process,
        }
    }
}

/// Makes one row for each stack, route, status and process, with the most bytes first.
pub(super) fn rows(windows: &Windows, stacks: &mut Stacks<'_>) -> Vec<LeftProfile> {
    let found = windows.left_behind.iter();
    let found: Vec<_> = found
        .map(|left| (Group::of(left), left.stack, left.amount))
        .collect();
    let missed = missed(windows, &found);
    let mut rows = Rows::default();
    for share in share_out(found, stacks) {
        let (_, frames) = stacks.symbolized(share.stack);
        rows.add(share, frames, stacks);
    }
    for (group, amount) in missed {
        let share = Share::exact(group, StackId::UNKNOWN, amount, Walk::Missed);
        let frames = vec![stacks.marker(MISSED)];
        rows.add(share, frames, stacks);
    }
    rows.sorted()
}

/// Tells how much windows count beyond what the recorder found by stack.
fn missed(windows: &Windows, found: &[(Group, StackId, Amount)]) -> HashMap<Group, Amount> {
    let mut counted: HashMap<Group, Amount> = HashMap::new();
    for (record, survived) in &windows.records {
        for (stage, amount) in left(record, *survived) {
            let group = Group {
                stage,
                route: record.route.row(),
                status: record.status,
                process: record.process,
            };
            counted
                .entry(group)
                .or_default()
                .add(amount.unwrap_or_default());
        }
    }
    for (group, _, amount) in found {
        if let Some(counted) = counted.get_mut(group) {
            *counted = counted.minus(*amount);
        }
    }
    counted.retain(|_, rest| *rest != Amount::default());
    counted
}

/// Rows by what a reader sees of them: stacks that read the same are one row.
#[derive(Default)]
struct Rows(HashMap<(Group, Walk, Vec<FrameId>), LeftProfile>);

impl Rows {
    fn add(&mut self, share: Share, frames: Vec<FrameId>, stacks: &Stacks<'_>) {
        let Share {
            group,
            stack: _,
            amount,
            estimated,
            walk,
        } = share;
        let row = self.0.entry((group.clone(), walk, frames.clone()));
        let row = row.or_insert_with(|| LeftProfile {
            stage: group.stage,
            route: group.route,
            status: group.status,
            target: stacks.target(group.process),
            frames,
            amount: Amount::default(),
            estimated: Amount::default(),
            walk,
        });
        row.amount.add(amount);
        row.estimated.add(estimated);
    }

    fn sorted(self) -> Vec<LeftProfile> {
        let mut rows: Vec<_> = self.0.into_iter().collect();
        rows.sort_by(|(a_key, a), (b_key, b)| {
            let size = |row: &LeftProfile| Reverse((row.amount.bytes, row.amount.objects));
            size(a).cmp(&size(b)).then_with(|| a_key.cmp(b_key))
        });
        rows.into_iter().map(|(_, row)| row).collect()
    }
}
