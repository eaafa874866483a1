//! The line for people.

use std::fmt;

use super::{LineRules, evidence, passing};
use crate::requests::growth::{Evidence, Known};
use crate::requests::record::{Binding, RssPair, WindowEnd, WindowRecord};

/// Displays a window as one line, without the end of the line.
#[derive(Clone, Copy, Debug)]
pub struct TextLine<'a> {
    record: &'a WindowRecord,
    passing: Option<u64>,
    suspected: bool,
    evidence: Option<Evidence>,
}

impl<'a> TextLine<'a> {
    /// Makes the line of a window from what is known about its route.
    #[must_use]
    pub fn new(record: &'a WindowRecord, rules: &LineRules, of_route: Known) -> Self {
        let evidence = evidence(record, of_route);
        Self {
            record,
            passing: passing(record, of_route),
            suspected: evidence.is_some() || rules.passes_threshold(record),
            evidence,
        }
    }
}

impl fmt::Display for TextLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.record;
        let level = if self.suspected { "WARNING" } else { "INFO" };
        let id = record.request_id.as_deref().unwrap_or("-");
        write!(f, "{level} [{id}] [pid-{}] {}", record.pid, record.route)?;
        write!(f, " | duration={}", Milliseconds(record.duration_ns))?;
        match record.rss {
            Some(rss) => write_rss(f, rss)?,
            None => f.write_str(" | memory=? | delta=?")?,
        }
        write_retained(f, record, self.passing)?;
        match record.end {
            WindowEnd::Done => {}
            end => write!(f, " | ended={}", end.name())?,
        }
        if self.suspected {
            f.write_str(" | LEAK_SUSPECTED")?;
        }
        self.evidence
            .map_or(Ok(()), |found| write_evidence(f, found))
    }
}

fn write_evidence(f: &mut fmt::Formatter<'_>, evidence: Evidence) -> fmt::Result {
    let Evidence { requests, left, .. } = evidence;
    let each = Megabytes(evidence.bytes_each());
    write!(f, " ({left} of the last {requests} left {each} each)")
}

fn write_rss(f: &mut fmt::Formatter<'_>, rss: RssPair) -> fmt::Result {
    let [open, close] = [rss.open, rss.close].map(|bytes| bytes as f64 / 1e6);
    write!(f, " | memory={open:.0}MB->{close:.0}MB")?;
    let delta = rss.delta();
    let sign = if delta < 0 { '-' } else { '+' };
    write!(f, " | delta={sign}{}", Megabytes(delta.unsigned_abs()))
}

fn write_retained(
    f: &mut fmt::Formatter<'_>,
    record: &WindowRecord,
    passing: Option<u64>,
) -> fmt::Result {
    let bytes = record.retained.bytes;
    let stays = Megabytes(bytes.saturating_sub(passing.unwrap_or_default()));
    match record.binding {
        Binding::Exact => write!(f, " | retained={stays}")?,
        Binding::Lineage => write!(f, " | retained={stays} (lineage)")?,
        Binding::Single => write!(f, " | retained={stays} (single)")?,
        Binding::Candidates(count) => write!(f, " | retained=~{stays} ({count} candidates)")?,
        Binding::None => f.write_str(" | retained=?")?,
    }
    match passing {
        Some(bytes) => write!(f, " (+{} passing)", Megabytes(bytes)),
        None => Ok(()),
    }
}

struct Milliseconds(Option<u64>);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ns) => write!(f, "{}ms", ns.saturating_add(500_000) / 1_000_000),
            None => f.write_str("?"),
        }
    }
}

/// Bytes, written in MB with one decimal. Less than a tenth of a MB has two digits, because
/// otherwise a leak of a few hundred bytes in each request would read as zero.
struct Megabytes(u64);

impl fmt::Display for Megabytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.0 {
            0 | 100_000.. => 1,
            10_000.. => 3,
            1_000.. => 4,
            100.. => 5,
            _ => 6,
        };
        write!(f, "{:.decimals$}MB", self.0 as f64 / 1e6)
    }
}
