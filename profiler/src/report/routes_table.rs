//! The table for a terminal. Each route takes two lines, because a path needs most of one.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::report::terminal::{COLUMNS, Style, write_wrapped};
use crate::requests::growth::Evidence;
use crate::requests::record::Unbound;
use crate::wording;
use crate::{
    estimate::EstimatedFrom,
    requests::table::{Confidences, RouteRow, RouteTable, RowEstimate},
};

/// Columns that the name of a route has at least.
const ROUTE_COLUMNS: usize = 30;

/// The text for an unknown figure.
const UNKNOWN: &str = "?";

/// Says what the figures of a request count, and what they leave out.
pub const SCOPE: &str = "SURVIVED, RETAINED and ALLOCATED are what a request did with blocks of the allocator. \
                         Python's objects of up to 512 bytes, mappings and other heaps are not in them.";

/// Says the same where the recorder follows no allocations.
pub const NOTHING_FOLLOWED: &str = "No allocation is followed (--rss-only): SURVIVED, RETAINED and ALLOCATED are not \
                                    known. RSS is the resident set of the whole process.";

/// Writes the table.
///
/// # Errors
///
/// Fails when `out` cannot be written to.
pub fn write(table: &RouteTable, out: &mut impl Write) -> io::Result<()> {
    let titles = [
        "SURVIVED",
        "RETAINED",
        "ALLOCATED",
        "REQUESTS",
        "TIME p50",
        "p95",
        "RSS +max",
    ];
    write_columns(titles, out)?;
    for row in &table.routes {
        write_row(row, out)?;
    }
    let mut rest = Vec::new();
    write_missing(&table.routes, &mut rest)?;
    write_unbound("background", "no request", table.background, &mut rest)?;
    let whose = "one of several requests";
    write_unbound("ambiguous", whose, table.ambiguous, &mut rest)?;
    if !rest.is_empty() {
        writeln!(out)?;
    }
    out.write_all(&rest)
}

fn write_row(row: &RouteRow, out: &mut impl Write) -> io::Result<()> {
    let scope = scope(row.confidences);
    let room = COLUMNS - 2 - scope.chars().count().min(COLUMNS - 2 - ROUTE_COLUMNS);
    let route = wording::fit(&wording::printable(&row.route.to_string()), room);
    writeln!(out, "{route:room$}  {scope}")?;
    let columns = [
        or_unknown(row.survivor_bytes_per_request, mean),
        or_unknown(row.retained_bytes_per_request, mean),
        or_unknown(row.alloc_bytes_per_request, mean),
        wording::number(row.requests),
        or_unknown(row.duration_p50, duration),
        or_unknown(row.duration_p95, duration),
        or_unknown(row.delta_max, signed),
    ];
    write_columns(columns.each_ref().map(String::as_str), out)?;
    let suspicion = row.suspected.map(suspicion);
    for text in suspicion.iter().chain(&estimate(&row.estimate)) {
        write_wrapped(text, Style::PLAIN, out)?;
    }
    Ok(())
}

fn estimate(estimate: &RowEstimate) -> Option<String> {
    let RowEstimate::Told {
        bytes_per_request,
        standard_error,
        from,
    } = *estimate
    else {
        return None;
    };
    // The truth is within two standard errors 19 times of 20 (see `crate::estimate`).
    let [bytes, within] = [bytes_per_request, 2.0 * standard_error].map(mean);
    let from = match from {
        EstimatedFrom::Blocks => "blocks of no single request; no mappings, no other heaps",
        EstimatedFrom::ResidentSet => "the resident set, garbage included",
    };
    Some(format!(
        "  estimate  ~{bytes} left behind a request, give or take {within} (19 times of 20), from {from}"
    ))
}

fn suspicion(evidence: Evidence) -> String {
    let Evidence { requests, left, .. } = evidence;
    let each = wording::bytes(evidence.bytes_each());
    format!("  LEAK_SUSPECTED  {left} of the last {requests} requests left blocks, {each} each")
}

/// Writes each reason for which there is no estimate, once.
fn write_missing(rows: &[RouteRow], out: &mut impl Write) -> io::Result<()> {
    let mut reasons: BTreeMap<&str, Vec<&RouteRow>> = BTreeMap::new();
    for row in rows {
        if let RowEstimate::Missing(why) = &row.estimate {
            reasons.entry(why).or_default().push(row);
        }
    }
    for (why, rows) in reasons {
        let of = match rows[..] {
            [row] => wording::fit(&row.route.to_string(), ROUTE_COLUMNS),
            _ => wording::counted(rows.len() as u64, "route"),
        };
        let text = format!("no estimate  of {of}: {why}");
        write_wrapped(&wording::printable(&text), Style::PLAIN, out)?;
    }
    Ok(())
}

/// Writes seven columns, 78 characters wide in all.
fn write_columns(texts: [&str; 7], out: &mut impl Write) -> io::Result<()> {
    const WIDTHS: [usize; 7] = [11, 11, 11, 10, 9, 8, 11];
    let cells = texts.iter().zip(WIDTHS);
    let line: String = cells
        .map(|(text, width)| format!(" {text:>width$}"))
        .collect();
    writeln!(out, "{line}")
}

fn write_unbound(
    name: &str,
    whose: &str,
    unbound: Option<Unbound>,
    out: &mut impl Write,
) -> io::Result<()> {
    let Some(unbound) = unbound.filter(|unbound| unbound.allocated.objects > 0) else {
        return Ok(());
    };
    let outstanding = wording::bytes(unbound.outstanding.bytes);
    let allocated = wording::bytes(unbound.allocated.bytes);
    let text =
        format!("{name:<12} {outstanding} outstanding of {allocated} allocated by {whose}: blocks");
    write_wrapped(&text, Style::PLAIN, out)
}

fn or_unknown<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), text)
}

/// Says what the figures of a row count: `blocks only`, or `blocks only; bound 97%, candidates 3%`.
/// The scope never says that the figures are exact, because there is more than blocks.
fn scope(confidences: Confidences) -> String {
    let Confidences {
        exact,
        lineage,
        single,
        candidates,
        none,
    } = confidences;
    let named = [
        (exact, "bound"),
        (lineage, "by lineage"),
        (single, "single"),
        (candidates, "candidates"),
        (none, "not bound"),
    ];
    let all: u64 = named.iter().map(|(count, _)| count).sum();
    let shares = named
        .iter()
        .filter_map(|(count, name)| share(*count, all, name));
    let shares = shares.collect::<Vec<_>>().join(", ");
    match (exact == all, exact + lineage) {
        (_, 0) if none == all => "nothing bound".to_owned(),
        (_, 0) => format!("nothing bound: {shares}"),
        (true, _) => "blocks only".to_owned(),
        (false, _) => format!("blocks only; {shares}"),
    }
}

fn share(count: u64, all: u64, name: &str) -> Option<String> {
    // A few among many are neither rounded to nothing nor to all.
    let percent = (100.0 * count as f64 / all as f64).clamp(1.0, 99.0);
    match count {
        0 => None,
        count if count == all => Some(name.to_owned()),
        _ => Some(format!("{name} {percent:.0}%")),
    }
}

fn duration(ns: u64) -> String {
    let seconds = ns as f64 / 1e9;
    if ns < 1_000_000 {
        format!("{} us", ns / 1_000)
    } else if ns < 1_000_000_000 {
        format!("{} ms", ns / 1_000_000)
    } else if seconds < 1000.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}

fn signed(bytes: i64) -> String {
    let sign = match bytes {
        ..0 => "-",
        0 => "",
        _ => "+",
    };
    format!("{sign}{}", wording::bytes(bytes.unsigned_abs()))
}

/// Writes a mean. A small mean has a decimal, because some bytes in every tenth request are a leak.
fn mean(bytes: f64) -> String {
    if bytes > 0.0 && bytes < 10.0 {
        format!("{bytes:.1} B")
    } else {
        wording::bytes(bytes.round() as u64)
    }
}
