//! What discovery finds in a process: the files that it runs code from, and what to probe in them.

use std::convert::Infallible;

use super::walkers;
use crate::{
    probes::{Plan, PlanError, ScopeObject, SitePolicy, plan, plan_under_way},
    process::{Avma, FileOffset, LoadedObject, Process, UnreadableObject},
    remark::Remark,
};

/// The code of a process, and what to probe in it.
#[derive(Default)]
pub struct Discovered {
    /// Its files, in search order; the plan's indices are into these.
    pub objects: Vec<LoadedObject>,
    /// What to probe.
    pub plan: Plan,
    /// Files that could not be read: an allocator in one of them is not seen.
    pub unreadable: Vec<UnreadableObject>,
    /// What nobody looked into: a sentence each.
    pub unseen: Vec<String>,
    /// What takes stacks by itself, and would see them cut: a sentence each.
    pub walkers: Vec<String>,
}

impl Discovered {
    /// Looks at a process's code as of its last snapshot.
    ///
    /// # Errors
    ///
    /// When there is nothing to probe.
    pub fn of(process: &Process, sites: SitePolicy) -> Result<Self, PlanError> {
        Self::planned(process, |scope| plan(scope, sites))
    }

    /// As [`of`](Self::of), of a process that is recorded already.
    pub fn under_way(process: &Process, sites: SitePolicy) -> Self {
        let planned = |scope: &_| Ok::<_, Infallible>(plan_under_way(scope, sites));
        let Ok(discovered) = Self::planned(process, planned);
        discovered
    }

    fn planned<E>(
        process: &Process,
        plan: impl FnOnce(&[ScopeObject]) -> Result<Plan, E>,
    ) -> Result<Self, E> {
        let found = process.loaded_objects();
        let pid = process.pid();
        let too_many = process.has_more_mappings().then(|| {
            "it has more mappings than residue reads: code and memory in the others is not known".to_owned()
        });
        let unseen = found.left_out().into_iter().chain(too_many);
        let unseen = unseen.map(|text| format!("pid {pid}: {text}")).collect();
        let mut unreadable = found.unreadable;
        let (mut objects, mut scope) = (Vec::new(), Vec::new());
        for object in found.objects {
            match ScopeObject::of(&object) {
                Ok(readable) => {
                    scope.push(readable);
                    objects.push(object);
                }
                Err(error) => unreadable.push(error),
            }
        }
        Ok(Self {
            plan: plan(&scope)?,
            unseen,
            walkers: walkers::notes(process, &objects, &scope),
            objects,
            unreadable,
        })
    }

    /// What will not be seen, by residue or by others.
    pub fn gaps(&self) -> impl Iterator<Item = Remark> {
        let unseen = self.unseen.iter().cloned();
        let unreadable = self.unreadable.iter().map(ToString::to_string);
        let skipped = self.plan.skipped.iter().map(|skipped| {
            let object = self.objects[skipped.object].path.display();
            format!(
                "{} in {object} is not probed: {}",
                skipped.symbol, skipped.reason
            )
        });
        let walkers = self.walkers.iter().cloned();
        (unseen.chain(unreadable).map(Remark::NotLookedInto))
            .chain(skipped.map(Remark::NotProbed))
            .chain(walkers.map(Remark::TakesStacks))
    }

    /// The object that holds an address of the process at its last snapshot, and where in the object's file the
    /// address lies.
    pub fn holder(&self, process: &Process, address: Avma) -> Option<(&LoadedObject, FileOffset)> {
        let (mapping, offset) = process.mappings().locate(address)?;
        let mut objects = self.objects.iter();
        let holder = objects.find(|object| Some(object.file) == mapping.file)?;
        Some((holder, offset))
    }
}
