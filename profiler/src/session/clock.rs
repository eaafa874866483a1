//! The one clock of a recording. It runs on when somebody sets the time of day: what is waited for would else
//! be over at once, or never.

use std::{sync::LazyLock, time::SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::capture::unix_ns;

/// From the monotonic clock to nanoseconds since 1970 UTC, as the time of day was at first.
static OFFSET_NS: LazyLock<i64> = LazyLock::new(|| {
    let offset = i128::from(unix_ns(SystemTime::now())) - i128::from(monotonic_ns());
    i64::try_from(offset).unwrap_or(0)
});

/// The clock of the kernel side's times, nanoseconds.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let ns = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(ns).unwrap_or(0)
}

/// What to add to it for nanoseconds since 1970 UTC.
pub fn offset_ns() -> i64 {
    *OFFSET_NS
}

/// Nanoseconds since 1970 UTC.
pub fn now() -> u64 {
    monotonic_ns().saturating_add_signed(offset_ns())
}
