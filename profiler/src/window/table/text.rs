//! The table for a terminal: two lines a route, since a path needs most of one.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Confidences, EstimatedFrom, RouteRow, RouteTable, RowEstimate};
use crate::report::units;
use crate::window::record::Unbound;

/// Columns that a line may take; a terminal half as wide as a screen shows it.
const COLUMNS: usize = 100;
/// Columns that the name of a route has for sure.
const ROUTE_COLUMNS: usize = 40;

/// What is not known.
const UNKNOWN: &str = "?";

/// Writes the table.
///
/// # Errors
///
/// Those of `out`.
pub fn write(table: &RouteTable, out: &mut impl Write) -> io::Result<()> {
    let titles = [
        "REQUESTS",
        "TIME p50",
        "p95",
        "DELTA p50",
        "p95",
        "max",
        "ALLOC/REQ",
        "RETAINED/REQ",
        "SURVIVED/REQ",
    ];
    write_columns(titles, out)?;
    for row in &table.routes {
        write_row(row, out)?;
    }
    writeln!(out)?;
    write_missing(&table.routes, out)?;
    write_unbound("background", "of no request", table.background, out)?;
    write_unbound(
        "ambiguous",
        "of one of several requests",
        table.ambiguous,
        out,
    )
}

fn write_row(row: &RouteRow, out: &mut impl Write) -> io::Result<()> {
    let confidence = shares(row.confidences);
    let room = COLUMNS - 2 - confidence.chars().count().min(COLUMNS - 2 - ROUTE_COLUMNS);
    let route = units::fit(&row.route.to_string(), room);
    writeln!(out, "{route:room$}  {confidence}")?;
    let columns = [
        units::number(row.requests),
        or_unknown(row.duration_p50, duration),
        or_unknown(row.duration_p95, duration),
        or_unknown(row.delta_p50, signed),
        or_unknown(row.delta_p95, signed),
        or_unknown(row.delta_max, signed),
        or_unknown(row.alloc_bytes_per_request, mean),
        or_unknown(row.retained_bytes_per_request, mean),
        or_unknown(row.survivor_bytes_per_request, mean),
    ];
    write_columns(columns.each_ref().map(String::as_str), out)?;
    match row.estimate {
        RowEstimate::None | RowEstimate::Missing(_) => Ok(()),
        RowEstimate::Told {
            bytes_per_request,
            standard_error,
            from,
        } => {
            let [bytes, error] = [bytes_per_request, standard_error].map(mean);
            let from = match from {
                EstimatedFrom::Blocks => "",
                EstimatedFrom::ResidentSet => " from the resident set",
            };
            let left =
                format!("estimate{from}: ~{bytes} left behind a request, give or take {error}");
            writeln!(out, "{left:>COLUMNS$}")
        }
    }
}

/// Each reason for which there is no estimate, once.
fn write_missing(rows: &[RouteRow], out: &mut impl Write) -> io::Result<()> {
    let mut reasons: BTreeMap<&str, Vec<&RouteRow>> = BTreeMap::new();
    for row in rows {
        if let RowEstimate::Missing(why) = &row.estimate {
            reasons.entry(why).or_default().push(row);
        }
    }
    for (why, rows) in reasons {
        let of = match rows[..] {
            [row] => units::fit(&row.route.to_string(), ROUTE_COLUMNS),
            _ => units::counted(rows.len() as u64, "route"),
        };
        let text = format!("no estimate  of {of}: {why}");
        let lines = units::wrap(&text, COLUMNS);
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    Ok(())
}

/// 100 columns in all.
fn write_columns(texts: [&str; 9], out: &mut impl Write) -> io::Result<()> {
    const WIDTHS: [usize; 9] = [8, 9, 8, 11, 10, 10, 11, 12, 12];
    let cells = texts.iter().zip(WIDTHS);
    let line: String = cells
        .map(|(text, width)| format!(" {text:>width$}"))
        .collect();
    writeln!(out, "{line}")
}

fn write_unbound(name: &str, what: &str, it: Unbound, out: &mut impl Write) -> io::Result<()> {
    let [outstanding, allocated] = [it.outstanding, it.allocated].map(|it| units::bytes(it.bytes));
    writeln!(
        out,
        "{name:<12} {outstanding} outstanding of {allocated} allocated: {what}"
    )
}

fn or_unknown<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), text)
}

/// `exact`, or `exact 97%, candidates 3%`.
fn shares(confidences: Confidences) -> String {
    let Confidences {
        exact,
        lineage,
        single,
        candidates,
        none,
    } = confidences;
    let named = [
        (exact, "exact"),
        (lineage, "lineage"),
        (single, "single"),
        (candidates, "candidates"),
        (none, "none"),
    ];
    let all: u64 = named.iter().map(|(count, _)| count).sum();
    let share = |(count, name): &(u64, &str)| match *count {
        0 => None,
        count if count == all => Some((*name).to_owned()),
        // Neither all nor nothing: a few among many do not round away.
        count => Some(format!(
            "{name} {:.0}%",
            (100.0 * count as f64 / all as f64).clamp(1.0, 99.0)
        )),
    };
    let shares: Vec<_> = named.iter().filter_map(share).collect();
    shares.join(", ")
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
    format!("{sign}{}", units::bytes(bytes.unsigned_abs()))
}

/// A leak of some bytes in every tenth request is one.
fn mean(bytes: f64) -> String {
    if bytes > 0.0 && bytes < 10.0 {
        format!("{bytes:.1} B")
    } else {
        units::bytes(bytes.round() as u64)
    }
}
