//! The grace: the time after which memory that a window retained counts as survivors.
//!
//! Memory that is outstanding when a window closes may be freed soon after. It may be a buffer that
//! the next request reuses, or garbage that a cycle collector has yet to find. After some further
//! requests on the same worker, or after some time, such memory is gone.

use std::num::NonZeroU32;

use crate::ids::WindowNumber;

/// What has to pass after a window closed. The grace is over when the first of the two has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// Requests on the same worker that opened after the window closed, and that are over.
    pub requests: NonZeroU32,
    /// Nanoseconds after the window closed.
    pub time_ns: u64,
}

impl Default for Grace {
    /// Ten requests: workers reuse what the last one or two requests left, and CPython collects its
    /// youngest objects every few hundred containers, and the objects that survived that after ten
    /// times as many (`gc.get_threshold()`). Or half a minute, for workers that have little to do.
    fn default() -> Self {
        const REQUESTS: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");
        Self {
            requests: REQUESTS,
            time_ns: 30_000_000_000,
        }
    }
}

/// The time in which one window of a worker was open, in nanoseconds on any one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSpan {
    /// The number of the window.
    pub window: WindowNumber,
    /// When the window opened.
    pub opened_ns: u64,
    /// When the window closed. `None` while the window is open.
    pub closed_ns: Option<u64>,
}

/// Finds the windows of one worker whose grace is over at `now_ns`. What is outstanding of these
/// windows now has survived. The windows may come in any order.
///
/// The caller may leave out a returned window from the next call on. No other window waits for it:
/// a window that closed earlier has its grace over no later.
#[must_use]
pub fn past_grace(worker: &[OpenSpan], now_ns: u64, grace: Grace) -> Vec<WindowNumber> {
    let is_over = |span: &OpenSpan| span.closed_ns.is_some_and(|closed| closed <= now_ns);
    let over = || worker.iter().filter(|span| is_over(span));
    let mut opened: Vec<u64> = over().map(|span| span.opened_ns).collect();
    opened.sort_unstable();
    let survived = |span: &&OpenSpan| {
        let Some(closed) = span.closed_ns else {
            return false;
        };
        let further = opened.len() - opened.partition_point(|opened| *opened < closed);
        further >= grace.requests.get() as usize || now_ns - closed >= grace.time_ns
    };
    over().filter(survived).map(|span| span.window).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn grace(requests: u32, time_ns: u64) -> Grace {
        let requests = NonZeroU32::new(requests).expect("it is not zero");
        Grace { requests, time_ns }
    }

    fn span(window: u64, opened_ns: u64, closed_ns: impl Into<Option<u64>>) -> OpenSpan {
        OpenSpan {
            window: WindowNumber(window),
            opened_ns,
            closed_ns: closed_ns.into(),
        }
    }

    fn over(worker: &[OpenSpan], now_ns: u64, grace: Grace) -> Vec<u64> {
        let over = past_grace(worker, now_ns, grace).into_iter();
        over.map(|number| number.0).collect()
    }

    #[test]
    fn further_requests_end_the_grace() {
        let worker = [
            span(1, 0, 10),
            span(2, 10, 20),
            span(3, 21, 30),
            span(4, 31, None),
        ];
        assert_eq!(over(&worker, 40, grace(2, 1000)), [1]);
        assert_eq!(over(&worker, 40, grace(1, 1000)), [1, 2]);
        assert_eq!(over(&worker, 25, grace(1, 1000)), [1]);
    }

    #[test]
    fn time_ends_the_grace_of_an_idle_worker() {
        let worker = [span(1, 0, 10)];
        assert!(past_grace(&worker, 109, grace(5, 100)).is_empty());
        assert_eq!(over(&worker, 110, grace(5, 100)), [1]);
    }

    #[test]
    fn requests_at_the_same_time_are_no_further_ones() {
        let worker = [
            span(1, 0, 50),
            span(2, 1, 10),
            span(3, 20, 60),
            span(4, 50, 70),
        ];
        assert_eq!(over(&worker, 80, grace(1, 1000)), [1, 2]);
        assert_eq!(over(&worker, 80, grace(2, 1000)), [2]);
    }

    #[test]
    fn a_window_that_is_open_or_still_to_come_survives_nothing() {
        let worker = [span(1, 0, None), span(2, 5, 90)];
        assert!(past_grace(&worker, 80, grace(1, 0)).is_empty());
    }

    fn spans() -> impl Strategy<Value = Vec<OpenSpan>> {
        let ends = (0..1000u64, proptest::option::of(0..200u64));
        vec(ends, 0..40).prop_map(|ends| {
            let ends = ends.into_iter().enumerate();
            let span = |(window, (opened, length)): (usize, (u64, Option<u64>))| {
                span(window as u64, opened, length.map(|length| opened + length))
            };
            ends.map(span).collect()
        })
    }

    proptest! {
        #[test]
        fn what_was_returned_can_be_left_out(
            worker in spans(), first in 0..1300u64, then in 0..1300u64, requests in 1..9u32, time in 1..500u64,
        ) {
            let grace = grace(requests, time);
            let (first, then) = (first.min(then), first.max(then));
            let before = past_grace(&worker, first, grace);
            let at_once = past_grace(&worker, then, grace);
            let rest: Vec<_> = worker.into_iter().filter(|window| !before.contains(&window.window)).collect();
            let mut in_two = [before, past_grace(&rest, then, grace)].concat();
            in_two.sort_unstable();
            prop_assert_eq!(in_two, at_once);
        }
    }
}
