//! What stays of processes whose recording is over.

use std::collections::BTreeMap;

use crate::{
    heap::{Figures, Origin},
    remark::{Cost, Named, Remark, Several, Spent},
    requests::record::ProcessUnbound,
    session::{cost::Outcome, followed::Followed},
};

/// Sums over the processes that are over.
#[derive(Default)]
pub struct Past {
    mappings: BTreeMap<Origin, Figures>,
    /// What belonged to no single window of the processes that were added since this was last taken.
    unbound: Vec<ProcessUnbound>,
    costs: Outcomes,
}

/// What recording has cost processes.
#[derive(Clone, Default)]
pub struct Outcomes {
    slowed: Several<(Named, Spent)>,
    idle: Several<Named>,
}

impl Past {
    /// Adds a process, with what belongs to no single window of it and what recording cost it.
    pub fn add(&mut self, followed: &Followed, unbound: ProcessUnbound, outcome: Outcome) {
        for (origin, figures) in followed.ranges.totals() {
            self.mappings.entry(origin).or_default().add(figures);
        }
        self.unbound.push(unbound);
        self.costs.add(followed, outcome);
    }

    /// What the processes had mapped.
    pub fn mappings(&self) -> impl Iterator<Item = (Origin, Figures)> {
        self.mappings
            .iter()
            .map(|(origin, figures)| (*origin, *figures))
    }

    /// What belonged to no single window of processes that were over since the last call.
    pub fn take_unbound(&mut self) -> Vec<ProcessUnbound> {
        std::mem::take(&mut self.unbound)
    }

    /// What recording has cost the processes.
    pub fn costs(&self) -> Outcomes {
        self.costs.clone()
    }
}

impl Outcomes {
    /// Adds a process.
    pub fn add(&mut self, followed: &Followed, outcome: Outcome) {
        match outcome {
            Outcome::Idle => self.idle.push(followed.named()),
            Outcome::Slowed(spent) => self.slowed.push((followed.named(), spent)),
            Outcome::Unremarkable => {}
        }
    }

    /// What a person should know of them. Without allocations there are no requests either to do nothing for.
    pub fn remarks(self, allocations: bool) -> impl Iterator<Item = Remark> {
        let slowed = (!self.slowed.is_empty()).then_some(Cost::Slowdowns(self.slowed));
        let idle = (allocations && !self.idle.is_empty()).then_some(Cost::Idle(self.idle));
        slowed.into_iter().chain(idle).map(Remark::Cost)
    }
}
