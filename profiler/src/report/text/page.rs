//! How a culprit is written: its figures and its name, how many have it, the ways that its stacks go, its callers.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use super::culprits::{Culprit, Listing, Stack};
use crate::profile::{FrameId, Profile};
use crate::report::terminal::{COLUMNS, Style};
use crate::report::{Options, units};

/// Columns before the text of a row.
const INDENT: usize = 18;
/// Columns that the text of a row has.
const ROOM: usize = COLUMNS - INDENT;
/// How many ways are listed where stacks of a row part.
const WAYS: usize = 2;
/// How many callers are listed that all stacks of a row have.
const CALLERS: usize = 2;

/// A frame, none where the stack ends, and the bytes of the stacks that go there.
type Way = (Option<String>, u64);

/// What rows are written on.
pub(super) struct Page<'a> {
    pub profile: &'a Profile,
    /// Of which shares are, bytes.
    pub total: u64,
    pub listing: Listing<'a>,
    pub options: Options<'a>,
}

impl Page<'_> {
    pub(super) const fn dim(&self) -> Style {
        Style::dim(self.options.colour)
    }

    pub(super) fn write(&self, culprit: &Culprit<'_>, out: &mut impl Write) -> io::Result<()> {
        let bytes = culprit.amount.bytes;
        let mark = match culprit.estimated.bytes {
            0 => "",
            _ => "~",
        };
        let bytes = format!("{mark}{}", units::bytes(bytes));
        let share = share(culprit.amount.bytes, self.total);
        let mut lines = head(&culprit.label).into_iter();
        let bold = Style::bold(self.options.colour);
        let first = bold.paint(&lines.next().unwrap_or_default());
        writeln!(out, "{bytes:>11} {share:>4}  {first}")?;
        for line in lines {
            writeln!(out, "{:INDENT$}{}", "", bold.paint(&line))?;
        }
        for line in self.details(culprit) {
            let line = units::fit(&line, ROOM);
            writeln!(out, "{:INDENT$}{}", "", self.dim().paint(&line))?;
        }
        Ok(())
    }

    /// What stands below a row.
    fn details(&self, culprit: &Culprit<'_>) -> Vec<String> {
        let mut lines = vec![self.counts(culprit)];
        if !self.listing.ways {
            return lines;
        }
        let inner = |it: &Stack<'_>, depth: usize| {
            let index = it.culprit.checked_sub(depth + 1)?;
            Some(it.row.frames[index])
        };
        let outer = |it: &Stack<'_>, depth: usize| {
            let index = it.culprit.checked_add(depth + 1)?;
            it.row.frames.get(index).copied()
        };
        let (_, ways) = self.part(&culprit.stacks, usize::MAX, inner);
        lines.extend(listed(&ways, "in", "in itself"));
        let (common, ways) = self.part(&culprit.stacks, CALLERS, outer);
        lines.extend(common.iter().map(|caller| format!("< {caller}")));
        lines.extend(listed(&ways, "<", "without a caller"));
        lines
    }

    /// How many blocks, in how many processes, and of which requests.
    fn counts(&self, culprit: &Culprit<'_>) -> String {
        let mut text = units::counted(culprit.amount.objects, self.listing.noun);
        let targets = &self.profile.targets;
        let known = culprit.stacks.iter().flat_map(|it| &it.row.targets);
        let known: BTreeSet<usize> = known.copied().flatten().collect();
        if targets.len() > 1 {
            let by_process = culprit.stacks.iter().any(|it| it.row.by_process);
            match known.first().and_then(|it| targets.get(*it)) {
                None => text += ", process unknown",
                Some(target) if by_process => text += &format!(", {}", units::target(target)),
                Some(_) => text += &format!(", in {} of {} processes", known.len(), targets.len()),
            }
        }
        if let Some(route) = culprit.route {
            text += &format!(", in {}", units::printable(&route.to_string()));
        }
        text
    }

    /// Follows stacks from the application's frame as long as all are alike, at most so far; what all have, and then
    /// the ways that they go, those with the most bytes first. Of one stack there are no ways.
    fn part(
        &self,
        stacks: &[Stack<'_>],
        far: usize,
        frame: impl Fn(&Stack<'_>, usize) -> Option<FrameId>,
    ) -> (Vec<String>, Vec<Way>) {
        let mut common = Vec::new();
        while common.len() < far {
            let mut frames: HashMap<Option<FrameId>, u64> = HashMap::new();
            for stack in stacks {
                let bytes = frames.entry(frame(stack, common.len())).or_default();
                *bytes = bytes.saturating_add(stack.row.amount.bytes);
            }
            // Frames that read the same are no different ways.
            let mut ways: HashMap<Option<String>, u64> = HashMap::new();
            for (frame, bytes) in frames {
                let name = frame.map(|it| self.name(it, stacks));
                let sum = ways.entry(name).or_default();
                *sum = sum.saturating_add(bytes);
            }
            let mut ways: Vec<_> = ways.into_iter().collect();
            if ways.len() > 1 {
                ways.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
                return (common, ways);
            }
            match ways.pop() {
                Some((Some(name), _)) => common.push(name),
                _ => break,
            }
        }
        (common, Vec::new())
    }

    /// A frame with its line, or else with its library, if that is not the application itself.
    fn name(&self, frame: FrameId, stacks: &[Stack<'_>]) -> String {
        let frame = self.profile.frame(frame);
        let blamed = stacks.first().map(|it| it.row.frames[it.culprit]);
        let own = blamed.and_then(|it| self.profile.frame(it).module.as_deref());
        let is_own = frame.module.is_some() && frame.module.as_deref() == own;
        let name = match frame.file.is_some() || is_own {
            true => frame.to_string(),
            false => frame.in_library(),
        };
        units::printable(&name)
    }
}

/// The first ways, and how many more there are.
fn listed(ways: &[Way], how: &str, nowhere: &str) -> Vec<String> {
    let line = |(name, bytes): &Way| {
        let bytes = units::bytes(*bytes);
        match name {
            Some(name) => format!("{bytes} {how} {name}"),
            None => format!("{bytes} {nowhere}"),
        }
    };
    // One more takes no more room than to say so.
    let shown = if ways.len() == WAYS + 1 {
        WAYS + 1
    } else {
        WAYS
    };
    let mut lines: Vec<_> = ways.iter().take(shown).map(line).collect();
    if let Some(more) = ways.get(shown..).filter(|more| !more.is_empty()) {
        let sum = |sum: u64, (_, bytes): &(_, u64)| sum.saturating_add(*bytes);
        let bytes = units::bytes(more.iter().fold(0, sum));
        lines.push(format!("{bytes} {how} {} further ones", more.len()));
    }
    lines
}

/// In one line if that holds it, else in two.
fn head(label: &(String, Option<String>)) -> Vec<String> {
    let (application, library) = label;
    let Some(library) = library else {
        return vec![units::fit(application, ROOM)];
    };
    let whole = format!("{application}, in {library}");
    if whole.chars().count() <= ROOM {
        return vec![whole];
    }
    vec![
        format!("{},", units::fit(application, ROOM - 1)),
        format!("in {}", units::fit(library, ROOM - 3)),
    ]
}

/// Neither all nor nothing: neither rounds.
fn share(bytes: u64, total: u64) -> String {
    let percent = (100.0 * bytes as f64 / total.max(1) as f64).round() as u64;
    match percent {
        0 => "<1%".to_owned(),
        100.. if bytes < total => "99%".to_owned(),
        percent => format!("{percent}%"),
    }
}
