//! How the text report writes a culprit: its figures and its name, how many blocks it has, the ways
//! that its stacks go, and its callers.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use super::culprits::{Culprit, Listing, Stack};
use crate::profile::{FrameId, Profile};
use crate::report::terminal::{COLUMNS, Style};
use crate::report::{Options, heading};
use crate::wording;

/// Columns before the text of a row.
const INDENT: usize = 18;
/// Columns for the text of a row.
const ROOM: usize = COLUMNS - INDENT;
/// How many ways to list where the stacks of a row part.
const WAYS: usize = 2;
/// How many callers to list that all stacks of a row share.
const CALLERS: usize = 2;

/// A frame, or none where the stack ends, and the bytes of the stacks that go there.
type Way = (Option<String>, u64);

/// The settings that all rows of a table share.
pub(super) struct Page<'a> {
    pub profile: &'a Profile,
    /// The bytes of all rows, of which each row is a share.
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
        let bytes = format!("{mark}{}", wording::bytes(bytes));
        let share = share(culprit.amount.bytes, self.total);
        let mut lines = head(&culprit.label).into_iter();
        let bold = Style::bold(self.options.colour);
        let first = bold.paint(&lines.next().unwrap_or_default());
        writeln!(out, "{bytes:>11} {share:>4}  {first}")?;
        for line in lines {
            writeln!(out, "{:INDENT$}{}", "", bold.paint(&line))?;
        }
        for line in self.details(culprit) {
            let line = wording::fit(&line, ROOM);
            writeln!(out, "{:INDENT$}{}", "", self.dim().paint(&line))?;
        }
        Ok(())
    }

    /// Makes the lines below a row.
    fn details(&self, culprit: &Culprit<'_>) -> Vec<String> {
        let mut lines = vec![self.counts(culprit)];
        if !self.listing.ways {
            return lines;
        }
        let inner = |stack: &Stack<'_>, depth: usize| {
            let index = stack.culprit.checked_sub(depth + 1)?;
            Some(stack.row.frames[index])
        };
        let outer = |stack: &Stack<'_>, depth: usize| {
            let index = stack.culprit.checked_add(depth + 1)?;
            stack.row.frames.get(index).copied()
        };
        let (_, ways) = self.part(&culprit.stacks, usize::MAX, inner);
        lines.extend(listed(&ways, "in", "in itself"));
        let (common, ways) = self.part(&culprit.stacks, CALLERS, outer);
        lines.extend(common.iter().map(|caller| format!("< {caller}")));
        lines.extend(listed(&ways, "<", "without a caller"));
        lines
    }

    /// Says how many blocks there are, in how many processes, and in which requests.
    fn counts(&self, culprit: &Culprit<'_>) -> String {
        let mut text = wording::counted(culprit.amount.objects, self.listing.noun);
        let targets = &self.profile.targets;
        let known = culprit.stacks.iter().flat_map(|stack| &stack.row.targets);
        let known: BTreeSet<usize> = known.copied().flatten().collect();
        let recorded = self.profile.recorded().count();
        if recorded > 1 {
            let by_process = culprit.stacks.iter().any(|stack| stack.row.by_process);
            match known.first().and_then(|target| targets.get(*target)) {
                None => text += ", process unknown",
                Some(target) if by_process => text += &format!(", {}", heading::target(target)),
                Some(_) => text += &format!(", in {} of {} processes", known.len(), recorded),
            }
        }
        if let Some(route) = culprit.route {
            text += &format!(", in {}", wording::printable(&route.to_string()));
        }
        text
    }

    /// Follows stacks from the application's frame as long as all of them are alike, at most `far`
    /// frames. Returns the frames that all stacks share, and then the ways that the stacks go, with
    /// the most bytes first. A single stack has no ways.
    fn part(
        &self,
        stacks: &[Stack<'_>],
        far: usize,
        frame: impl Fn(&Stack<'_>, usize) -> Option<FrameId>,
    ) -> (Vec<String>, Vec<Way>) {
        let mut common = Vec::new();
        while common.len() < far {
            let mut ways = self.ways(stacks, |stack| frame(stack, common.len()));
            if ways.len() > 1 {
                return (common, ways);
            }
            match ways.pop() {
                Some((Some(name), _)) => common.push(name),
                _ => break,
            }
        }
        (common, Vec::new())
    }

    /// Adds up the bytes of stacks by the name of a frame, with the most bytes first.
    fn ways(
        &self,
        stacks: &[Stack<'_>],
        frame: impl Fn(&Stack<'_>) -> Option<FrameId>,
    ) -> Vec<Way> {
        let mut frames: HashMap<Option<FrameId>, u64> = HashMap::new();
        for stack in stacks {
            let bytes = frames.entry(frame(stack)).or_default();
            *bytes = bytes.saturating_add(stack.row.amount.bytes);
        }
        // Frames with the same name are one way.
        let mut ways: HashMap<Option<String>, u64> = HashMap::new();
        for (frame, bytes) in frames {
            let name = frame.map(|frame| self.name(frame, stacks));
            let sum = ways.entry(name).or_default();
            *sum = sum.saturating_add(bytes);
        }
        let mut ways: Vec<_> = ways.into_iter().collect();
        ways.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
        ways
    }

    /// Names a frame with its line, or else with its library, unless that is the application
    /// itself.
    fn name(&self, frame: FrameId, stacks: &[Stack<'_>]) -> String {
        let frame = self.profile.frame(frame);
        let blamed = stacks.first().map(|stack| stack.row.frames[stack.culprit]);
        let own = blamed.and_then(|frame| self.profile.frame(frame).module.as_deref());
        let is_own = frame.module.is_some() && frame.module.as_deref() == own;
        let name = match frame.file.is_some() || is_own {
            true => frame.to_string(),
            false => frame.in_library(),
        };
        wording::printable(&name)
    }
}

/// Lists the first ways, and how many more there are.
fn listed(ways: &[Way], how: &str, nowhere: &str) -> Vec<String> {
    let line = |(name, bytes): &Way| {
        let bytes = wording::bytes(*bytes);
        match name {
            Some(name) => format!("{bytes} {how} {name}"),
            None => format!("{bytes} {nowhere}"),
        }
    };
    // One more way takes no more room than saying that there is one.
    let shown = if ways.len() == WAYS + 1 {
        WAYS + 1
    } else {
        WAYS
    };
    let mut lines: Vec<_> = ways.iter().take(shown).map(line).collect();
    if let Some(more) = ways.get(shown..).filter(|more| !more.is_empty()) {
        let sum = |sum: u64, (_, bytes): &(_, u64)| sum.saturating_add(*bytes);
        let bytes = wording::bytes(more.iter().fold(0, sum));
        lines.push(format!("{bytes} {how} {} further ones", more.len()));
    }
    lines
}

/// Writes the label in one line if it fits, or else in two.
fn head(label: &(String, Option<String>)) -> Vec<String> {
    let (application, library) = label;
    let Some(library) = library else {
        return vec![wording::fit(application, ROOM)];
    };
    let whole = format!("{application}, in {library}");
    if whole.chars().count() <= ROOM {
        return vec![whole];
    }
    vec![
        format!("{},", wording::fit(application, ROOM - 1)),
        format!("in {}", wording::fit(library, ROOM - 3)),
    ]
}

/// Writes a share in per cent. A part is never rounded to all or to nothing.
fn share(bytes: u64, total: u64) -> String {
    let percent = (100.0 * bytes as f64 / total.max(1) as f64).round() as u64;
    match percent {
        0 => "<1%".to_owned(),
        100.. if bytes < total => "99%".to_owned(),
        percent => format!("{percent}%"),
    }
}
