//! Whom to blame: stacks that read the same from the application's frame to the library it called are one row, with
//! what differs below.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Write};

use super::{COLUMNS, Style};
use crate::profile::{FrameId, Profile};
use crate::report::rows::{self, Row};
use crate::report::{Options, units};
use crate::window::record::Amount;
use crate::window::route::Route;

/// Columns before the text of a row.
const INDENT: usize = 18;
/// Columns that the text of a row has.
const ROOM: usize = COLUMNS - INDENT;
/// How many ways are listed where stacks of a row part.
const WAYS: usize = 2;
/// How many callers are listed that all stacks of a row have.
const CALLERS: usize = 2;

/// How rows are listed.
#[derive(Clone, Copy)]
pub(super) struct Listing<'a> {
    /// How many, at most.
    pub top: usize,
    /// Where the others are, as the end of a sentence.
    pub more: &'a str,
    /// What is counted.
    pub noun: &'a str,
    /// Whether the ways that stacks go are listed as well, and their callers.
    pub ways: bool,
}

/// Rows as they are read.
pub(super) struct Culprits<'a> {
    profile: &'a Profile,
    all: Vec<Culprit<'a>>,
    total: Amount,
}

/// Stacks that read the same.
struct Culprit<'a> {
    /// The application's frame, and the library that it called.
    label: (String, Option<String>),
    route: Option<&'a Route>,
    stacks: Vec<Stack<'a>>,
    amount: Amount,
    estimated: Amount,
}

struct Stack<'a> {
    row: &'a Row<'a>,
    /// Index of the application's frame.
    culprit: usize,
}

impl<'a> Culprits<'a> {
    /// Of rows that count something.
    pub(super) fn of(profile: &'a Profile, rows: &'a [Row<'a>]) -> Self {
        let mut all: Vec<Culprit<'a>> = Vec::new();
        let mut places = HashMap::new();
        for row in rows.iter().filter(|row| row.amount.bytes > 0) {
            let culprit = profile.culprit(row.frames);
            let label = label(profile, row.frames, culprit);
            let process = row.by_process.then(|| row.targets.clone());
            let key = (label.clone(), row.route, process);
            let place = *places.entry(key).or_insert(all.len());
            if place == all.len() {
                all.push(Culprit {
                    label,
                    route: row.route,
                    stacks: Vec::new(),
                    amount: Amount::default(),
                    estimated: Amount::default(),
                });
            }
            all[place].amount.add(row.amount);
            all[place].estimated.add(row.estimated);
            all[place].stacks.push(Stack { row, culprit });
        }
        all.sort_by_key(|it| Reverse(it.amount.bytes));
        let total = rows::total(rows);
        Self {
            profile,
            all,
            total,
        }
    }

    pub(super) const fn total(&self) -> Amount {
        self.total
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Writes the first rows, and what the others hold.
    pub(super) fn write(
        &self,
        listing: Listing<'_>,
        options: Options<'_>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let page = Page {
            profile: self.profile,
            total: self.total.bytes,
            listing,
            options,
        };
        for culprit in self.all.iter().take(listing.top) {
            page.write(culprit, out)?;
        }
        let further = self.all.get(listing.top..).unwrap_or_default();
        if further.is_empty() {
            return Ok(());
        }
        let bytes = units::bytes(rows::sum(further.iter().map(|it| it.amount)).bytes);
        let rows = units::counted(further.len() as u64, "further row");
        let text = format!("{bytes:>11}       {rows}{}", listing.more);
        super::write_wrapped(&text, page.dim(), out)
    }
}

/// The application's frame, and the library's that it called; or a library's frame, and the library.
fn label(profile: &Profile, frames: &[FrameId], culprit: usize) -> (String, Option<String>) {
    let blamed = profile.frame(frames[culprit]);
    let library = match profile.library(frames, culprit) {
        Some(library) => Some(profile.frame(frames[library]).in_library()),
        None => blamed.package().map(str::to_owned),
    };
    let library = library.map(|it| units::printable(&it));
    (units::printable(&blamed.to_string()), library)
}

/// What rows are written on.
struct Page<'a> {
    profile: &'a Profile,
    total: u64,
    listing: Listing<'a>,
    options: Options<'a>,
}

impl Page<'_> {
    const fn dim(&self) -> Style {
        Style {
            code: "2",
            colour: self.options.colour,
        }
    }

    fn write(&self, culprit: &Culprit<'_>, out: &mut impl Write) -> io::Result<()> {
        let bytes = culprit.amount.bytes;
        let mark = match culprit.estimated.bytes {
            0 => "",
            _ => "~",
        };
        let bytes = format!("{mark}{}", units::bytes(bytes));
        let share = share(culprit.amount.bytes, self.total);
        let mut lines = head(&culprit.label).into_iter();
        let bold = Style {
            code: "1",
            colour: self.options.colour,
        };
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
        let known: std::collections::BTreeSet<usize> = known.copied().flatten().collect();
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
    ) -> (Vec<String>, Vec<(Option<String>, u64)>) {
        let mut common = Vec::new();
        while common.len() < far {
            let mut ways: HashMap<Option<FrameId>, u64> = HashMap::new();
            for stack in stacks {
                let bytes = ways.entry(frame(stack, common.len())).or_default();
                *bytes = bytes.saturating_add(stack.row.amount.bytes);
            }
            let mut ways: Vec<_> = ways.into_iter().collect();
            match ways[..] {
                [] | [(None, _)] => break,
                [(Some(frame), _)] => common.push(self.name(frame, stacks)),
                _ => {
                    ways.sort_by_key(|(frame, bytes)| (Reverse(*bytes), *frame));
                    let named = ways
                        .into_iter()
                        .map(|(frame, bytes)| (frame.map(|it| self.name(it, stacks)), bytes));
                    return (common, named.collect());
                }
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
fn listed(ways: &[(Option<String>, u64)], how: &str, nowhere: &str) -> Vec<String> {
    let line = |(name, bytes): &(Option<String>, u64)| {
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
