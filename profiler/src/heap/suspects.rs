//! Finds the shallow contexts that seem to grow, so that the kernel side walks each of their stacks. Pure.
//!
//! The memory of a server rises and falls with the requests that are under way. A leak shows in the
//! troughs: the trough of a context is the least that the context held during a period. A context is a
//! *suspect* while its trough has set several new records within a short time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use residue_ebpf::abi::heap::{StackKind, StackTotals};

use crate::ids::StackId;

/// How many reviews make a period: enough that one of the reviews falls between two requests.
const PERIOD: u32 = 4;
/// How many records within [`MEMORY`] make a suspect. The first periods of any recording set one or two
/// records, because the program then allocates what lives long.
const RECORDS: usize = 3;
/// How long a new record counts.
const MEMORY: Duration = Duration::from_secs(20);

/// The shallow contexts, and what each has held so far.
#[derive(Debug, Default)]
pub struct Suspects {
    /// The context of each full stack, by the id of the stack.
    context_of: HashMap<StackId, StackId>,
    contexts: HashMap<StackId, Context>,
    reviews: u32,
}

#[derive(Debug, Default)]
struct Context {
    /// Bytes that are outstanding at this review.
    held: u64,
    /// The least bytes of this period so far.
    trough: Option<u64>,
    /// The highest trough of any period.
    record: u64,
    /// When the last records were set, latest first.
    records: [Option<Instant>; RECORDS],
    suspected: bool,
}

impl Suspects {
    /// Notes a new stack.
    pub fn add_stack(&mut self, id: StackId, kind: StackKind, context: Option<StackId>) {
        match (kind, context) {
            (StackKind::Context, _) => drop(self.contexts.entry(id).or_default()),
            (StackKind::Full, Some(context)) => drop(self.context_of.insert(id, context)),
            _ => {}
        }
    }

    /// Looks at the totals of every stack as of `now`. Returns the contexts that have become suspects, with
    /// `true`, and those that no longer are, with `false`.
    pub fn review(
        &mut self,
        now: Instant,
        totals: &[(StackId, StackTotals)],
    ) -> Vec<(StackId, bool)> {
        for (id, totals) in totals {
            let context = self.context_of.get(id).unwrap_or(id);
            if let Some(context) = self.contexts.get_mut(context) {
                let held = totals.outstanding_bytes();
                context.held = context.held.saturating_add(held);
            }
        }
        self.reviews += 1;
        let is_end_of_period = self.reviews.is_multiple_of(PERIOD);
        let mut changed = Vec::new();
        for (id, context) in &mut self.contexts {
            context.take_held();
            if is_end_of_period && context.end_period(now) {
                changed.push((*id, context.suspected));
            }
        }
        changed
    }
}

impl Context {
    fn take_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.trough = Some(self.trough.map_or(held, |trough| trough.min(held)));
    }

    /// Ends a period. Returns whether the context has become a suspect, or no longer is one.
    fn end_period(&mut self, now: Instant) -> bool {
        let trough = self.trough.take().unwrap_or(0);
        if trough > self.record {
            self.record = trough;
            self.records.rotate_right(1);
            self.records[0] = Some(now);
        }
        let oldest = self.records[RECORDS - 1];
        let suspected = oldest.is_some_and(|at| now.duration_since(at) <= MEMORY);
        std::mem::replace(&mut self.suspected, suspected) != suspected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether context 1 is a suspect after each period. `held` has one entry for each review, every 250 ms: the
    /// bytes that context 1 holds itself, and the bytes that its full stack 2 holds.
    fn suspicion(held: impl IntoIterator<Item = (u64, u64)>) -> Vec<bool> {
        let mut suspects = Suspects::default();
        suspects.add_stack(StackId(1), StackKind::Context, None);
        suspects.add_stack(StackId(2), StackKind::Full, Some(StackId(1)));
        let mut now = Instant::now();
        let mut is_suspected = false;
        let mut after = Vec::new();
        for (own, full) in held {
            now += Duration::from_millis(250);
            let totals = [(1, own), (2, full)].map(|(id, bytes)| {
                let totals = StackTotals {
                    alloc_bytes: bytes + 1000,
                    freed_bytes: 1000,
                    ..StackTotals::default()
                };
                (StackId(id), totals)
            });
            for (context, suspected) in suspects.review(now, &totals) {
                assert_eq!(context, StackId(1));
                is_suspected = suspected;
            }
            after.push(is_suspected);
        }
        after.into_iter().skip(3).step_by(4).collect()
    }

    #[test]
    fn what_grows_is_suspected_in_its_third_period() {
        let leak = suspicion((1..=16).map(|bytes| (0, bytes)));
        assert_eq!(leak, [false, false, true, true]);
        let unwalked = suspicion((1..=16).map(|bytes| (bytes, 0)));
        assert_eq!(unwalked, leak, "wherever it is counted");
    }

    #[test]
    fn what_is_given_back_between_requests_is_not() {
        let busy = [9, 3, 0, 7, 8, 0, 2, 1, 5, 5, 0, 20, 0, 30, 40, 50];
        assert_eq!(suspicion(busy.map(|bytes| (bytes, bytes))), [false; 4]);
    }

    #[test]
    fn a_leak_is_seen_through_the_requests_under_way() {
        let noisy = (0..24).map(|review| (review * 10 + (review * 7919 % 4) * 1000, 0));
        assert!(suspicion(noisy).contains(&true));
    }

    #[test]
    fn a_cache_that_has_filled_is_suspected_no_longer() {
        let filling = (0..200).map(|review: u64| (0, review.min(20) * 1000));
        let suspected = suspicion(filling);
        assert!(suspected[4]);
        assert!(!suspected[49]);
    }

    #[test]
    fn stacks_without_context_are_nobodys() {
        let mut suspects = Suspects::default();
        suspects.add_stack(StackId(3), StackKind::Full, None);
        let totals = StackTotals {
            alloc_bytes: 1,
            ..StackTotals::default()
        };
        let now = Instant::now();
        assert!((0..40).all(|_| suspects.review(now, &[(StackId(3), totals)]).is_empty()));
    }
}
