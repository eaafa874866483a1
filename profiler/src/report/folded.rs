//! Folded stacks: `root;…;leaf bytes`, one line a stack, as flamegraph tools read them.

use std::io::{self, Write};

use crate::profile::{Profile, StackProfile};
use crate::report::{Measure, Options, units};

pub(super) fn write(profile: &Profile, options: Options, out: &mut impl Write) -> io::Result<()> {
    lines(profile, options)
        .iter()
        .try_for_each(|line| writeln!(out, "{line}"))
}

/// The lines, sorted, without those that count nothing.
pub(super) fn lines(profile: &Profile, options: Options) -> Vec<String> {
    let by = options.by;
    let frames: Vec<String> = profile
        .frames
        .iter()
        .map(|it| escape(&it.to_string()))
        .collect();
    let mut lines: Vec<String> = profile
        .tier(options.tier)
        .iter()
        .filter(|stack| by.bytes(&stack.figures) > 0)
        .map(|stack| line(profile, &frames, stack, by))
        .collect();
    lines.sort_unstable();
    lines
}

fn line(profile: &Profile, frames: &[String], stack: &StackProfile, by: Measure) -> String {
    let mut line = String::new();
    // With several processes, each is a root of its own.
    if profile.targets.len() > 1 {
        let target = stack.target.and_then(|index| profile.targets.get(index));
        line.push_str(&target.map_or("[process unknown]".into(), |it| escape(&units::target(it))));
        line.push(';');
    }
    for frame in stack.frames.iter().rev() {
        line.push_str(&frames[frame.index()]);
        line.push(';');
    }
    line.pop();
    line.push(' ');
    line.push_str(&by.bytes(&stack.figures).to_string());
    line
}

/// The format separates frames by `;` and counts by a blank, without a way to quote. A name whose
/// last word is a number would read as a count: its blank becomes `_`.
fn escape(name: &str) -> String {
    let name = units::printable(name).replace(';', ":");
    match name.rsplit_once(' ') {
        Some((rest, last)) if last.parse::<f64>().is_ok() => format!("{rest}_{last}"),
        _ => name,
    }
}
