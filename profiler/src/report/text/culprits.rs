//! Whom to blame. Stacks that read the same, from the application's frame to the library that it
//! called, are one row. What differs stands below the row.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Write};

use super::page::Page;
use crate::profile::{FrameId, Profile};
use crate::report::Options;
use crate::report::rows::{self, Row};
use crate::report::terminal::write_wrapped;
use crate::requests::record::Amount;
use crate::requests::route::Route;
use crate::wording;

/// How to list rows.
#[derive(Clone, Copy)]
pub(super) struct Listing<'a> {
    /// How many rows, at most.
    pub top: usize,
    /// Where to find the other rows, as the end of a sentence.
    pub more: &'a str,
    /// The noun for what the rows count.
    pub noun: &'a str,
    /// Whether to list the ways that stacks go, and their callers.
    pub ways: bool,
}

/// The rows of a table, as a person reads them.
pub(super) struct Culprits<'a> {
    profile: &'a Profile,
    all: Vec<Culprit<'a>>,
    total: Amount,
}

/// Stacks that read the same.
pub(super) struct Culprit<'a> {
    /// The application's frame, and the library that it called.
    pub label: (String, Option<String>),
    pub route: Option<&'a Route>,
    pub stacks: Vec<Stack<'a>>,
    pub amount: Amount,
    pub estimated: Amount,
}

/// One stack of a culprit.
pub(super) struct Stack<'a> {
    pub row: &'a Row<'a>,
    /// The index of the application's frame.
    pub culprit: usize,
}

impl<'a> Culprits<'a> {
    /// Collects the rows that count something.
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
        all.sort_by_key(|culprit| Reverse(culprit.amount.bytes));
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

    /// Writes the first rows, and what the other rows hold together.
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
        let bytes = wording::bytes(rows::sum(further.iter().map(|row| row.amount)).bytes);
        let rows = wording::counted(further.len() as u64, "further row");
        let text = format!("{bytes:>11}       {rows}{}", listing.more);
        write_wrapped(&text, page.dim(), out)
    }
}

/// Names the application's frame and the library that it called. A stack without an application's
/// frame yields a frame of a library, and the library.
fn label(profile: &Profile, frames: &[FrameId], culprit: usize) -> (String, Option<String>) {
    let blamed = profile.frame(frames[culprit]);
    let library = match profile.library(frames, culprit) {
        Some(library) => Some(profile.frame(frames[library]).in_library()),
        None => blamed.package().map(str::to_owned),
    };
    let library = library.map(|library| wording::printable(&library));
    (wording::printable(&blamed.to_string()), library)
}
