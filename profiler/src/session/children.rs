//! Processes that recorded ones have made, and that nobody records: a server forks a worker while its others are
//! attached, or a new one for one that has ended, and that one takes the load.

use std::collections::{BTreeSet, HashSet};

use super::{Session, SessionError};
use crate::process::{Pid, Process};

/// How many are named at a time; while the recording goes on, so many in all.
const NAMED: usize = 10;

/// When it is looked for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All probes are in.
    AtTheStart,
    /// An interval is written.
    Meanwhile,
    /// Nothing counts any more.
    AtTheEnd,
}

impl Session<'_> {
    /// Names those that live and were not named before. A daemon is nobody's child any more; the kernel side has seen
    /// it made. What was made before that is a child of somebody's.
    pub(super) fn note_children(&mut self, when: When) -> Result<(), SessionError> {
        let meanwhile = when == When::Meanwhile;
        if meanwhile && self.named_children.len() >= NAMED {
            return Ok(());
        }
        // The id of a process that has ended may be a stranger's.
        let recorded = self.followed.iter().map(|followed| &followed.process);
        let recorded: HashSet<Pid> = recorded
            .filter(|process| !process.has_exited())
            .map(Process::pid)
            .collect();
        let made = self.kernel.descendants();
        let made = made.filter_map(|it| it.try_into().ok());
        // To look for children is to look at all processes of the host.
        let parents = recorded.iter().filter(|_| !meanwhile);
        let children = parents.flat_map(|&pid| crate::process::children(pid));
        let all: BTreeSet<Pid> = children.chain(made).collect();
        // What was asked for and is not recorded was named with the reason.
        let is_news = |pid: &Pid| {
            !recorded.contains(pid)
                && !self.config.pids.contains(pid)
                && !self.named_children.contains(pid)
        };
        let live = all.into_iter().filter(is_news);
        let live: Vec<Process> = live
            .filter_map(|pid| Process::open_unprobed(pid).ok())
            .collect();
        if live.is_empty() {
            return Ok(());
        }
        let named = live.iter().take(NAMED);
        let named: Vec<String> = named
            .map(|it| format!("{} ({})", it.pid(), it.comm()))
            .collect();
        let further = match live.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.named_children.extend(live.iter().map(Process::pid));
        // With --children, those that were there have been recorded or named.
        let what = match (when, self.config.children) {
            (When::AtTheStart, false) => "child processes that are there are",
            (When::AtTheStart | When::Meanwhile, _) => {
                "child processes that were forked after the recording began are"
            }
            (When::AtTheEnd, true) => {
                "child processes that were forked after the recording began were"
            }
            (When::AtTheEnd, false) => "child processes that run on were",
        };
        let children = match self.config.children {
            true => "",
            false => ", or give --children once they exist",
        };
        self.note(format!(
            "{what} not recorded: {}{further}; record them by -p PID{children}",
            named.join(", ")
        ))
    }
}
