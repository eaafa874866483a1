//! Turns what the recorder found by stack into what each stack counts, when the recorder did not
//! walk every stack.
//!
//! [`crate::profile`] apportions totals in the same way: what was not walked is divided among the
//! walked stacks of the same shallow context, in proportion to what was walked. Here only stacks of
//! the same route take part, because a handler that requests of another route called has nothing to
//! do with this one. If the recorder walked no stack of a context in requests of the route, then
//! the context stays a row of its own, and shows its first frames.

use std::collections::HashMap;

use residue_ebpf::abi::heap::StackKind;

use super::Walk;
use super::left_behind::Group;
use crate::ids::StackId;
use crate::profile::apportion::{in_proportion, nonzero_or};
use crate::profile::stacks::Stacks;
use crate::requests::record::{Amount, Stage};
use crate::requests::route::Route;

/// What requests of a group left behind from one stack.
pub(super) struct Share {
    pub group: Group,
    pub stack: StackId,
    pub amount: Amount,
    /// The part of `amount` that is apportioned to the stack.
    pub estimated: Amount,
    pub walk: Walk,
}

impl Share {
    /// What was counted for the stack itself.
    pub fn exact(group: Group, stack: StackId, amount: Amount, walk: Walk) -> Self {
        Self {
            group,
            stack,
            amount,
            estimated: Amount::default(),
            walk,
        }
    }
}

/// A context, with the stage and the route of the requests that the recorder saw it in.
type Key = (Stage, Route, StackId);
/// The walked stacks of each context, each with the requests in which the recorder walked it.
type Members = HashMap<Key, Vec<(Group, StackId, Amount)>>;

pub(super) fn share_out(found: Vec<(Group, StackId, Amount)>, stacks: &Stacks<'_>) -> Vec<Share> {
    let is_context = |(_, stack, _): &(_, StackId, _)| stacks.kind(*stack) == StackKind::Context;
    let (contexts, walked): (Vec<_>, Vec<_>) = found.into_iter().partition(is_context);
    let mut members = Members::new();
    for member in &walked {
        let (group, stack, _) = member;
        if let Some(context) = stacks.context(*stack) {
            let key = (group.stage, group.route.clone(), context);
            members.entry(key).or_default().push(member.clone());
        }
    }
    let exact = |(group, stack, amount)| Share::exact(group, stack, amount, Walk::Whole);
    let mut shares: Vec<_> = walked.into_iter().map(exact).collect();
    for (group, context, amount) in contexts {
        let of_context = members.get(&(group.stage, group.route.clone(), context));
        let weights = of_context.map_or_else(Vec::new, |members| weights(members, &group));
        shares.extend(parts(group, context, amount, &weights));
    }
    shares
}

/// Finds the stacks that were walked in requests of the group, or else in any request of the route.
fn weights(members: &[(Group, StackId, Amount)], group: &Group) -> Vec<(StackId, Amount)> {
    let weight = |(_, stack, amount): &(Group, StackId, Amount)| (*stack, *amount);
    let of_group = members.iter().filter(|(member, ..)| member == group);
    let of_group: Vec<_> = of_group.map(weight).collect();
    match of_group.is_empty() {
        true => members.iter().map(weight).collect(),
        false => of_group,
    }
}

fn parts(
    group: Group,
    context: StackId,
    amount: Amount,
    weights: &[(StackId, Amount)],
) -> Vec<Share> {
    let objects: Vec<_> = weights.iter().map(|(_, weight)| weight.objects).collect();
    if objects.iter().all(|objects| *objects == 0) {
        return vec![Share::exact(group, context, amount, Walk::Shallow)];
    }
    let bytes: Vec<_> = weights.iter().map(|(_, weight)| weight.bytes).collect();
    // Blocks of zero bytes have a stack, too.
    let bytes = in_proportion(amount.bytes, &nonzero_or(bytes, &objects));
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
    parts
        .filter(|part| part.amount != Amount::default())
        .collect()
}
