//! What being recorded costs each process, and the limit on that.
//!
//! The kernel side counts the hits of each process's probes, and times its own programs in one hit of 17. What a
//! hit costs beside the program, an interrupt and the way back, is measured on this host with empty programs
//! (`attach::calibrate`). Together that is how much of the processor time that the process used went into
//! probes, and without them the process would have needed the rest:
//!
//! `slowdown = used / (used - in probes)`

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use residue_ebpf::abi::cost::ProbeTime;

use super::{Followed, SessionError};
use crate::{
    attach::{AttachError, Kernel, ProbeCost},
    wording,
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
/// Up to which slowdown it is named. What a hit costs is understated, by a sixth where it was measured: at six
/// times by this formula, a Python that loaded certificates was 25 times slower and more.
const SURE: f64 = 5.0;
/// Hits a second below which there is nothing to measure.
const FEW_HITS: u64 = 1000;
/// What an allocator needs for the third of an allocation and its free, at the very least. Where nearly all
/// the time goes into probes, the rest is not known well.
const AT_LEAST_A_HIT: Duration = Duration::from_nanos(10);

/// What a process used in some time, and for what.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// By the clock.
    pub wall: Duration,
    /// Processor time.
    pub used: Duration,
    /// How much of that went into probes.
    pub in_probes: Duration,
    /// Hits of probes.
    pub hits: u64,
    /// Calls of functions that allocate.
    pub allocations: u64,
}

impl Spent {
    /// How many times slower the process was than it would have been.
    pub fn slowdown(&self) -> f64 {
        let hits = u32::try_from(self.hits).unwrap_or(u32::MAX);
        let rest = self.used.saturating_sub(self.in_probes);
        let rest = rest.max(AT_LEAST_A_HIT.saturating_mul(hits));
        let slowdown = self.used.as_secs_f64() / rest.as_secs_f64();
        if slowdown.is_finite() {
            slowdown.max(1.0)
        } else {
            1.0
        }
    }

    /// Allocations a second.
    pub fn rate(&self) -> f64 {
        self.per_second(self.allocations)
    }

    fn per_second(&self, count: u64) -> f64 {
        let seconds = self.wall.as_secs_f64();
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            0.0
        }
    }

    fn add(&mut self, other: Self) {
        self.wall += other.wall;
        self.used += other.used;
        self.in_probes += other.in_probes;
        self.hits += other.hits;
        self.allocations += other.allocations;
    }

    /// For a person.
    pub fn text(&self) -> String {
        let rate = match self.allocations {
            // Probes for requests alone.
            0 => format!(
                "{} hits of probes",
                wording::number(round(self.per_second(self.hits)))
            ),
            _ => format!("{} allocations", wording::number(round(self.rate()))),
        };
        match self.slowdown() {
            few if few < 1.05 => format!("less than 5 % slower ({rate} a second)"),
            few if few < SURE => {
                format!("at least {few:.1} times slower ({rate} a second)")
            }
            _ => format!("{SURE:.0} times slower or more ({rate} a second)"),
        }
    }
}

/// Two digits: more would claim more than is known.
fn round(rate: f64) -> u64 {
    let rate = rate as u64;
    let unit = 10_u64.pow(rate.checked_ilog10().unwrap_or(0).saturating_sub(1));
    (rate + unit / 2) / unit * unit
}

/// The cost of all processes.
pub struct Costs {
    /// From which slowdown on a process's probes are taken out, if at all.
    limit: Option<f64>,
    price: Option<ProbeCost>,
    /// Why that could not be measured at first.
    unpriced: Option<AttachError>,
    by_slot: HashMap<u16, Meter>,
}

/// The cost of one process.
#[derive(Default)]
struct Meter {
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

impl Costs {
    /// Nobody was looked at yet.
    pub fn new(limit: Option<f64>) -> Self {
        Self {
            limit,
            price: None,
            unpriced: None,
            by_slot: HashMap::new(),
        }
    }

    /// Begins to measure a process, or measures what it used since the last look.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map, which it has no reason to.
    pub fn look(
        &mut self,
        kernel: &mut Kernel,
        followed: &Followed,
    ) -> Result<Option<Finding>, SessionError> {
        let time = kernel.probe_time(followed.slot)?;
        // It has ended, which is seen elsewhere.
        let Some(used) = followed.process.cpu_time() else {
            return Ok(None);
        };
        let now = (Instant::now(), used, time);
        let meter = self.by_slot.entry(followed.slot).or_default();
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

    /// Why it is not known what a probe costs, if it should be.
    pub fn unpriced(&self) -> Option<&AttachError> {
        self.unpriced.as_ref()
    }

    /// Whether it was said of a process that it was slowed down, at least for some seconds.
    pub fn has_said(&self, slot: u16) -> bool {
        self.by_slot
            .get(&slot)
            .is_some_and(|meter| meter.said > 0.0)
    }

    /// What a process used in all, if anything was measured.
    pub fn of(&self, slot: u16) -> Option<Spent> {
        let all = self.by_slot.get(&slot)?.all;
        (!all.wall.is_zero()).then_some(all)
    }
}

impl Meter {
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

    const fn second(used_ms: u64, in_probes_ms: u64, allocations: u64) -> Spent {
        Spent {
            wall: Duration::from_secs(1),
            used: Duration::from_millis(used_ms),
            in_probes: Duration::from_millis(in_probes_ms),
            hits: 3 * allocations,
            allocations,
        }
    }

    #[test]
    fn what_is_not_spent_in_probes_would_have_been_enough() {
        assert_eq!(second(1000, 500, 1000).slowdown(), 2.0);
        assert_eq!(second(1000, 0, 0).slowdown(), 1.0);
        assert_eq!(second(0, 0, 0).slowdown(), 1.0);
        assert_eq!(Spent::default().rate(), 0.0);
        // More than all of it is what measuring makes of nearly all.
        let most = second(1000, 1200, 100_000).slowdown();
        assert!((100.0..1000.0).contains(&most), "{most}");
        // An idle process whose time the kernel has not counted yet.
        assert_eq!(second(0, 5, 1000).slowdown(), 1.0);
    }

    #[test]
    fn a_text_claims_two_digits_and_no_large_factor() {
        let text = second(1000, 500, 123_456).text();
        assert_eq!(
            text,
            "at least 2.0 times slower (120,000 allocations a second)"
        );
        let text = second(1000, 990, 9).text();
        assert_eq!(text, "5 times slower or more (9 allocations a second)");
    }

    #[test]
    fn five_seconds_above_the_limit_are_too_much_and_a_burst_is_not() {
        let slow = second(500, 400, 100_000);
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
                second(800, 10, 2000)
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
            assert_eq!(meter.take(second(40, 35, 10_000), Some(2.0)), None);
        }
    }
}
