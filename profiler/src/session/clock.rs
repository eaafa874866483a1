//! The one clock of a recording. It runs on when somebody sets the time of day: otherwise a wait could be
//! over at once, or never.

use std::{sync::LazyLock, time::SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::capture::unix_ns;

/// The nanoseconds between the monotonic clock and 1970 UTC, as the time of day was when residue began.
static OFFSET_NS: LazyLock<i64> = LazyLock::new(|| {
    let offset = i128::from(unix_ns(SystemTime::now())) - i128::from(monotonic_ns());
    i64::try_from(offset).unwrap_or(0)
});

/// The time on the clock of the kernel side's events, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let ns = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(ns).unwrap_or(0)
}

/// What to add to [`monotonic_ns`] for nanoseconds since 1970 UTC.
pub fn offset_ns() -> i64 {
    *OFFSET_NS
}

/// The time now, in nanoseconds since 1970 UTC.
pub fn now() -> u64 {
    monotonic_ns().saturating_add_signed(offset_ns())
}
