//! What probes take of a process's time.

/// What the probes of one process have done so far on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProbeTime {
    /// Probes that were hit where a function is entered.
    pub entries: u64,
    /// Probes that were hit where a function returns that allocates.
    pub returns: u64,
    /// Probes that were hit where another one returns.
    pub other_returns: u64,
    /// How many of these hits were timed.
    pub timed: u64,
    /// How long our programs took in those, nanoseconds.
    pub timed_ns: u64,
    /// When the hit began that is being timed, nanoseconds since boot; zero if none is.
    pub began_ns: u64,
}

const _: () = assert!(size_of::<ProbeTime>() == 6 * size_of::<u64>());

impl ProbeTime {
    /// All probes that were hit.
    #[must_use]
    pub const fn hits(&self) -> u64 {
        (self.entries.saturating_add(self.returns)).saturating_add(self.other_returns)
    }
}

/// One hit in so many is timed. A prime: hits come in patterns, such as an entry, a return and a free.
pub const TIMED_EVERY: u64 = 17;

/// What takes longer than this was interrupted, nanoseconds: the time is not the process's own.
pub const TIMED_AT_MOST_NS: u64 = 200_000;
