//! Whether two standard errors hold the truth 19 times of 20, in every situation that servers are known to get
//! into, or nothing is told.

use super::*;

mod situations;

use situations::{all, on_a_busy_machine};

const SEEDS: u64 = 200;
/// Of those that are told.
const PROMISED: f64 = 0.95;
/// The same where a heap that is held has so much room for garbage that what stays hides in it: of a thousand
/// recordings, 910 hold the truth.
const PROMISED_OF_A_HELD_HEAP: f64 = 0.88;

/// How requests of a leaky and of a clean route come.
#[derive(Clone, Copy)]
enum Load {
    /// Both at random.
    Mixed,
    /// As many in each interval, of which the shares change.
    Shares,
    /// A fixed share of each, of a load that changes; one request more or less.
    Proportional,
    /// Ten intervals of the one, then ten of the other.
    Alternating,
    /// All of the leaky one, then all of the clean one.
    Sequence,
    /// As many a second of both together, one more or less, of which the shares change. For that part of the recording
    /// nobody asks for anything at either end.
    Paced(f64),
}

/// What is seen of what is left behind.
#[derive(Clone, Copy)]
enum Memory {
    /// All, with noise of so many bytes an interval.
    Smooth(f64),
    /// As much of what is left as whole steps of so many bytes.
    Steps(f64),
    /// Noise of so many bytes, of which as much as this is still there in the next interval's growth.
    Autocorrelated(f64, f64),
    /// Each request leaves garbage of so many bytes, which is freed when there is as much as this.
    SawTooth(f64, f64),
    /// The same where it is freed when there is twice as much of everything as was in use when it was freed last (Go's
    /// GOGC); so many bytes were in use before. What is freed goes back to the kernel, or is used again.
    Doubling(f64, f64, bool),
    /// A heap that grows by so many bytes until it is warm, which takes that part of the recording.
    WarmUp(f64, f64),
    /// What comes and goes: so many bytes at each look, as if at random.
    Passing(f64),
}

#[derive(Clone, Copy)]
struct Situation {
    name: &'static str,
    leak: f64,
    /// What each request of the other route leaves, which is clean but for that.
    other: f64,
    /// One in so many requests leaves something, and as much more.
    one_in: f64,
    load: Load,
    memory: Memory,
    /// Bytes that are taken at once, between these parts of the recording.
    jump: (f64, [f64; 2]),
    /// Intervals over which that is spread.
    jump_over: usize,
    /// Bytes that no request leaves, in an interval of the mean length, in blocks of so many.
    background: (f64, f64),
    /// By how much of the mean length the longest interval is longer, and the shortest is shorter.
    jitter: f64,
    intervals: usize,
    /// Requests of both routes.
    requests: f64,
    from: EstimatedFrom,
}

impl Situation {
    fn run(self, random: &mut Random) -> Vec<Interval> {
        let [from, to] = self.jump.1;
        let part = from + (to - from) * random.uniform();
        let jump_at = (part * self.intervals as f64) as usize;
        let mut phase = random.uniform();
        let (mut left, mut seen, mut noise, mut passing) = (0.0, 0.0, 0.0, 0.0);
        let mut garbage = phase
            * match self.memory {
                Memory::SawTooth(_, limit) => limit,
                Memory::Doubling(_, heap, _) => heap,
                Memory::Steps(step) => step,
                _ => 0.0,
            };
        let begun_with = garbage;
        let mut in_use = 0.0;
        let (mut time, mut by_itself) = (0.0, random.uniform() * self.background.1);
        let interval = |at: usize| {
            let length = 1.0 + self.jitter * (2.0 * random.uniform() - 1.0);
            let requests = self.requests_at(at, [time, time + length], random);
            time += length;
            by_itself += self.background.0 * length;
            for _ in 0..requests[0] {
                left += if random.uniform() * self.one_in < 1.0 {
                    self.leak * self.one_in
                } else {
                    0.0
                };
            }
            left += requests[1] as f64 * self.other;
            let all = (requests[0] + requests[1]) as f64;
            let jumped = (at + 1).saturating_sub(jump_at).min(self.jump_over);
            let jumped = self.jump.0 * jumped as f64 / self.jump_over as f64;
            let now = jumped
                + (by_itself / self.background.1).floor() * self.background.1
                + match self.memory {
                    Memory::Smooth(size) => {
                        noise += size * random.normal();
                        left + noise
                    }
                    Memory::Steps(step) => ((left + begun_with) / step).floor() * step,
                    Memory::Autocorrelated(size, kept) => {
                        phase = kept * phase + size * random.normal();
                        noise += phase;
                        left + noise
                    }
                    Memory::SawTooth(bytes, limit) => {
                        garbage += all * bytes;
                        garbage = if garbage > limit { 0.0 } else { garbage };
                        left + garbage - begun_with
                    }
                    Memory::Doubling(bytes, heap, goes_back) => {
                        garbage += all * bytes;
                        if left + garbage > heap + 2.0 * in_use {
                            (in_use, garbage) = (left, 0.0);
                        }
                        let held = left + garbage - begun_with;
                        passing = if goes_back { held } else { held.max(passing) };
                        passing
                    }
                    Memory::WarmUp(bytes, part) => {
                        let time = (at + 1) as f64 / self.intervals as f64;
                        noise += 100_000.0 * random.normal();
                        left + noise + bytes * (1.0 - (-time / part).exp())
                    }
                    Memory::Passing(size) => {
                        passing = size * random.normal();
                        left + passing
                    }
                };
            let growth = (now - seen) as i64;
            seen += growth as f64;
            Interval {
                length_ns: (length * 1e8) as u64,
                growth,
                requests: requests.to_vec(),
            }
        };
        (0..self.intervals).map(interval).collect()
    }

    /// How many of the leaky and of the clean route end in an interval between these moments.
    fn requests_at(self, at: usize, time: [f64; 2], random: &mut Random) -> [u64; 2] {
        let each = (time[1] - time[0]) * self.requests / self.intervals as f64 / 2.0;
        let mut about = |mean: f64| (2.0 * mean * random.uniform() + random.uniform()) as u64;
        match self.load {
            Load::Mixed => [about(each), about(each)],
            Load::Shares => {
                let all = 2.0 * each;
                let leaky = about(each).min(all as u64);
                [leaky, all as u64 - leaky]
            }
            Load::Paced(idle) => {
                let all = self.intervals as f64;
                let due = time.map(|it| {
                    let part = (it / all - idle) / (1.0 - 2.0 * idle);
                    (part.clamp(0.0, 1.0) * self.requests) as u64
                });
                let due = due[1] - due[0];
                let leaky = (random.uniform() * due as f64 + random.uniform()) as u64;
                [leaky.min(due), due - leaky.min(due)]
            }
            Load::Proportional => {
                let leaky = about(each);
                [leaky, leaky + about(0.5)]
            }
            Load::Alternating if (at / 10).is_multiple_of(2) => [about(2.0 * each), 0],
            Load::Sequence if at < self.intervals / 2 => [about(2.0 * each), 0],
            Load::Alternating | Load::Sequence => [0, about(2.0 * each)],
        }
    }

    /// What one request may leave until it is freed, bytes. Where a collector waits ever longer, no series tells that
    /// from what stays; it is included in estimates.
    const fn garbage(self) -> f64 {
        match self.memory {
            Memory::Doubling(bytes, ..) => bytes,
            _ => 0.0,
        }
    }

    fn promised(self) -> f64 {
        match self.memory {
            Memory::Doubling(garbage, _, false) if garbage > 10.0 * self.leak => {
                PROMISED_OF_A_HELD_HEAP
            }
            _ => PROMISED,
        }
    }

    /// By route: the share of what is told whose interval holds the truth, how many were told, and what was told at
    /// the median.
    fn coverage(self) -> [(f64, usize, (f64, f64)); 2] {
        let runs = (0..SEEDS).map(|seed| by_route(&self.run(&mut Random(seed)), self.from));
        let estimates: Vec<_> = runs.filter_map(Result::ok).collect();
        [0, 1].map(|route| {
            let truth = [self.leak, self.other][route];
            let mut told: Vec<_> = estimates
                .iter()
                .filter_map(|it| match it.routes[route] {
                    RouteEstimate::Told {
                        bytes,
                        standard_error,
                    } => Some((standard_error, bytes)),
                    _ => None,
                })
                .collect();
            let holds = told.iter().filter(|(error, bytes)| {
                let nearest = bytes.clamp(truth, truth + self.garbage());
                (bytes - nearest).abs() <= 2.0 * error
            });
            let share = holds.count() as f64 / told.len().max(1) as f64;
            told.sort_by(|a, b| a.0.total_cmp(&b.0));
            let median = told.get(told.len() / 2).copied().unwrap_or_default();
            (share, told.len(), (median.1, median.0))
        })
    }
}

fn assert_covered(situations: Vec<Situation>) {
    let mut broken = Vec::new();
    for situation in situations {
        let by_route = situation.coverage();
        for (of, (share, told, (bytes, error))) in ["leaky", "clean"].iter().zip(by_route) {
            eprintln!(
                "{:<58} {of}: {told:>3} told, {:>5.1} % hold, {bytes:>8.0} ± {error:.0}",
                situation.name,
                100.0 * share
            );
            let is_refused = matches!(situation.load, Load::Paced(_)) && told < SEEDS as usize;
            if is_refused || (told > 0 && share < situation.promised()) {
                broken.push((situation.name, of, share, told));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn two_standard_errors_hold_the_truth_19_times_of_20_in_every_situation() {
    assert_covered(all());
}

#[test]
fn they_do_when_looks_at_memory_come_late() {
    assert_covered(on_a_busy_machine());
}
