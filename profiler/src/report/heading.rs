//! How reports word the processes and the time of a profile.

use std::time::{Duration, SystemTime};

use crate::{
    profile::{Profile, Span, Target},
    wording::{number, printable},
};

/// Writes `gunicorn (pid 12)`, and how many more processes there are.
pub(super) fn targets(profile: &Profile) -> String {
    let mut recorded = profile.recorded();
    let Some(first) = recorded.next() else {
        return "no process".to_owned();
    };
    match recorded.count() {
        0 => target(first),
        others => format!("{} and {} more", target(first), number(others as u64)),
    }
}

/// Writes `gunicorn (pid 12)`.
pub(super) fn target(target: &Target) -> String {
    let Target { pid, comm, .. } = target;
    format!("{} (pid {pid})", printable(comm))
}

/// Writes `60.0 s from 2026-11-23 22:40:01 UTC`, and whether something cut the recording off.
pub(super) fn span(span: Span) -> String {
    let seconds = Duration::from_nanos(span.duration_ns()).as_secs_f64();
    let start = SystemTime::UNIX_EPOCH + Duration::from_nanos(span.start_ns);
    let start = humantime::format_rfc3339_seconds(start).to_string();
    let start = start.replace('T', " ").replace('Z', " UTC");
    let cut_off = if span.cut_off { ", then cut off" } else { "" };
    format!("{seconds:.1} s from {start}{cut_off}")
}
