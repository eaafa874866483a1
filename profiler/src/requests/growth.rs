//! Tells whether what the requests of a route leave behind goes on growing. The rule looks at the
//! last requests whose grace is over.
//!
//! The rule gives its evidence and no verdict. It cuts the last requests into three runs of five.
//! Each run must have left something behind, and the last run at least half as much as the first.
//! The rule does not suspect memory that a route keeps once, as it warms up. It does suspect a
//! cache that replaces old entries, because it does not see what the process frees after the grace.

use std::collections::VecDeque;

use serde::Serialize;

/// How many requests make a run.
const RUN: usize = 5;
/// How many requests the rule looks at.
const LOOKED_AT: usize = 3 * RUN;
/// How many requests within their grace are kept. A worker has a few dozen of them. Beyond this
/// number, the oldest one is dropped.
const MAX_WAITING: usize = 1024;

/// What the last requests of a route left behind.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// Bytes that each request retained whose grace is not over, in the order in which the requests
    /// closed.
    waiting: VecDeque<u64>,
    /// The last requests whose grace is over.
    past: VecDeque<Past>,
}

/// The bytes of a request whose grace is over.
#[derive(Clone, Copy, Debug)]
struct Past {
    retained: u64,
    survived: u64,
}

/// The evidence that makes a route suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The number of requests that the rule looked at: the last ones whose grace was over.
    pub requests: u64,
    /// How many of these requests left something behind.
    pub left: u64,
    /// The bytes that all of these requests together left behind.
    pub bytes: u64,
}

impl Evidence {
    /// Returns the mean over the requests that left something behind.
    #[must_use]
    pub fn bytes_each(self) -> u64 {
        self.bytes / self.left.max(1)
    }
}

/// What the requests before tell about a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Why the route is suspected, if it is.
    pub evidence: Option<Evidence>,
    /// The most bytes that any of the last requests retained, if nothing of any of them survived.
    /// Memory up to that amount is then gone some requests later. None if anything survived, or if
    /// too few requests are known.
    pub passing: Option<u64>,
}

impl Growth {
    /// Takes a request that is over and has retained so many bytes.
    pub fn closed(&mut self, retained: u64) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(retained);
    }

    /// Takes a request whose grace is over and of which so many bytes survived. Requests mostly
    /// come here in the order in which they closed.
    pub fn past_grace(&mut self, survived: u64) {
        if self.past.len() == LOOKED_AT {
            self.past.pop_front();
        }
        let retained = self.waiting.pop_front().unwrap_or_default();
        self.past.push_back(Past { retained, survived });
    }

    /// Tells what is known from the last requests.
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
        let survived: Vec<u64> = self.past.iter().map(|request| request.survived).collect();
        let sum = |run: &[u64]| run.iter().fold(0, |sum: u64, one| sum.saturating_add(*one));
        let runs: Vec<u64> = survived.chunks(RUN).map(sum).collect();
        let goes_on = runs.iter().all(|run| *run > 0) && runs.last()? >= &(runs.first()? / 2);
        goes_on.then(|| Evidence {
            requests: survived.len() as u64,
            left: survived.iter().filter(|bytes| **bytes > 0).count() as u64,
            bytes: sum(&survived),
        })
    }

    fn passing(&self) -> Option<u64> {
        let none_survived = self.past.iter().all(|request| request.survived == 0);
        let retained = self.past.iter().map(|request| request.retained);
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
        let some = (0..40).map(|number| (2800, if number % 4 == 0 { 64 } else { 0 }));
        let evidence = of(some).evidence.expect("every fourth left something");
        assert_eq!((evidence.left, evidence.bytes), (3, 192));
    }

    #[test]
    fn a_route_of_which_nothing_survives_is_not_suspected_and_what_it_retains_passes() {
        let known = of((0..100).map(|number| (2800 + number % 3, 0)));
        assert_eq!(known.evidence, None);
        assert_eq!(known.passing, Some(2802));
        assert_eq!(of(vec![(2800, 0); 4]).passing, None, "too few");
    }

    #[test]
    fn warming_up_is_not_suspected() {
        let warm = |request: u64| if request < 12 { 10_000 >> request } else { 0 };
        for requests in 0..60 {
            assert_eq!(
                of((0..requests).map(|request| (9, warm(request)))).evidence,
                None
            );
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
        (0..5000).for_each(|bytes| growth.closed(bytes));
        assert_eq!(growth.waiting.len(), MAX_WAITING);
        (0..5000).for_each(|_| growth.past_grace(0));
        assert_eq!(growth.past.len(), LOOKED_AT);
    }
}
