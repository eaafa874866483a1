//! Folded stacks, in the form that flamegraph tools read: `root;…;leaf bytes`, one line for each
//! stack.

use std::io::{self, Write};

use crate::printable::printable;
use crate::profile::Profile;
use crate::report::rows::{Row, rows};
use crate::report::{Options, heading};

pub(super) fn write(
    profile: &Profile,
    options: Options<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    lines(profile, &rows(profile, options))
        .iter()
        .try_for_each(|line| writeln!(out, "{line}"))
}

/// Makes the sorted lines, without those that count nothing.
pub(super) fn lines(profile: &Profile, rows: &[Row<'_>]) -> Vec<String> {
    let frames: Vec<String> = profile
        .frames
        .iter()
        .map(|frame| escape(&frame.to_string()))
        .collect();
    let any = rows.iter().filter(|row| row.amount.bytes > 0);
    let mut lines: Vec<String> = any.map(|row| line(profile, &frames, row)).collect();
    lines.sort_unstable();
    lines
}

fn line(profile: &Profile, frames: &[String], row: &Row<'_>) -> String {
    let mut line = String::new();
    // Processes that are told apart are a root each. Where several routes are shown, each is a root
    // below its process.
    if row.by_process {
        let target = row.targets.first().copied().flatten();
        let target = target.and_then(|index| profile.targets.get(index));
        line.push_str(&target.map_or("[process unknown]".into(), |target| {
            escape(&heading::target(target))
        }));
        line.push(';');
    }
    if let Some(route) = row.route {
        line.push_str(&escape(&route.to_string()));
        line.push(';');
    }
    for frame in row.frames.iter().rev() {
        line.push_str(&frames[frame.index()]);
        line.push(';');
    }
    line.pop();
    line.push(' ');
    line.push_str(&row.amount.bytes.to_string());
    line
}

/// Writes a name so that readers of folded stacks take it for one name. The format separates frames
/// by `;` and counts by a blank, and has no way to quote. A name whose last word is a number would
/// read as a count, so its last blank becomes `_`. Readers take off blanks around a name, so these
/// become `_` too. Readers skip lines that begin with `#`, so such a name gets a `_` before. An
/// empty name becomes `[no name]`.
pub(super) fn escape(name: &str) -> String {
    let mut name = printable(name).replace(';', ":");
    if name.starts_with('#') {
        name.insert(0, '_');
    }
    if name.starts_with(' ') {
        name.replace_range(..1, "_");
    }
    if name.ends_with(' ') {
        name.replace_range(name.len() - 1.., "_");
    }
    match name.rsplit_once(' ') {
        Some((rest, last)) if last.parse::<f64>().is_ok() => format!("{rest}_{last}"),
        _ if name.is_empty() => "[no name]".to_owned(),
        _ => name,
    }
}
