//! Turns totals into what each stack counts, when the recorder did not walk every stack.
//!
//! An allocation whose stack was not walked counts for its shallow context. `apportion` divides
//! what a context counts among the stacks that belong to the context, in proportion to what was
//! walked of each. Walks are a plain sample of a context's allocations, so no weights are needed.
//! The shares add up to what went in, to the byte.

use std::collections::HashMap;

use residue_ebpf::abi::heap::{StackKind, StackTotals};

use crate::capture::{Figures, Stack};
use crate::ids::StackId;

/// What one stack counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Everything that the stack counts.
    pub figures: Figures,
    /// The part of `figures` that is apportioned to the stack.
    pub estimated: Figures,
    /// Bytes that the process allocated and the recorder did not track.
    pub lost_bytes: u64,
    /// Allocations that the recorder did not track.
    pub lost_objects: u64,
    /// Whether this is a shallow context of which the recorder walked no stack.
    pub shallow: bool,
}

/// Tells what each stack counts, in the order of stack ids. A context is in the result only if the
/// recorder walked none of its stacks.
pub(super) fn apportion(
    stacks: &[Stack],
    totals: &[(StackId, StackTotals)],
) -> Vec<(StackId, Counted)> {
    let stacks: HashMap<StackId, &Stack> = stacks.iter().map(|stack| (stack.id, stack)).collect();
    let is_context = |id: &StackId| {
        let stack = stacks.get(id);
        stack.is_some_and(|stack| stack.kind == StackKind::Context)
    };
    let all = totals.iter().map(|(id, totals)| (*id, exact(totals)));
    let (contexts, mut counted): (Vec<_>, Vec<_>) = all.partition(|(id, _)| is_context(id));
    let members = members(&counted, &stacks);
    for (id, own) in contexts {
        match members.get(&id) {
            Some(members) => share_out(own, members, &mut counted),
            None => counted.push((
                id,
                Counted {
                    shallow: true,
                    ..own
                },
            )),
        }
    }
    counted.sort_unstable_by_key(|(id, _)| *id);
    counted
}

/// Finds the walked stacks of each context, as indices into `counted`.
fn members(
    counted: &[(StackId, Counted)],
    stacks: &HashMap<StackId, &Stack>,
) -> HashMap<StackId, Vec<usize>> {
    let mut members: HashMap<StackId, Vec<usize>> = HashMap::new();
    for (index, (id, counted)) in counted.iter().enumerate() {
        let context = stacks.get(id).and_then(|stack| stack.context);
        if let Some(context) = context.filter(|_| counted.figures.alloc_objects > 0) {
            members.entry(context).or_default().push(index);
        }
    }
    members
}

/// Turns the kernel's totals into figures. The kernel updates its counters one after the other
/// while the target runs, so a reader may see a free and not yet the allocation.
fn exact(totals: &StackTotals) -> Counted {
    Counted {
        figures: Figures {
            inuse_bytes: totals.outstanding_bytes(),
            inuse_objects: totals.outstanding_objects(),
            alloc_bytes: totals.alloc_bytes,
            alloc_objects: totals.alloc_objects,
        },
        lost_bytes: totals.lost_bytes,
        lost_objects: totals.lost_objects,
        ..Counted::default()
    }
}

/// Adds what a context counts to the stacks that belong to the context.
fn share_out(own: Counted, members: &[usize], counted: &mut [(StackId, Counted)]) {
    let walked = members.iter().map(|index| counted[*index].1.figures);
    let walked: Vec<Figures> = walked.collect();
    for (index, share) in members.iter().zip(shares(own, &walked)) {
        let (_, counted) = &mut counted[*index];
        counted.figures.add(share.figures);
        counted.estimated.add(share.figures);
        counted.lost_bytes = counted.lost_bytes.saturating_add(share.lost_bytes);
        counted.lost_objects = counted.lost_objects.saturating_add(share.lost_objects);
    }
}

/// Divides what a context counts, in proportion to what was walked of each of its stacks.
fn shares(mut own: Counted, walked: &[Figures]) -> Vec<Counted> {
    let weights = |of: fn(&Figures) -> u64| -> Vec<u64> { walked.iter().map(of).collect() };
    let alloc_objects = weights(|figures| figures.alloc_objects);
    let alloc_bytes = nonzero_or(weights(|figures| figures.alloc_bytes), &alloc_objects);
    // If all walked blocks are free again, only what was allocated tells whose the others are.
    let inuse_bytes = nonzero_or(weights(|figures| figures.inuse_bytes), &alloc_bytes);
    let inuse_objects = nonzero_or(weights(|figures| figures.inuse_objects), &alloc_objects);
    let mut shares = vec![Counted::default(); walked.len()];
    let mut divide = |field: fn(&mut Counted) -> &mut u64, weights: &[u64]| {
        let parts = in_proportion(*field(&mut own), weights);
        for (share, part) in shares.iter_mut().zip(parts) {
            *field(share) = part;
        }
    };
    divide(|share| &mut share.figures.inuse_bytes, &inuse_bytes);
    divide(|share| &mut share.figures.inuse_objects, &inuse_objects);
    divide(|share| &mut share.figures.alloc_bytes, &alloc_bytes);
    divide(|share| &mut share.figures.alloc_objects, &alloc_objects);
    divide(|share| &mut share.lost_bytes, &alloc_bytes);
    divide(|share| &mut share.lost_objects, &alloc_objects);
    shares
}

/// The weights, or the others if all weights are zero.
pub(super) fn nonzero_or(weights: Vec<u64>, others: &[u64]) -> Vec<u64> {
    match weights.iter().all(|weight| *weight == 0) {
        true => others.to_vec(),
        false => weights,
    }
}

/// Divides `whole` into parts that add up to `whole`, and that are in proportion to the weights as
/// far as whole numbers allow. At least one weight must be above zero.
pub(super) fn in_proportion(whole: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    // Only a damaged capture has weights whose product with `whole` would not fit.
    let shift = u64::BITS.saturating_sub(sum.leading_zeros());
    let weights = weights.iter().map(|weight| u128::from(weight >> shift));
    let sum = weights.clone().sum::<u128>().max(1);
    let mut weight_so_far = 0;
    let mut given = 0;
    let mut part = |weight| {
        weight_so_far += weight;
        // The result is at most `whole`, since the weight so far is at most the sum.
        let up_to_here = (u128::from(whole) * weight_so_far / sum) as u64;
        up_to_here - std::mem::replace(&mut given, up_to_here)
    };
    weights.map(&mut part).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use residue_ebpf::abi::event::WalkEnd;

    use super::*;
    use crate::ids::ProcessNumber;

    fn stack(id: u32, kind: StackKind, context: Option<u32>) -> Stack {
        Stack {
            id: StackId(id),
            process: ProcessNumber(0),
            frames: Vec::new(),
            left_out: 0,
            end: WalkEnd::Bottom,
            kind,
            context: context.map(StackId),
        }
    }

    fn totals(objects: u64, freed: u64, size: u64) -> StackTotals {
        StackTotals {
            alloc_bytes: objects * size,
            alloc_objects: objects,
            freed_bytes: freed * size,
            freed_objects: freed,
            ..StackTotals::default()
        }
    }

    /// Makes context 1 with the stacks 2 and 3.
    fn stacks() -> [Stack; 3] {
        [
            stack(1, StackKind::Context, None),
            stack(2, StackKind::Full, Some(1)),
            stack(3, StackKind::Full, Some(1)),
        ]
    }

    #[test]
    fn what_was_not_walked_is_divided_as_what_was() {
        let totals = [
            (StackId(1), totals(100, 60, 10)),
            (StackId(2), totals(3, 0, 10)),
            (StackId(3), totals(9, 8, 10)),
        ];
        let counted = apportion(&stacks(), &totals);
        let [(StackId(2), two), (StackId(3), three)] = counted[..] else {
            panic!("{counted:?}");
        };
        assert_eq!(two.estimated.alloc_objects, 25);
        assert_eq!(three.estimated.alloc_objects, 75);
        assert_eq!(
            (two.estimated.inuse_objects, three.estimated.inuse_objects),
            (30, 10)
        );
        assert_eq!(two.figures.inuse_bytes, 30 + 300);
    }

    #[test]
    fn what_was_allocated_decides_where_nothing_walked_is_outstanding() {
        let totals = [
            (StackId(1), totals(100, 60, 10)),
            (StackId(2), totals(3, 3, 10)),
            (StackId(3), totals(9, 9, 10)),
        ];
        let counted = apportion(&stacks(), &totals);
        let inuse: Vec<_> = counted
            .iter()
            .map(|(_, counted)| counted.estimated.inuse_objects)
            .collect();
        assert_eq!(inuse, [10, 30]);
    }

    #[test]
    fn a_context_of_which_nothing_was_walked_counts_by_itself() {
        let counted = apportion(
            &stacks(),
            &[
                (StackId(1), totals(4, 1, 10)),
                (StackId(7), totals(1, 0, 1)),
            ],
        );
        let [(StackId(1), context), (StackId(7), unknown)] = counted[..] else {
            panic!("{counted:?}");
        };
        assert!(context.shallow && !unknown.shallow);
        assert_eq!(context.figures.inuse_bytes, 30);
        assert_eq!(context.estimated, Figures::default());
    }

    proptest! {
        #[test]
        fn nothing_is_added_and_nothing_lost(
            whole: u64,
            weights in proptest::collection::vec(0..u64::MAX, 1..20),
        ) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let parts = in_proportion(whole, &weights);
            prop_assert_eq!(parts.iter().map(|part| u128::from(*part)).sum::<u128>(), u128::from(whole));
        }
    }
}
