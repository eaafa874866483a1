//! Processes that recorded ones have made, and that nobody records: a server forks a worker while its others are
//! attached, or a new one for one that has ended, and that one takes the load.

use std::collections::{BTreeSet, HashSet};

use super::{Core, processes::Processes};
use crate::{
    process::{self, Pid, Process},
    remark::{Named, Remark, When},
};

/// How many children are named while the recording goes on.
const NAMED: usize = 10;

/// The children that residue has named.
#[derive(Default)]
pub struct Children {
    named: HashSet<Pid>,
}

impl Children {
    /// Names the children that live and were not named before. A daemon is nobody's child any more, but the kernel side
    /// has seen it made. What was made before the recording began is a child of somebody's.
    pub fn look(&mut self, processes: &Processes, core: &mut Core<'_>, when: When) {
        let meanwhile = when == When::Meanwhile;
        if meanwhile && self.named.len() >= NAMED {
            return;
        }
        let live = self.unnamed(processes, core, meanwhile);
        if live.is_empty() {
            return;
        }
        self.named.extend(live.iter().map(Process::pid));
        let children = live.iter().map(|process| Named {
            pid: process.pid(),
            comm: process.comm().to_owned(),
        });
        let remark = Remark::Children {
            when,
            asked: core.config.children,
            children: children.collect(),
        };
        core.remark(&remark);
    }

    fn unnamed(&self, processes: &Processes, core: &mut Core<'_>, meanwhile: bool) -> Vec<Process> {
        // The id of a process that has ended may be a stranger's.
        let recorded = processes.iter().map(|followed| &followed.process);
        let recorded: HashSet<Pid> = recorded
            .filter(|process| !process.has_exited())
            .map(Process::pid)
            .collect();
        let made = core.kernel.descendants();
        let made = made.filter_map(|pid| pid.try_into().ok());
        // To look for children is to look at all processes of the host.
        let parents = recorded.iter().filter(|_| !meanwhile);
        let children = parents.flat_map(|&pid| process::children(pid));
        let all: BTreeSet<Pid> = children.chain(made).collect();
        // What was asked for and is not recorded was named with the reason.
        let is_news = |pid: &Pid| {
            !recorded.contains(pid) && !core.config.pids.contains(pid) && !self.named.contains(pid)
        };
        let live = all.into_iter().filter(is_news);
        live.filter_map(|pid| Process::open_unprobed(pid).ok())
            .collect()
    }
}
