//! The flamegraph, which inferno draws.

mod colours;
mod page;

use std::io::{self, Write};

use inferno::flamegraph::color::{BackgroundColor, StrokeColor};
use inferno::flamegraph::{self, TextTruncateDirection};

use crate::profile::Profile;
use crate::report::rows::{self, Row, rows};
use crate::report::{Measure, Options, empty, folded, heading};
use crate::requests::route::Route;
use crate::wording;
use colours::Colours;
use page::Page;

/// The width of a monospaced letter as a part of the font size. The value lies a little above the
/// 0.602 of DejaVu Sans Mono and Courier, so that cut names stay inside their box.
const FONT_WIDTH: f64 = 0.61;

/// The least width of a frame in per cent of the picture: about one pixel. Nobody could click a
/// smaller frame.
const MIN_WIDTH: f64 = 0.06;

/// How many letters of the name of a route the title has room for.
const ROUTE_COLUMNS: usize = 80;

/// How many counters of losses the picture names, and how many letters of each. A capture may hold
/// any number of them.
const MAX_LOST: usize = 8;
const LOST_COLUMNS: usize = 40;

pub(super) fn write(profile: &Profile, shown: Options<'_>, out: &mut impl Write) -> io::Result<()> {
    let rows = rows(profile, shown);
    let mut page = Page {
        title: title(profile, shown),
        remarks: remarks(profile, shown, &rows),
        colours: Colours::default(),
    };
    if let Some(why) = why_not_drawn(profile, shown, &rows) {
        page.remarks.insert(0, why.to_owned());
        return page.write_empty(out);
    }
    let lines = folded::lines(profile, &rows);
    page.colours = Colours::of(profile, &rows, &lines);
    let drawn = draw(&lines, &mut page.colours)?;
    page.write(&drawn, out)
}

fn why_not_drawn(profile: &Profile, shown: Options<'_>, rows: &[Row<'_>]) -> Option<&'static str> {
    let mut bytes = rows.iter().map(|row| row.amount.bytes);
    // inferno adds up the bytes in 64 bits, too.
    match bytes.try_fold(0, u64::checked_add) {
        None => Some("These figures are larger than any memory: the capture is damaged."),
        Some(_) => empty::why_empty(profile, shown),
    }
}

/// Draws the frames as wide as the window. [`Page`] makes the parts around the frames.
fn draw(lines: &[String], colours: &mut Colours) -> io::Result<Vec<u8>> {
    let mut options = flamegraph::Options::default();
    options.bgcolors = Some(BackgroundColor::Flat(colours::BACKGROUND));
    options.stroke_color = StrokeColor::Color(colours::BACKGROUND);
    options.palette_map = Some(&mut colours.by_name);
    options.count_name = "bytes".to_owned();
    options.name_type = String::new();
    options.image_width = None;
    options.font_width = FONT_WIDTH;
    options.min_width = MIN_WIDTH;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.no_sort = true;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
    Ok(svg)
}

fn title(profile: &Profile, shown: Options<'_>) -> String {
    let targets = heading::targets(profile);
    let (_, memory) = shown.tier.nouns();
    let requests = requests(shown);
    match shown.by {
        Measure::Outstanding => format!("Outstanding {memory} of {targets}"),
        Measure::Allocated => format!("Allocated {memory} of {targets}"),
        Measure::Retained => format!("Memory retained by {requests} · {targets}"),
        Measure::Survivors => format!("Memory that survived {requests} · {targets}"),
    }
}

/// Names the requests that the picture shows.
fn requests(shown: Options<'_>) -> String {
    let name = |route: &Route| wording::fit(&wording::printable(&route.to_string()), ROUTE_COLUMNS);
    shown.route.map_or_else(|| "requests".to_owned(), name)
}

/// Says what the picture counts, when that was, and what is missing.
fn remarks(profile: &Profile, shown: Options<'_>, rows: &[Row<'_>]) -> Vec<String> {
    let total = rows::total(rows);
    let (block, _) = shown.tier.nouns();
    let counted = match shown.by {
        Measure::Outstanding => "allocated since attach and not yet freed",
        Measure::Allocated => "allocated since attach",
        Measure::Retained => "not yet freed when their request was over",
        Measure::Survivors => "not freed within the grace of their request",
    };
    // A frame of the picture says so where memory that requests left behind has no stack.
    let rest = match shown.by.stage() {
        None => ", the rest apportioned",
        Some(_) => "",
    };
    let (bytes, blocks) = (
        wording::bytes(total.bytes),
        wording::counted(total.objects, block),
    );
    let share = rows::walked_share(rows);
    [
        Some(format!("{bytes} in {blocks} {counted}")),
        Some(heading::span(profile.span)),
        share.map(|share| format!("{share} by their own stack{rest}")),
        Some(lost(profile)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn lost(profile: &Profile) -> String {
    let all = profile.lost().count();
    let named = profile.lost().take(MAX_LOST).map(|counter| {
        let name = wording::fit(&counter.name, LOST_COLUMNS);
        format!("{} {name}", wording::number(counter.value))
    });
    let mut lost: Vec<String> = named.collect();
    if let Some(more @ 1..) = all.checked_sub(MAX_LOST) {
        lost.push(format!("and {} more", wording::number(more as u64)));
    }
    match lost.is_empty() {
        true => "lost: nothing".to_owned(),
        false => format!("lost: {}", lost.join(", ")),
    }
}
