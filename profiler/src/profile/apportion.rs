//! From totals to what each stack counts, when not every stack was walked.
//!
//! What was not walked counts for its shallow context. It is apportioned among the stacks that belong
//! to that context, as what was walked is distributed among them: walks are a plain sample of a
//! context's allocations, so no weights are needed. To the byte: what goes in comes out.

use std::collections::HashMap;

use residue_ebpf::abi::heap::{StackKind, StackTotals};

use crate::capture::{Figures, Stack};

/// What one stack counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Everything.
    pub figures: Figures,
    /// What of it was apportioned to the stack.
    pub estimated: Figures,
    /// Bytes that were allocated but not tracked.
    pub lost_bytes: u64,
    /// Allocations that were not tracked.
    pub lost_objects: u64,
    /// Whether it is a shallow context of which no stack was walked.
    pub shallow: bool,
}

/// What each stack counts, in the order of their ids. A context is there only if no stack of it was
/// walked.
pub(super) fn apportion(stacks: &[Stack], totals: &[(u32, StackTotals)]) -> Vec<(u32, Counted)> {
    let stacks: HashMap<u32, &Stack> = stacks.iter().map(|stack| (stack.id, stack)).collect();
    let is_context = |id: &u32| {
        let stack = stacks.get(id);
        stack.is_some_and(|stack| stack.kind == StackKind::Context)
    };
    let all = totals.iter().map(|(id, totals)| (*id, exact(totals)));
    let (contexts, mut counted): (Vec<_>, Vec<_>) = all.partition(|(id, _)| is_context(id));
    let mut members: HashMap<u32, Vec<usize>> = HashMap::new();
    for (index, (id, it)) in counted.iter().enumerate() {
        let context = stacks.get(id).map_or(0, |stack| stack.context);
        if context != 0 && it.figures.alloc_objects > 0 {
            members.entry(context).or_default().push(index);
        }
    }
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

/// The kernel's counters are read one after the other while the target runs, so a free may be seen
/// whose allocation is not.
fn exact(totals: &StackTotals) -> Counted {
    Counted {
        figures: Figures {
            inuse_bytes: totals.alloc_bytes.saturating_sub(totals.freed_bytes),
            inuse_objects: totals.alloc_objects.saturating_sub(totals.freed_objects),
            alloc_bytes: totals.alloc_bytes,
            alloc_objects: totals.alloc_objects,
        },
        lost_bytes: totals.lost_bytes,
        lost_objects: totals.lost_objects,
        ..Counted::default()
    }
}

/// Adds what a context counts to the stacks that belong to it.
fn share_out(own: Counted, members: &[usize], counted: &mut [(u32, Counted)]) {
    let weights = |of: fn(&Figures) -> u64| -> Vec<u64> {
        let figures = members.iter().map(|index| &counted[*index].1.figures);
        figures.map(of).collect()
    };
    let alloc_bytes = weights(|figures| figures.alloc_bytes);
    let alloc_objects = weights(|figures| figures.alloc_objects);
    // Of a context whose walked blocks are all free again, nothing else tells whose the others are.
    let or = |weights: Vec<u64>, other: &[u64]| match weights.iter().all(|weight| *weight == 0) {
        true => other.to_vec(),
        false => weights,
    };
    let inuse_bytes = or(weights(|figures| figures.inuse_bytes), &alloc_bytes);
    let inuse_objects = or(weights(|figures| figures.inuse_objects), &alloc_objects);
    let alloc_bytes = or(alloc_bytes, &alloc_objects);
    let inuse_bytes = or(inuse_bytes, &alloc_objects);
    let figures = own.figures;
    let shares = [
        in_proportion(figures.inuse_bytes, &inuse_bytes),
        in_proportion(figures.inuse_objects, &inuse_objects),
        in_proportion(figures.alloc_bytes, &alloc_bytes),
        in_proportion(figures.alloc_objects, &alloc_objects),
        in_proportion(own.lost_bytes, &alloc_bytes),
        in_proportion(own.lost_objects, &alloc_objects),
    ];
    for (place, index) in members.iter().enumerate() {
        let [
            inuse_bytes,
            inuse_objects,
            alloc_bytes,
            alloc_objects,
            lost_bytes,
            lost_objects,
        ] = shares.each_ref().map(|share| share[place]);
        let share = Figures {
            inuse_bytes,
            inuse_objects,
            alloc_bytes,
            alloc_objects,
        };
        let (_, counted) = &mut counted[*index];
        counted.figures.add(share);
        counted.estimated.add(share);
        counted.lost_bytes = counted.lost_bytes.saturating_add(lost_bytes);
        counted.lost_objects = counted.lost_objects.saturating_add(lost_objects);
    }
}

/// Divides `whole` so that the parts are to each other as the weights, as far as whole numbers can be,
/// and add up to it. Not all weights may be zero.
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
        // At most `whole`, since the weight so far is at most the sum.
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

    fn stack(id: u32, kind: StackKind, context: u32) -> Stack {
        Stack {
            id,
            process: 0,
            frames: Vec::new(),
            left_out: 0,
            end: WalkEnd::Bottom,
            kind,
            context,
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

    /// Context 1 with the stacks 2 and 3.
    fn stacks() -> [Stack; 3] {
        [
            stack(1, StackKind::Context, 0),
            stack(2, StackKind::Full, 1),
            stack(3, StackKind::Full, 1),
        ]
    }

    #[test]
    fn what_was_not_walked_is_divided_as_what_was() {
        let totals = [
            (1, totals(100, 60, 10)),
            (2, totals(3, 0, 10)),
            (3, totals(9, 8, 10)),
        ];
        let counted = apportion(&stacks(), &totals);
        let [(2, two), (3, three)] = counted[..] else {
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
            (1, totals(100, 60, 10)),
            (2, totals(3, 3, 10)),
            (3, totals(9, 9, 10)),
        ];
        let counted = apportion(&stacks(), &totals);
        let inuse: Vec<_> = counted
            .iter()
            .map(|(_, it)| it.estimated.inuse_objects)
            .collect();
        assert_eq!(inuse, [10, 30]);
    }

    #[test]
    fn a_context_of_which_nothing_was_walked_counts_by_itself() {
        let counted = apportion(&stacks(), &[(1, totals(4, 1, 10)), (7, totals(1, 0, 1))]);
        let [(1, context), (7, unknown)] = counted[..] else {
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
