//! The time that probes cost a process.

/// What the probes of one process have done so far on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProbeTime {
    /// Hits of probes at entries of functions.
    pub entries: u64,
    /// Hits of probes at returns of functions that allocate.
    pub returns: u64,
    /// Hits of probes at returns of other functions.
    pub other_returns: u64,
    /// How many of these hits were timed.
    pub timed: u64,
    /// How long residue's programs took in the timed hits, nanoseconds.
    pub timed_ns: u64,
    /// When the hit began that is being timed, nanoseconds since boot; zero if no hit is being timed.
    pub began_ns: u64,
}

const _: () = assert!(size_of::<ProbeTime>() == 6 * size_of::<u64>());

impl ProbeTime {
    /// All hits of probes.
    #[must_use]
    pub const fn hits(&self) -> u64 {
        (self.entries.saturating_add(self.returns)).saturating_add(self.other_returns)
    }
}

/// One hit in this many is timed. The number is a prime, because hits come in patterns, such as an entry, a
/// return and a free.
pub const TIMED_EVERY: u64 = 17;

/// A program that takes longer than this was interrupted, nanoseconds, so the time is not the process's own.
pub const TIMED_AT_MOST_NS: u64 = 200_000;
