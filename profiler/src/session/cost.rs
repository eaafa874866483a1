//! What being recorded costs each process, and the limit on that.
//!
//! The kernel side counts the hits of each process's probes, and times its own programs in one hit of 17. What a
//! hit costs beside the program, an interrupt and the way back, is measured on this host with empty programs
//! (`attach::calibrate`). Together that is how much of the processor time that the process used went into
//! probes, and without them the process would have needed the rest:
//!
//! `slowdown = used / (used - in probes)`

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use residue_ebpf::abi::cost::ProbeTime;

use super::followed::Followed;
use crate::{
    attach::{AttachError, Kernel, ProbeCost},
    remark::Spent,
};

/// How often it is looked at.
pub const EVERY: Duration = Duration::from_secs(1);
/// Over how many looks a limit must be passed: shorter bursts, such as a start, are let pass.
const JUDGED: usize = 5;
/// How much processor time a process must have used in them: the kernel counts in steps of 10 ms.
const JUDGED_CPU: Duration = Duration::from_millis(250);
/// From which slowdown on a process's cost is worth saying.
const WORTH_SAYING: f64 = 1.1;
/// How many times as much it must be to be said again.
const SAID_AGAIN: f64 = 2.0;
/// From which slowdown on a process's cost is listed at the end.
const LISTED: f64 = 1.05;
/// Hits a second below which there is nothing to measure.
const FEW_HITS: u64 = 1000;
/// What the cost of a process is measured and judged by.
pub struct Costs {
    /// From which slowdown on a process's probes are taken out, if at all.
    limit: Option<f64>,
    price: Option<ProbeCost>,
    /// Why that could not be measured at first, until somebody asks.
    unpriced: Option<AttachError>,
    was_asked: bool,
}

/// The cost of one process.
#[derive(Debug, Default)]
pub struct Meter {
    last: Option<(Instant, Duration, ProbeTime)>,
    /// The last looks.
    recent: VecDeque<Spent>,
    all: Spent,
    said: f64,
}

/// What a look at a process's cost led to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finding {
    /// It costs more than was said so far.
    Says(Spent),
    /// It costs too much.
    TooMuch(Spent),
}

/// What a recorded process's cost is called at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The process did nothing that a probe sees.
    Idle,
    /// The process was slowed down by as much as is worth listing.
    Slowed(Spent),
    /// Nothing is worth saying.
    Unremarkable,
}

impl Costs {
    /// Nobody was looked at yet.
    pub const fn new(limit: Option<f64>) -> Self {
        Self {
            limit,
            price: None,
            unpriced: None,
            was_asked: false,
        }
    }

    /// From which slowdown on a process's probes are taken out; zero if they never are.
    pub fn limit(&self) -> f64 {
        self.limit.unwrap_or_default()
    }

    /// Begins to measure a process, or measures what it used since the last look.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map, which it has no reason to.
    pub fn look(
        &mut self,
        kernel: &mut Kernel,
        followed: &mut Followed,
    ) -> Result<Option<Finding>, AttachError> {
        let time = kernel.probe_time(followed.slot)?;
        // It has ended, which is seen elsewhere.
        let Some(used) = followed.process.cpu_time() else {
            return Ok(None);
        };
        let now = (Instant::now(), used, time);
        let meter = &mut followed.meter;
        let Some(last) = meter.last.replace(now) else {
            return Ok(None);
        };
        let hits = time.hits().saturating_sub(last.2.hits());
        if self.price.is_none() && hits > FEW_HITS {
            // Where it cannot be measured, what our programs take is known all the same. It is tried again.
            match kernel.probe_cost() {
                Ok(price) => self.price = Some(price),
                Err(error) => self.unpriced = self.unpriced.take().or(Some(error)),
            }
        }
        let spent = spent(last, now, self.price.unwrap_or_default());
        Ok(meter.take(spent, self.limit))
    }

    /// Why it is not known what a probe costs, if it should be; once.
    pub fn take_unpriced(&mut self) -> Option<AttachError> {
        let unpriced = self.unpriced.take().filter(|_| !self.was_asked)?;
        self.was_asked = true;
        Some(unpriced)
    }
}

impl Meter {
    /// What is to be said of the process at the end, when its probes were hit so often.
    pub fn outcome(&self, time: ProbeTime) -> Outcome {
        let all = self.all;
        if time.hits() == 0 {
            return Outcome::Idle;
        }
        let is_worth_it = all.slowdown() >= LISTED || self.said > 0.0;
        match !all.wall.is_zero() && is_worth_it {
            true => Outcome::Slowed(all),
            false => Outcome::Unremarkable,
        }
    }

    /// What the process used in all, if anything was measured.
    pub fn all(&self) -> Option<Spent> {
        (!self.all.wall.is_zero()).then_some(self.all)
    }

    fn take(&mut self, spent: Spent, limit: Option<f64>) -> Option<Finding> {
        self.all.add(spent);
        self.recent.push_back(spent);
        if self.recent.len() > JUDGED {
            self.recent.pop_front();
        }
        let mut judged = Spent::default();
        self.recent.iter().for_each(|it| judged.add(*it));
        let is_judged = self.recent.len() == JUDGED && judged.used >= JUDGED_CPU;
        if is_judged && limit.is_some_and(|limit| judged.slowdown() > limit) {
            return Some(Finding::TooMuch(judged));
        }
        let slowdown = spent.slowdown();
        let is_news = slowdown >= WORTH_SAYING && slowdown >= SAID_AGAIN * self.said;
        if !is_news || spent.used < JUDGED_CPU / JUDGED as u32 {
            return None;
        }
        self.said = slowdown;
        Some(Finding::Says(spent))
    }
}

fn spent(
    (began, used_before, before): (Instant, Duration, ProbeTime),
    (now, used, after): (Instant, Duration, ProbeTime),
    price: ProbeCost,
) -> Spent {
    let entries = after.entries.saturating_sub(before.entries);
    let allocations = after.returns.saturating_sub(before.returns);
    let returns = allocations + after.other_returns.saturating_sub(before.other_returns);
    let of_return = price.pair.saturating_sub(price.entry);
    let timed = after.timed.saturating_sub(before.timed);
    let timed_ns = after.timed_ns.saturating_sub(before.timed_ns);
    let of_program = timed_ns.checked_div(timed).unwrap_or(0);
    let ns = |one: Duration, count: u64| count.saturating_mul(one.as_nanos() as u64);
    let in_probes = ns(price.entry, entries)
        .saturating_add(ns(of_return, returns))
        .saturating_add((entries + returns).saturating_mul(of_program));
    Spent {
        wall: now.duration_since(began),
        used: used.saturating_sub(used_before),
        in_probes: Duration::from_nanos(in_probes),
        hits: entries + returns,
        allocations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_seconds_above_the_limit_are_too_much_and_a_burst_is_not() {
        let slow = Spent::second(500, 400, 100_000);
        let limit = Some(2.0);
        let mut meter = Meter::default();
        assert_eq!(meter.take(slow, limit), Some(Finding::Says(slow)));
        for _ in 1..JUDGED - 1 {
            assert_eq!(meter.take(slow, limit), None);
        }
        let found = meter.take(slow, limit);
        assert!(matches!(found, Some(Finding::TooMuch(_))), "{found:?}");

        let mut meter = Meter::default();
        for seconds in 0..20 {
            let burst = if seconds % 5 == 0 {
                slow
            } else {
                Spent::second(800, 10, 2000)
            };
            assert!(!matches!(
                meter.take(burst, limit),
                Some(Finding::TooMuch(_))
            ));
        }
        let mut unlimited = Meter::default();
        for _ in 0..20 {
            let found = unlimited.take(slow, None);
            assert!(!matches!(found, Some(Finding::TooMuch(_))));
        }
    }

    #[test]
    fn a_process_that_uses_little_is_not_judged() {
        let mut meter = Meter::default();
        for _ in 0..20 {
            assert_eq!(meter.take(Spent::second(40, 35, 10_000), Some(2.0)), None);
        }
    }
}
