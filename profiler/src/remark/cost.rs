//! What being recorded costs a process, and how remarks say so.

use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

use super::{Named, Several, more};
use crate::wording;

/// Up to which slowdown the slowdown is named. What a hit costs is understated, by a sixth where that was measured:
/// a Python that loaded certificates was 25 times slower and more where the formula said six times.
const SURE: f64 = 5.0;

/// The least time that an allocator needs for the third of an allocation and its free. Where nearly all the time goes
/// into probes, the rest is not known well.
const AT_LEAST_A_HIT: Duration = Duration::from_nanos(10);

/// A remark on what recording costs.
#[derive(Clone, Debug, PartialEq)]
pub enum Cost {
    /// Recording slows a process down more than was said so far.
    Slowed {
        /// The process.
        process: Named,
        /// What the process used in the last second.
        spent: Spent,
    },
    /// What the kernel takes for a probe cannot be measured, for this reason.
    Unknown(String),
    /// The probes of a process were taken out because they cost the process too much.
    LetGo {
        /// The process.
        process: Named,
        /// What the process used in the seconds that were judged.
        spent: Spent,
        /// How many times slower the process may become.
        limit: f64,
        /// What nobody sees of the process from now on.
        unseen: Vec<&'static str>,
    },
    /// What recording cost the processes, at the end.
    Slowdowns(Several<(Named, Spent)>),
    /// Processes that neither allocated nor freed anything.
    Idle(Several<Named>),
}

impl Cost {
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Slowed { .. } => "slowed",
            Self::Unknown(_) => "cost-unknown",
            Self::LetGo { .. } => "let-go",
            Self::Slowdowns(_) => "slowdowns",
            Self::Idle(_) => "idle",
        }
    }
}

impl Display for Cost {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slowed { process, spent } => {
                write!(f, "pid {process} is {spent} while it is recorded")
            }
            Self::Unknown(reason) => write!(
                f,
                "what the kernel takes for a probe could not be measured on this host: {reason}. What recording \
                 costs is more than is said, and --max-slowdown goes by that until it can be measured"
            ),
            Self::LetGo {
                process,
                spent,
                limit,
                unseen,
            } => {
                let unseen = match &unseen[..] {
                    [] => String::new(),
                    all => format!(", without {}", all.join(" and ")),
                };
                write!(
                    f,
                    "pid {process} was {spent}, more than --max-slowdown {limit} allows: its probes are taken out, \
                     its figures stay as they are now, and it is followed by its resident set alone{unseen}. Give a \
                     higher --max-slowdown, or off, to record it all the same"
                )
            }
            Self::Slowdowns(slowed) => {
                let all = slowed.list("; ", |(process, spent)| format!("{process} {spent}"));
                write!(f, "recording made pid {all}{}", more(slowed.further, "; "))
            }
            Self::Idle(idle) => write!(
                f,
                "neither allocated nor freed anything while recorded: pid {}{}. If there was load, other processes \
                 took it",
                idle.list(", ", Named::to_string),
                more(idle.further, ", ")
            ),
        }
    }
}

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

    /// Adds what the process used in some more time.
    pub fn add(&mut self, other: Self) {
        self.wall += other.wall;
        self.used += other.used;
        self.in_probes += other.in_probes;
        self.hits += other.hits;
        self.allocations += other.allocations;
    }
}

impl Display for Spent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rate = match self.allocations {
            // Probes for requests alone.
            0 => format!(
                "{} hits of probes",
                wording::number(round(self.per_second(self.hits)))
            ),
            _ => format!("{} allocations", wording::number(round(self.rate()))),
        };
        match self.slowdown() {
            few if few < 1.05 => write!(f, "less than 5 % slower ({rate} a second)"),
            few if few < SURE => write!(f, "at least {few:.1} times slower ({rate} a second)"),
            _ => write!(f, "{SURE:.0} times slower or more ({rate} a second)"),
        }
    }
}

/// Two digits: more would claim more than is known.
fn round(rate: f64) -> u64 {
    let rate = rate as u64;
    let unit = 10_u64.pow(rate.checked_ilog10().unwrap_or(0).saturating_sub(1));
    (rate + unit / 2) / unit * unit
}

#[cfg(test)]
impl Spent {
    /// What a process used in a second, with three hits of probes for each allocation.
    pub const fn second(used_ms: u64, in_probes_ms: u64, allocations: u64) -> Self {
        Self {
            wall: Duration::from_secs(1),
            used: Duration::from_millis(used_ms),
            in_probes: Duration::from_millis(in_probes_ms),
            hits: 3 * allocations,
            allocations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_spent_in_probes_would_have_been_enough() {
        assert_eq!(Spent::second(1000, 500, 1000).slowdown(), 2.0);
        assert_eq!(Spent::second(1000, 0, 0).slowdown(), 1.0);
        assert_eq!(Spent::second(0, 0, 0).slowdown(), 1.0);
        assert_eq!(Spent::default().rate(), 0.0);
        // More than all of it is what measuring makes of nearly all.
        let most = Spent::second(1000, 1200, 100_000).slowdown();
        assert!((100.0..1000.0).contains(&most), "{most}");
        // An idle process whose time the kernel has not counted yet.
        assert_eq!(Spent::second(0, 5, 1000).slowdown(), 1.0);
    }

    #[test]
    fn a_text_claims_two_digits_and_no_large_factor() {
        let text = Spent::second(1000, 500, 123_456).to_string();
        assert_eq!(
            text,
            "at least 2.0 times slower (120,000 allocations a second)"
        );
        let text = Spent::second(1000, 990, 9).to_string();
        assert_eq!(text, "5 times slower or more (9 allocations a second)");
    }
}
