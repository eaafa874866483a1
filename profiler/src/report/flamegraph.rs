//! The flamegraph, drawn by inferno.

use std::io::{self, Write};

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{self, TextTruncateDirection};

use crate::profile::Profile;
use crate::report::rows::{self, Row, rows};
use crate::report::{Measure, Options, folded, units};
use crate::window::route::Route;

/// Pixels. Wide enough for names to be read in a picture; a browser scales it to its window.
const WIDTH: usize = 1600;

/// The width of a monospaced letter as a part of the font size, a little above the 0.602 of DejaVu
/// Sans Mono and Courier: names are cut so that they stay inside their box.
const FONT_WIDTH: f64 = 0.61;

/// Per cent of the width below which a frame is left out: one pixel, which nobody could click.
const MIN_WIDTH: f64 = 0.06;

/// Letters that the title has room for beside the name of a route.
const ROUTE_COLUMNS: usize = 80;

pub(super) fn write(profile: &Profile, shown: Options<'_>, out: &mut impl Write) -> io::Result<()> {
    let rows = rows(profile, shown);
    let lines = folded::lines(profile, &rows);
    let [title, subtitle] = [title(profile, shown), subtitle(profile, shown, &rows)];
    if lines.is_empty() {
        return write_empty(&title, &subtitle, out);
    }
    let mut options = flamegraph::Options::default();
    options.colors = Palette::Basic(BasicPalette::Mem);
    options.deterministic = true;
    options.title = title;
    options.subtitle = Some(subtitle);
    options.count_name = "bytes".to_owned();
    options.name_type = "Function:".to_owned();
    options.image_width = Some(WIDTH);
    options.font_width = FONT_WIDTH;
    options.min_width = MIN_WIDTH;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.no_sort = true;
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out)
}

fn title(profile: &Profile, shown: Options<'_>) -> String {
    let targets = units::targets(profile);
    let (_, memory) = shown.tier.nouns();
    let requests = requests(shown);
    match shown.by {
        Measure::Outstanding => format!("Outstanding {memory} of {targets}"),
        Measure::Allocated => format!("Allocated {memory} of {targets}"),
        Measure::Retained => format!("Memory retained by {requests} · {targets}"),
        Measure::Survivors => format!("Memory that survived {requests} · {targets}"),
    }
}

/// Whose requests are shown.
fn requests(shown: Options<'_>) -> String {
    let name = |route: &Route| units::fit(&units::printable(&route.to_string()), ROUTE_COLUMNS);
    shown.route.map_or_else(|| "requests".to_owned(), name)
}

/// What is counted, when, and what is missing.
fn subtitle(profile: &Profile, shown: Options<'_>, rows: &[Row<'_>]) -> String {
    let total = rows::total(rows);
    let (block, _) = shown.tier.nouns();
    let counted = match shown.by {
        Measure::Outstanding => "allocated since attach and not yet freed",
        Measure::Allocated => "allocated since attach",
        Measure::Retained => "not yet freed when their request was over",
        Measure::Survivors => "not freed within the grace of their request",
    };
    // What requests left behind may be gone, too, which a frame says.
    let rest = match shown.by.stage() {
        None => ", the rest apportioned",
        Some(_) => "",
    };
    let mut lost: Vec<String> = profile
        .lost()
        .map(|counter| format!("{} {}", units::number(counter.value), counter.name))
        .collect();
    if lost.is_empty() {
        lost.push("nothing".to_owned());
    }
    format!(
        "{} in {} {counted} · {}{} · lost: {}",
        units::bytes(total.bytes),
        units::counted(total.objects, block),
        units::span(profile.span),
        rows::walked_share(rows).map_or(String::new(), |share| format!(
            " · {share} by their own stack{rest}"
        )),
        lost.join(", "),
    )
}

/// inferno draws nothing without a stack; this says so in its place.
fn write_empty(title: &str, subtitle: &str, out: &mut impl Write) -> io::Result<()> {
    let [title, subtitle] = [title, subtitle].map(xml);
    writeln!(
        out,
        r##"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="{WIDTH}" height="96" viewBox="0 0 {WIDTH} 96" xmlns="http://www.w3.org/2000/svg" font-family="monospace" text-anchor="middle">
<rect width="100%" height="100%" fill="#eef2ee"/>
<text x="50%" y="32" font-size="17">{title}</text>
<text x="50%" y="56" font-size="12">{subtitle}</text>
<text x="50%" y="80" font-size="12">There is nothing to draw.</text>
</svg>"##
    )
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
