//! What a text report says of the recording: what is wrong with the figures and how much it is all together, which
//! come first, and the rest, which comes last.

use std::io::{self, Write};

use super::blocks;
use crate::profile::{MappingOwner, Profile};
use crate::report::rows::{self, rows};
use crate::report::terminal::{Style, write_wrapped};
use crate::report::{Measure, Options, heading};
use crate::wording;

/// What is wrong with the figures comes before them.
pub(super) fn write_warnings(
    profile: &Profile,
    colour: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let warning = Style::warning(colour);
    let mut warned = false;
    for counter in profile.lost() {
        let text = format!(
            "LOST  {} {}",
            wording::number(counter.value),
            counter.meaning
        );
        write_wrapped(&wording::printable(&text), warning, out)?;
        warned = true;
    }
    if profile.span.cut_off {
        let text = "NOTE  the recording was cut off: what came after its last interval is missing";
        write_wrapped(text, warning, out)?;
        warned = true;
    }
    if warned { writeln!(out) } else { Ok(()) }
}

/// Whose memory, and how much: one sentence.
pub(super) fn write_summary(
    profile: &Profile,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let targets = heading::targets(profile);
    if profile.rss_only {
        let text = format!(
            "No allocation of {targets} was followed (--rss-only): what is outstanding is not known"
        );
        return write_wrapped(&text, Style::PLAIN, out);
    }
    let total = rows::total(&rows(profile, blocks(options)));
    let what = match options.by {
        Measure::Outstanding => "outstanding",
        Measure::Allocated => "allocated",
        Measure::Retained => "retained by requests",
        Measure::Survivors => "surviving from requests",
    };
    let mut text = format!(
        "{targets}: {} {what} in {}",
        wording::bytes(total.bytes),
        wording::counted(total.objects, "block"),
    );
    let mapped = options.by.bytes(&profile.mapped_beside());
    if options.by.stage().is_none() && mapped > 0 {
        text += &format!(", {} mapped beside them", wording::bytes(mapped));
    }
    write_wrapped(&text, Style::bold(options.colour), out)
}

/// Who was recorded, when, all sums, and what was remarked.
pub(super) fn write_rest(
    profile: &Profile,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out)?;
    write_targets(profile, out)?;
    writeln!(out, "span         {}", heading::span(profile.span))?;
    if !profile.rss_only {
        write_sums(profile, options, out)?;
    }
    for note in &profile.notes {
        let text = format!("note         {}", wording::printable(&note.text));
        write_wrapped(&text, Style::PLAIN, out)?;
    }
    for counter in profile.counters.iter().filter(|it| it.value > 0) {
        if profile.lost().all(|lost| lost.name != counter.name) {
            let value = wording::number(counter.value);
            let text = format!(
                "note         {value} {}",
                wording::printable(&counter.meaning)
            );
            write_wrapped(&text, Style::PLAIN, out)?;
        }
    }
    Ok(())
}

fn write_targets(profile: &Profile, out: &mut impl Write) -> io::Result<()> {
    for target in &profile.targets {
        let ended = target.end_reason.as_ref();
        let ended = ended.map_or(String::new(), |reason| {
            format!(", {}", wording::printable(reason))
        });
        let exe = wording::printable(&target.exe);
        let text = format!("target       {} {exe}{ended}", heading::target(target));
        write_wrapped(&text, Style::PLAIN, out)?;
    }
    Ok(())
}

fn write_sums(profile: &Profile, options: Options<'_>, out: &mut impl Write) -> io::Result<()> {
    let total = profile.total();
    for by in [Measure::Outstanding, Measure::Allocated] {
        writeln!(
            out,
            "{:<12} {} in {}",
            by.noun(),
            wording::bytes(by.bytes(&total)),
            wording::counted(by.objects(&total), "block"),
        )?;
    }
    write_mapped(profile, out)?;
    let options = Options {
        by: options.by.of_all(),
        ..blocks(options)
    };
    let Some(share) = rows::walked_share(&rows(profile, options)) else {
        return Ok(());
    };
    let text = format!(
        "stacks       {share} of the {} bytes have a stack of their own; the rest, marked ~, is \
         apportioned among the stacks of the same caller (--stacks all walks every one)",
        options.by.noun()
    );
    write_wrapped(&text, Style::PLAIN, out)
}

fn write_mapped(profile: &Profile, out: &mut impl Write) -> io::Result<()> {
    use MappingOwner::{Allocator, Application, Shared};
    let owners = [
        (Allocator, "by the allocator, to hold its blocks"),
        (Application, "beside the allocator (mmap)"),
        (Shared, "of shared memory (memfd, shm, MAP_SHARED)"),
    ];
    for (owner, what) in owners {
        let mapped = profile.mapped(owner);
        if mapped.inuse_objects > 0 {
            let bytes = wording::bytes(mapped.inuse_bytes);
            let ranges = wording::counted(mapped.inuse_objects, "range");
            let text = format!("mapped       {bytes} outstanding in {ranges} {what}");
            write_wrapped(&text, Style::PLAIN, out)?;
        }
    }
    let arenas = profile.python_arenas();
    if arenas.inuse_objects > 0 {
        let bytes = wording::bytes(arenas.inuse_bytes);
        let arenas = wording::counted(arenas.inuse_objects, "arena");
        let text = format!(
            "             of it {bytes} in {arenas} of Python, which hold its small objects"
        );
        write_wrapped(&text, Style::PLAIN, out)?;
    }
    Ok(())
}
