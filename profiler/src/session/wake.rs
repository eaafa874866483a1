//! What wakes a recording, and how residue avoids disturbing others then.

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::io::{Interest, unix::AsyncFd};

/// Makes a descriptor wake the recording when there is something to read.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stands for one open file for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Tells the scheduler to interrupt nobody when residue wakes: the watched processes go first. What
/// residue reads waits in buffers that hold seconds of it. Call this once residue starts nothing more
/// that would inherit the setting.
pub fn give_way() {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: plain system calls about the current thread; `param` outlives them.
    unsafe {
        // If somebody has chosen another policy for residue, it stays. A refusal loses nothing.
        if libc::sched_getscheduler(0) == libc::SCHED_OTHER {
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const param);
        }
    }
}

/// Ticks of this period. If work took longer than a period, the ticks skip it, and do not catch up.
pub fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    ticks
}
