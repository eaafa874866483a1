//! From what was found by stack to what each stack counts, when not every stack was walked.
//!
//! As for totals ([`crate::profile`]'s apportioning), what was not walked is shared out among the stacks of
//! the same shallow context as what was walked is distributed. But only among stacks of the same route: a
//! handler that another route's requests called is none of theirs. A context of which the route's
//! requests had no stack walked stays what it is, and is shown as its first frames.

use std::collections::HashMap;

use residue_ebpf::abi::heap::StackKind;

use super::Walk;
use super::left_behind::Group;
use crate::profile::apportion::in_proportion;
use crate::profile::stacks::Stacks;
use crate::window::record::{Amount, Stage};
use crate::window::route::Route;

/// What requests of a group left behind from one stack.
pub(super) struct Share {
    pub group: Group,
    pub stack: u32,
    pub amount: Amount,
    /// What of it was apportioned to the stack.
    pub estimated: Amount,
    pub walk: Walk,
}

/// A context, and whose requests it is seen in.
type Key = (Stage, Route, u32);
/// Stacks that were walked, each with the requests it was walked in.
type Members = HashMap<Key, Vec<(Group, u32, Amount)>>;

pub(super) fn share_out(found: Vec<(Group, u32, Amount)>, stacks: &Stacks<'_>) -> Vec<Share> {
    let is_context = |(_, stack, _): &(_, u32, _)| stacks.kind(*stack) == StackKind::Context;
    let (contexts, walked): (Vec<_>, Vec<_>) = found.into_iter().partition(is_context);
    let mut members = Members::new();
    for member in &walked {
        let (group, stack, _) = member;
        if let Some(context) = stacks.context(*stack) {
            let key = (group.stage, group.route.clone(), context);
            members.entry(key).or_default().push(member.clone());
        }
    }
    let exact = |(group, stack, amount)| Share {
        group,
        stack,
        amount,
        estimated: Amount::default(),
        walk: Walk::Whole,
    };
    let mut shares: Vec<_> = walked.into_iter().map(exact).collect();
    for (group, context, amount) in contexts {
        let of_context = members.get(&(group.stage, group.route.clone(), context));
        let weights = of_context.map_or_else(Vec::new, |members| weights(members, &group));
        shares.extend(parts(group, context, amount, &weights));
    }
    shares
}

/// The stacks that were walked in requests of the group, or else in any of the route.
fn weights(members: &[(Group, u32, Amount)], group: &Group) -> Vec<(u32, Amount)> {
    let of_group = members.iter().filter(|(it, ..)| it == group);
    let of_group: Vec<_> = of_group.map(|(_, stack, it)| (*stack, *it)).collect();
    if of_group.is_empty() {
        members.iter().map(|(_, stack, it)| (*stack, *it)).collect()
    } else {
        of_group
    }
}

fn parts(group: Group, context: u32, amount: Amount, weights: &[(u32, Amount)]) -> Vec<Share> {
    let objects: Vec<_> = weights.iter().map(|(_, it)| it.objects).collect();
    if objects.iter().all(|it| *it == 0) {
        return vec![Share {
            group,
            stack: context,
            amount,
            estimated: Amount::default(),
            walk: Walk::Shallow,
        }];
    }
    let bytes: Vec<_> = weights.iter().map(|(_, it)| it.bytes).collect();
    // Blocks of no size have a stack, too.
    let bytes = match bytes.iter().all(|it| *it == 0) {
        true => &objects,
        false => &bytes,
    };
    let bytes = in_proportion(amount.bytes, bytes);
    let objects = in_proportion(amount.objects, &objects);
    let amounts = bytes.into_iter().zip(objects);
    let parts = amounts.zip(weights).map(|((bytes, objects), (stack, _))| {
        let part = Amount { bytes, objects };
        Share {
            group: group.clone(),
            stack: *stack,
            amount: part,
            estimated: part,
            walk: Walk::Whole,
        }
    });
    parts.filter(|it| it.amount != Amount::default()).collect()
}
