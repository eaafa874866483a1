//! The line for people.

use std::fmt;

use super::LineRules;
use crate::window::record::{Binding, RssPair, WindowEnd, WindowRecord};

/// Displays a window as one line, without its end.
#[derive(Clone, Copy, Debug)]
pub struct TextLine<'a> {
    record: &'a WindowRecord,
    suspected: bool,
}

impl<'a> TextLine<'a> {
    /// The line of this window.
    #[must_use]
    pub fn new(record: &'a WindowRecord, rules: &LineRules) -> Self {
        Self {
            record,
            suspected: rules.suspects(record),
        }
    }
}

impl fmt::Display for TextLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, suspected } = self;
        let level = if *suspected { "WARNING" } else { "INFO" };
        let id = record.request_id.as_deref().unwrap_or("-");
        write!(f, "{level} [{id}] [pid-{}] {}", record.pid, record.route)?;
        write!(f, " | duration={}", Milliseconds(record.duration_ns))?;
        match record.rss {
            Some(rss) => write_rss(f, rss)?,
            None => f.write_str(" | memory=? | delta=?")?,
        }
        write_retained(f, record)?;
        match record.end {
            WindowEnd::Done => {}
            end => write!(f, " | ended={}", end.name())?,
        }
        match suspected {
            true => f.write_str(" | LEAK_SUSPECTED"),
            false => Ok(()),
        }
    }
}

fn write_rss(f: &mut fmt::Formatter<'_>, rss: RssPair) -> fmt::Result {
    let [open, close] = [rss.open, rss.close].map(|bytes| bytes as f64 / 1e6);
    write!(f, " | memory={open:.0}MB->{close:.0}MB")?;
    let delta = rss.delta();
    let sign = if delta < 0 { '-' } else { '+' };
    write!(f, " | delta={sign}{}", Decimal(delta.unsigned_abs()))
}

fn write_retained(f: &mut fmt::Formatter<'_>, record: &WindowRecord) -> fmt::Result {
    let bytes = Decimal(record.retained.bytes);
    match record.binding {
        Binding::Exact => write!(f, " | retained={bytes}"),
        Binding::Lineage => write!(f, " | retained={bytes} (lineage)"),
        Binding::Single => write!(f, " | retained={bytes} (single)"),
        Binding::Candidates(count) => write!(f, " | retained=~{bytes} ({count} candidates)"),
        Binding::None => f.write_str(" | retained=?"),
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

/// Bytes in MB with one decimal; below a tenth of one in kB or B, where a leak of a few hundred bytes
/// a request would read as none.
struct Decimal(u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0.0MB"),
            bytes @ ..1_000 => write!(f, "{bytes}B"),
            bytes @ ..100_000 => write!(f, "{:.1}kB", bytes as f64 / 1e3),
            bytes => write!(f, "{:.1}MB", bytes as f64 / 1e6),
        }
    }
}
