//! The report for a terminal: what was lost, the totals, and the stacks that hold the most.

use std::io::{self, Write};

use crate::profile::{FrameId, MappingOwner, Profile, Tier};
use crate::report::rows::{self, Row, rows};
use crate::report::{Measure, Options, units};
use crate::window::table;

/// Columns that a line may take; a terminal half as wide as a screen shows it.
const COLUMNS: usize = 100;

/// Columns before the text of a stack.
const INDENT: usize = 36;

/// How many stacks are listed. More are for a flamegraph.
const TOP_STACKS: usize = 20;

/// How many routes are listed. More are for programs.
const TOP_ROUTES: usize = 20;

/// How many stacks of Python's own allocator are listed.
const TOP_PYTHON: usize = 5;

/// How many callers are listed below the culprit.
const CALLERS: usize = 3;

pub(super) fn write(
    profile: &Profile,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    write_warnings(profile, options.colour, out)?;
    write_header(profile, options, out)?;
    write_routes(profile, options, out)?;
    write_table(profile, options, out)?;
    write_python(profile, options, out)
}

/// What is wrong with the figures comes before them.
fn write_warnings(profile: &Profile, colour: bool, out: &mut impl Write) -> io::Result<()> {
    let warning = Style {
        code: "1;31",
        colour,
    };
    let mut warned = false;
    for counter in profile.lost() {
        let text = format!("LOST  {} {}", units::number(counter.value), counter.meaning);
        write_wrapped(&text, warning, out)?;
        warned = true;
    }
    if profile.span.cut_off {
        let text = "NOTE  the recording was cut off: what came after its last interval is missing";
        write_wrapped(text, warning, out)?;
        warned = true;
    }
    if warned { writeln!(out) } else { Ok(()) }
}

fn write_header(profile: &Profile, options: Options<'_>, out: &mut impl Write) -> io::Result<()> {
    let plain = Style {
        code: "",
        colour: false,
    };
    for target in &profile.targets {
        let ended = target.end_reason.as_ref();
        let ended = ended.map_or(String::new(), |reason| {
            format!(", {}", units::printable(reason))
        });
        let exe = units::printable(&target.exe);
        write_wrapped(
            &format!("target       {} {exe}{ended}", units::target(target)),
            plain,
            out,
        )?;
    }
    writeln!(out, "span         {}", units::span(profile.span))?;
    let total = profile.total();
    for by in [Measure::Outstanding, Measure::Allocated] {
        writeln!(
            out,
            "{:<12} {} in {}",
            by.noun(),
            units::bytes(by.bytes(&total)),
            units::counted(by.objects(&total), "block"),
        )?;
    }
    write_mapped(profile, out)?;
    let by = options.by.of_all();
    let blocks = Options {
        by,
        tier: Tier::Blocks,
        ..options
    };
    if let Some(share) = rows::walked_share(&rows(profile, blocks)) {
        let text = format!(
            "stacks       {share} of the {} bytes have a stack of their own; the rest, marked ~, is \
             apportioned among the stacks of the same caller (--stacks all walks every one)",
            by.noun()
        );
        write_wrapped(&text, plain, out)?;
    }
    for note in &profile.notes {
        write_wrapped(
            &format!("note         {}", units::printable(&note.text)),
            plain,
            out,
        )?;
    }
    for counter in profile.counters.iter().filter(|it| it.value > 0) {
        if profile.lost().all(|lost| lost.name != counter.name) {
            let text = format!(
                "note         {} {}",
                units::number(counter.value),
                counter.meaning
            );
            write_wrapped(&text, plain, out)?;
        }
    }
    Ok(())
}

fn write_mapped(profile: &Profile, out: &mut impl Write) -> io::Result<()> {
    let owners = [
        (
            MappingOwner::Allocator,
            "by the allocator, to hold its blocks",
        ),
        (MappingOwner::Application, "beside the allocator (mmap)"),
        (
            MappingOwner::Shared,
            "of shared memory (memfd, shm, MAP_SHARED)",
        ),
    ];
    for (owner, what) in owners {
        let mapped = profile.mapped(owner);
        if mapped.inuse_objects > 0 {
            let bytes = units::bytes(mapped.inuse_bytes);
            let ranges = units::counted(mapped.inuse_objects, "range");
            writeln!(out, "mapped       {bytes} outstanding in {ranges} {what}")?;
        }
    }
    let arenas = profile.python_arenas();
    if arenas.inuse_objects > 0 {
        let bytes = units::bytes(arenas.inuse_bytes);
        let arenas = units::counted(arenas.inuse_objects, "arena");
        writeln!(
            out,
            "             of it {bytes} in {arenas} of Python, which hold its small objects"
        )?;
    }
    Ok(())
}

/// One row a route, those first whose requests left the most behind.
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
    let heading = Style {
        code: "1",
        colour: options.colour,
    };
    writeln!(out, "\n{}", heading.paint("REQUESTS BY ROUTE"))?;
    table::write(&shown, out)?;
    match further {
        0 => Ok(()),
        more => {
            let more = units::counted(more as u64, "further route");
            writeln!(out, "\n{more}: `--format json` has all of them")
        }
    }
}

fn write_table(profile: &Profile, options: Options<'_>, out: &mut impl Write) -> io::Result<()> {
    let options = Options {
        tier: Tier::Blocks,
        ..options
    };
    let all = rows(profile, options);
    let total = rows::total(&all).bytes;
    let stacks = all.iter().filter(|row| row.amount.bytes > 0);
    let count = stacks.clone().count();
    if count == 0 {
        return match options.by {
            Measure::Survivors => writeln!(out, "\nNothing survived."),
            by => writeln!(out, "\nNothing is {}.", by.noun()),
        };
    }
    let heading = Style {
        code: "1",
        colour: options.colour,
    };
    let titles = format!(
        "{:>12}{:>8}{:>14}  WHERE",
        options.by.noun().to_uppercase(),
        "SHARE",
        "BLOCKS"
    );
    writeln!(out, "\n{}", heading.paint(&titles))?;
    for stack in stacks.take(TOP_STACKS) {
        write_stack(profile, stack, total, options, out)?;
    }
    match count.saturating_sub(TOP_STACKS) {
        0 => Ok(()),
        more => {
            let more = units::counted(more as u64, "further stack");
            writeln!(
                out,
                "\n{more}: `--format flamegraph -o FILE.svg` shows all of them"
            )
        }
    }
}

/// What Python's own allocator holds: in tables of their own, because it lies in what was mapped.
fn write_python(profile: &Profile, options: Options<'_>, out: &mut impl Write) -> io::Result<()> {
    let by = options.by.of_all();
    let options = Options { by, ..options };
    if let Some(interval) = profile.python_interval {
        let total = by.bytes(&profile.total_of(Tier::PythonObjects));
        let samples = total / interval.max(1);
        // Whether an object is sampled is decided for each on its own: samples are as good as Poisson.
        let error = 100.0 / (samples.max(1) as f64).sqrt();
        let heading = format!(
            "Python objects of up to 512 bytes, estimated from samples, one per {}: {} in {} samples, \
             give or take {error:.1} %",
            units::bytes(interval),
            units::bytes(total),
            units::number(samples),
        );
        write_short_table(profile, Tier::PythonObjects, &heading, options, out)?;
    }
    let heading = "Pool growth of Python's allocator, attributed to the allocation that needed the \
                   pool; an empty pool is not seen going back";
    write_short_table(profile, Tier::PythonPools, heading, options, out)
}

fn write_short_table(
    profile: &Profile,
    tier: Tier,
    heading: &str,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let options = Options { tier, ..options };
    let all = rows(profile, options);
    let total = rows::total(&all).bytes;
    if total == 0 {
        return Ok(());
    }
    writeln!(out)?;
    let style = Style {
        code: "1",
        colour: options.colour,
    };
    write_wrapped(heading, style, out)?;
    let stacks = all.iter().filter(|row| row.amount.bytes > 0);
    for stack in stacks.take(TOP_PYTHON) {
        write_stack(profile, stack, total, options, out)?;
    }
    Ok(())
}

fn write_stack(
    profile: &Profile,
    stack: &Row<'_>,
    total: u64,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let bytes = stack.amount.bytes;
    let share = 100.0 * bytes as f64 / total as f64;
    let blocks = units::number(stack.amount.objects);
    let mark = match stack.estimated.bytes {
        0 => "",
        _ => "~",
    };
    let culprit = profile.culprit(stack.frames);
    let (callers, name) = (
        &stack.frames[culprit + 1..],
        label(profile, stack.frames[culprit]),
    );
    let emphasis = Style {
        code: "1",
        colour: options.colour,
    };
    let dim = Style {
        code: "2",
        colour: options.colour,
    };
    let name = emphasis.paint(&units::fit(&name, COLUMNS - INDENT));
    writeln!(
        out,
        "{:>12}{share:>7.1}%{blocks:>14}  {name}",
        format!("{mark}{}", units::bytes(bytes))
    )?;
    let callers = callers.iter().take(CALLERS);
    let callers = callers.map(|caller| format!("< {}", label(profile, *caller)));
    let route = stack.route.map(|route| format!("in {route}"));
    for text in callers.chain(route) {
        let text = units::fit(&text, COLUMNS - INDENT - 2);
        writeln!(out, "{:INDENT$}  {}", "", dim.paint(&text))?;
    }
    Ok(())
}

fn label(profile: &Profile, frame: FrameId) -> String {
    units::printable(&profile.frame(frame).to_string())
}

fn write_wrapped(text: &str, style: Style, out: &mut impl Write) -> io::Result<()> {
    let lines = units::wrap(text, COLUMNS);
    lines
        .iter()
        .try_for_each(|line| writeln!(out, "{}", style.paint(line)))
}

/// An ANSI style (ECMA-48, "Select Graphic Rendition").
#[derive(Clone, Copy)]
struct Style {
    code: &'static str,
    colour: bool,
}

impl Style {
    fn paint(self, text: &str) -> String {
        if self.colour {
            format!("\x1b[{}m{text}\x1b[0m", self.code)
        } else {
            text.to_owned()
        }
    }
}
