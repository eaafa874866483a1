//! The report for a terminal. Losses come first, because they bear on everything that follows. Then
//! comes the answer: who holds what, and which requests leave something behind. The rest follows.

mod about;
mod culprits;
mod page;

use std::io::{self, Write};

use crate::profile::{Profile, Tier};
use crate::report::routes_table;
use crate::report::rows::{mapped, rows};
use crate::report::terminal::{Style, write_wrapped};
use crate::report::{Measure, Options};
use crate::wording;
use culprits::{Culprits, Listing};

/// How many rows of blocks to list. A flamegraph shows more.
const TOP_ROWS: usize = 10;

/// How many rows to list of mappings, and of Python's own allocator.
const TOP_OTHERS: usize = 4;

/// How many routes to list. JSON lists all.
const TOP_ROUTES: usize = 20;

pub(super) fn write(
    profile: &Profile,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    about::write_warnings(profile, options.colour, out)?;
    about::write_summary(profile, options, out)?;
    write_memory(profile, options, out)?;
    write_routes(profile, options, out)?;
    write_python(profile, options, out)?;
    about::write_rest(profile, options, out)
}

/// Writes blocks and the mappings beside them. The one with more bytes comes first.
fn write_memory(profile: &Profile, options: Options<'_>, out: &mut impl Write) -> io::Result<()> {
    let [blocks, mappings] = [rows(profile, blocks(options)), mapped(profile, options)];
    let [blocks, mappings] = [&blocks, &mappings].map(|rows| Culprits::of(profile, rows));
    // Requests hold no mappings.
    let is_of_requests = options.by.stage().is_some();
    if is_of_requests || mappings.is_empty() {
        return write_blocks(profile, &blocks, options, out);
    }
    if mappings.total().bytes > blocks.total().bytes {
        write_mappings(&mappings, options, out)?;
        return write_blocks(profile, &blocks, options, out);
    }
    write_blocks(profile, &blocks, options, out)?;
    write_mappings(&mappings, options, out)
}

const fn blocks(options: Options<'_>) -> Options<'_> {
    Options {
        tier: Tier::Blocks,
        ..options
    }
}

fn write_blocks(
    profile: &Profile,
    culprits: &Culprits<'_>,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    if profile.rss_only {
        return Ok(());
    }
    if culprits.is_empty() {
        return match options.by {
            Measure::Survivors => writeln!(out, "\nNo block survived."),
            by => writeln!(out, "\nNo block is {}.", by.noun()),
        };
    }
    let title = options.by.noun().to_uppercase();
    write_titles(&title, "blocks of the allocator", options, out)?;
    let listing = Listing {
        top: TOP_ROWS,
        more: "; `--format flamegraph -o FILE.svg` shows all",
        noun: "block",
        ways: true,
    };
    culprits.write(listing, options, out)
}

/// Writes the mappings. The largest number of a report may be of memory that no allocator holds.
fn write_mappings(
    culprits: &Culprits<'_>,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let what = "ranges mapped beside the allocator, touched or not";
    write_titles("MAPPED", what, options, out)?;
    let listing = Listing {
        top: TOP_OTHERS,
        more: "; `--format json` has all",
        noun: "range",
        ways: true,
    };
    culprits.write(listing, options, out)
}

fn write_titles(
    title: &str,
    what: &str,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let heading = Style::bold(options.colour);
    let titles = format!("{title:>11}    %  WHERE, {what}");
    writeln!(out, "\n{}", heading.paint(&titles))
}

/// Writes one row for each route. Routes whose requests left the most behind come first.
fn write_routes(profile: &Profile, options: Options<'_>, out: &mut impl Write) -> io::Result<()> {
    let Some(requests) = &profile.requests else {
        return Ok(());
    };
    let mut shown = requests.table.clone();
    if shown.routes.is_empty() {
        return Ok(());
    }
    let further = shown.routes.len().saturating_sub(TOP_ROUTES);
    shown.routes.truncate(TOP_ROUTES);
    let heading = Style::bold(options.colour);
    writeln!(out, "\n{}", heading.paint("REQUESTS BY ROUTE"))?;
    write_wrapped(&scope_of_routes(profile), Style::PLAIN, out)?;
    routes_table::write(&shown, out)?;
    match further {
        0 => Ok(()),
        more => {
            let more = wording::counted(more as u64, "further route");
            writeln!(out, "\n{more}: `--format json` has all of them")
        }
    }
}

/// Says what the figures by route include, and how much memory outside of those figures grew.
fn scope_of_routes(profile: &Profile) -> String {
    if profile.rss_only {
        return routes_table::NOTHING_FOLLOWED.to_owned();
    }
    let arenas = profile.python_arenas().inuse_bytes;
    let mapped = profile.mapped_beside().inuse_bytes;
    let parts = [
        ("Python's arenas", arenas),
        ("other mappings", mapped.saturating_sub(arenas)),
    ];
    let grew = parts.iter().filter(|(_, bytes)| *bytes > 0);
    let grew = grew.map(|(what, bytes)| format!("{what} grew by {}", wording::bytes(*bytes)));
    let grew: Vec<_> = grew.collect();
    match grew.is_empty() {
        true => routes_table::SCOPE.to_owned(),
        false => format!(
            "{} Meanwhile, {}: not in this.",
            routes_table::SCOPE,
            grew.join(", ")
        ),
    }
}

/// Writes what Python's own allocator holds. It has tables of its own, because it lies in mappings.
fn write_python(profile: &Profile, options: Options<'_>, out: &mut impl Write) -> io::Result<()> {
    let by = options.by.of_all();
    let options = Options { by, ..options };
    if let Some(interval) = profile.python_interval {
        let total = by.bytes(&profile.total_of(Tier::PythonObjects));
        let samples = total / interval.max(1);
        // The recorder decides for each object on its own whether to sample it, so the number of
        // samples is as good as Poisson distributed.
        let error = 100.0 / (samples.max(1) as f64).sqrt();
        let heading = format!(
            "Python objects of up to 512 bytes, estimated from samples, one per {}: {} in {} samples, \
             give or take {error:.1} %",
            wording::bytes(interval),
            wording::bytes(total),
            wording::number(samples),
        );
        write_python_table(profile, Tier::PythonObjects, &heading, options, out)?;
    }
    let heading = "Pool growth of Python's allocator, attributed to the allocation that needed the \
                   pool; an empty pool is not seen going back";
    write_python_table(profile, Tier::PythonPools, heading, options, out)
}

fn write_python_table(
    profile: &Profile,
    tier: Tier,
    heading: &str,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let options = Options { tier, ..options };
    let rows = rows(profile, options);
    let culprits = Culprits::of(profile, &rows);
    if culprits.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    write_wrapped(heading, Style::bold(options.colour), out)?;
    let (noun, _) = tier.nouns();
    let listing = Listing {
        top: TOP_OTHERS,
        more: "",
        noun,
        ways: false,
    };
    culprits.write(listing, options, out)
}
