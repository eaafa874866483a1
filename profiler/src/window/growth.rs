//! Whether what a route's requests leave behind goes on growing, from the last of them whose grace is over.
//!
//! One rule, with its evidence, and no verdict: of three runs of five requests each, one after the other, every run
//! has left something behind, and the last no less than half of what the first did. What a route keeps once, as it
//! warms up, falls out of that; a cache that takes a new entry for an old one does not, since what was freed after
//! the grace is not seen.

use std::collections::VecDeque;

use serde::Serialize;

/// Requests of a run.
const RUN: usize = 5;
/// Requests that the rule looks at.
const LOOKED_AT: usize = 3 * RUN;
/// Requests within their grace whose retention is kept. A worker has some tens; beyond, the oldest is forgotten.
const MAX_WAITING: usize = 1024;

/// What the last requests of a route left behind.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// What those retained whose grace is not over, in the order in which they closed, bytes.
    waiting: VecDeque<u64>,
    /// The last whose grace is over.
    past: VecDeque<Past>,
}

/// A request whose grace is over; bytes.
#[derive(Clone, Copy, Debug)]
struct Past {
    retained: u64,
    survived: u64,
}

/// What makes a route suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The last requests whose grace was over.
    pub requests: u64,
    /// Those of them that left something behind.
    pub left: u64,
    /// What they left behind, all together.
    pub bytes: u64,
}

impl Evidence {
    /// Mean of those that left something.
    #[must_use]
    pub fn bytes_each(self) -> u64 {
        self.bytes / self.left.max(1)
    }
}

/// What is known of a route by the requests before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Why it is suspected, if it is.
    pub evidence: Option<Evidence>,
    /// The most that any of the last requests retained, where nothing of any of them survived, bytes: as much is gone
    /// some requests later. None where anything survived, or too little is known.
    pub passing: Option<u64>,
}

impl Growth {
    /// A request is over, and has retained so many bytes.
    pub fn closed(&mut self, retained: u64) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(retained);
    }

    /// The grace of one is over, and so many bytes survived. Requests mostly come here in the order in which they
    /// closed.
    pub fn past_grace(&mut self, survived: u64) {
        if self.past.len() == LOOKED_AT {
            self.past.pop_front();
        }
        let retained = self.waiting.pop_front().unwrap_or_default();
        self.past.push_back(Past { retained, survived });
    }

    /// What the last requests tell.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            evidence: self.evidence(),
            passing: self.passing(),
        }
    }

    fn evidence(&self) -> Option<Evidence> {
        if self.past.len() < LOOKED_AT {
            return None;
        }
        let survived: Vec<u64> = self.past.iter().map(|it| it.survived).collect();
        let sum = |of: &[u64]| of.iter().fold(0u64, |sum, it| sum.saturating_add(*it));
        let runs: Vec<u64> = survived.chunks(RUN).map(sum).collect();
        let goes_on = runs.iter().all(|it| *it > 0) && runs.last()? >= &(runs.first()? / 2);
        goes_on.then(|| Evidence {
            requests: survived.len() as u64,
            left: survived.iter().filter(|it| **it > 0).count() as u64,
            bytes: sum(&survived),
        })
    }

    fn passing(&self) -> Option<u64> {
        let none_survived = self.past.iter().all(|it| it.survived == 0);
        let retained = self.past.iter().map(|it| it.retained);
        retained
            .max()
            .filter(|_| none_survived && self.past.len() >= RUN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(requests: impl IntoIterator<Item = (u64, u64)>) -> Known {
        let mut growth = Growth::default();
        for (retained, survived) in requests {
            growth.closed(retained);
            growth.past_grace(survived);
        }
        growth.known()
    }

    #[test]
    fn what_every_request_leaves_is_suspected_once_three_runs_have_shown_it() {
        assert_eq!(of(vec![(100, 100); 14]).evidence, None);
        let evidence = Evidence {
            requests: 15,
            left: 15,
            bytes: 1500,
        };
        assert_eq!(of(vec![(100, 100); 15]).evidence, Some(evidence));
        assert_eq!(evidence.bytes_each(), 100);
    }

    #[test]
    fn what_only_some_requests_leave_is_suspected_as_well() {
        let some = (0..40).map(|it| (2800, if it % 4 == 0 { 64 } else { 0 }));
        let evidence = of(some).evidence.expect("every fourth left something");
        assert_eq!((evidence.left, evidence.bytes), (3, 192));
    }

    #[test]
    fn a_route_of_which_nothing_survives_is_not_suspected_and_what_it_retains_passes() {
        let known = of((0..100).map(|it| (2800 + it % 3, 0)));
        assert_eq!(known.evidence, None);
        assert_eq!(known.passing, Some(2802));
        assert_eq!(of(vec![(2800, 0); 4]).passing, None, "too few");
    }

    #[test]
    fn warming_up_is_not_suspected() {
        let warm = |it: u64| if it < 12 { 10_000 >> it } else { 0 };
        for requests in 0..60 {
            assert_eq!(of((0..requests).map(|it| (9, warm(it)))).evidence, None);
        }
    }

    #[test]
    fn suspicion_ends_when_nothing_more_is_left() {
        let left = std::iter::repeat_n((100, 100), 30);
        let then = std::iter::repeat_n((100, 0), 5);
        let known = of(left.chain(then));
        assert_eq!((known.evidence, known.passing), (None, None));
    }

    #[test]
    fn absurd_numbers_and_any_count_of_requests_are_borne() {
        assert!(of(vec![(u64::MAX, u64::MAX); 20]).evidence.is_some());
        let mut growth = Growth::default();
        (0..5000).for_each(|it| growth.closed(it));
        assert_eq!(growth.waiting.len(), MAX_WAITING);
        (0..5000).for_each(|_| growth.past_grace(0));
        assert_eq!(growth.past.len(), LOOKED_AT);
    }
}
