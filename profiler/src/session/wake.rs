//! What wakes a recording, and whom that disturbs.

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::io::{Interest, unix::AsyncFd};

/// Wakes when there is something to read.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stands for one open file for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Has the scheduler not interrupt anybody for us when we wake: what is watched goes first. What we read
/// waits in buffers that hold seconds of it. Done once nothing more is started that would inherit it.
pub fn give_way() {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: plain syscalls about the current thread; `param` outlives them.
    unsafe {
        // Whoever has chosen otherwise for us keeps that. Where it is refused, nothing is lost.
        if libc::sched_getscheduler(0) == libc::SCHED_OTHER {
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const param);
        }
    }
}

/// Ticks that are skipped, not made up for, when work took longer.
pub fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    ticks
}
