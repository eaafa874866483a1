//! The processes of a recording. Each begins by [`Processes::admit`], [`Processes::attach`] and [`Processes::open`],
//! and ends by [`Processes::retire`], whether the recording begins or goes on, and however the process ends.

mod past;
mod slots;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    process::ExitStatus,
    time::Instant,
};

use residue_ebpf::abi::{
    counters::Counter,
    event::{Event, EventKind},
};

use super::{
    Config, Core, SessionError,
    discovered::Discovered,
    followed::Followed,
    launch::{Launched, how_it_ended},
    python_probes::PythonProbes,
    sources::WindowProbes,
};
use crate::{
    attach::AttachError,
    heap::{Figures, Origin},
    ids::{ProcessNumber, Slot},
    process::{Pid, Process},
    remark::Remark,
    requests::record::ProcessUnbound,
};
use past::Past;
use slots::Slots;

pub use past::Outcomes;

/// The processes that are followed, and what stays of those that were.
pub struct Processes {
    followed: BTreeMap<Slot, Followed>,
    /// Processes whose recording is over, and whose last events may still wait in the ring buffers, by their slots.
    leaving: Vec<Slot>,
    slots: Slots,
    past: Past,
    python: PythonProbes,
    sources: WindowProbes,
    /// Python objects that were allocated while they were sampled.
    python_objects: u64,
    /// The command that was started, if there was one.
    command: Option<Launched>,
}

/// What putting the probes of a process in has come to.
#[derive(Debug, Default)]
pub struct Attached {
    /// How many functions are probed.
    pub functions: usize,
    /// What will not be seen.
    pub gaps: Vec<Remark>,
}

/// Which processes events have changed, by their slots.
#[derive(Debug, Default)]
pub struct Changed {
    /// Processes that have mapped code.
    pub with_new_code: BTreeSet<Slot>,
    /// Processes that have replaced their programs: what is mapped now is another program's.
    pub executed: BTreeSet<Slot>,
}

impl Processes {
    /// Nobody is followed yet.
    pub fn new(config: &Config) -> Self {
        Self {
            followed: BTreeMap::new(),
            leaving: Vec::new(),
            slots: Slots::default(),
            past: Past::default(),
            python: PythonProbes::new(config),
            sources: WindowProbes::new(&config.windows.sources, config.sites),
            python_objects: 0,
            command: None,
        }
    }

    /// The process in a slot.
    pub fn get(&self, slot: Slot) -> Option<&Followed> {
        self.followed.get(&slot)
    }

    /// The process in a slot.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Followed> {
        self.followed.get_mut(&slot)
    }

    /// What puts probes on interpreters and for windows, and the process in a slot.
    pub fn with_probes(
        &mut self,
        slot: Slot,
    ) -> Option<(&mut PythonProbes, &mut WindowProbes, &mut Followed)> {
        let followed = self.followed.get_mut(&slot)?;
        Some((&mut self.python, &mut self.sources, followed))
    }

    /// All processes that are followed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Followed> {
        self.followed.values_mut()
    }

    /// What recording has cost the processes that are over.
    pub fn past_costs(&self) -> Outcomes {
        self.past.costs()
    }

    /// All processes that are followed.
    pub fn iter(&self) -> impl Iterator<Item = &Followed> {
        self.followed.values()
    }

    /// The number that the process in a slot has in this recording, or had that was the last one there.
    pub fn number(&self, slot: Slot) -> ProcessNumber {
        self.slots.number(slot)
    }

    /// Whether the events of any process count.
    pub fn is_any_open(&self) -> bool {
        self.iter().any(|followed| followed.open)
    }

    /// Whether the events of the process with this id count.
    pub fn has_open(&self, pid: Pid) -> bool {
        let mut open = self.iter().filter(|followed| followed.open);
        open.any(|followed| followed.process.pid() == pid)
    }

    /// Takes a slot for a process that will be followed.
    ///
    /// # Errors
    ///
    /// When all slots are taken.
    pub fn take_slot(&mut self, core: &mut Core<'_>) -> Result<Slot, AttachError> {
        let is_free = |slot| !core.kernel.is_detaching(slot);
        let dirty = self.slots.take_dirty(Instant::now(), is_free);
        if !dirty.is_empty() {
            core.drain.forget(&dirty);
            core.kernel.forget(&dirty, &HashSet::new());
            let mut all = dirty.iter();
            all.try_for_each(|slot| core.kernel.clear_slot(*slot))?;
            self.slots.add_clean(dirty);
        }
        self.slots.take().ok_or(AttachError::TooManyProcesses)
    }

    /// Takes a process in, of which nothing counts yet.
    pub fn admit(&mut self, slot: Slot, process: Process) -> &mut Followed {
        let number = self.slots.next_number(slot);
        let followed = Followed::new(process, slot, number);
        self.followed.entry(slot).or_insert(followed)
    }

    /// Puts all probes into the process in a slot, of which nothing counts yet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the process is gone.
    pub fn attach(
        &mut self,
        core: &mut Core<'_>,
        slot: Slot,
        discovered: &Discovered,
    ) -> Result<Attached, AttachError> {
        let Some(followed) = self.followed.get_mut(&slot) else {
            return Ok(Attached::default());
        };
        let added = followed.attach(&mut core.kernel, discovered)?;
        if let Some(refused) = added.refused.into_iter().next() {
            return Err(refused);
        }
        let kernel = &mut core.kernel;
        let mut gaps = followed.new_gaps(discovered);
        gaps.extend(followed.attach_python(kernel, discovered)?);
        gaps.extend(self.python.attach(kernel, followed, discovered)?);
        let to = (kernel, &mut core.windows);
        gaps.extend(self.sources.attach(to, followed, discovered)?);
        Ok(Attached {
            functions: added.functions,
            gaps,
        })
    }

    /// Whether some process has everything that was asked to open windows.
    ///
    /// # Errors
    ///
    /// With what no process has.
    pub fn check_sources(&mut self) -> Result<(), SessionError> {
        self.sources.check()
    }

    /// Leads stack walks to the code of the processes in these slots.
    ///
    /// # Errors
    ///
    /// When the kernel side has no room.
    pub fn set_code(&mut self, core: &mut Core<'_>, slots: &[Slot]) -> Result<(), AttachError> {
        slots.iter().try_for_each(|slot| {
            let followed = self.followed.get_mut(slot);
            let code = &mut core.stacks.code;
            followed.map_or(Ok(()), |followed| followed.set_code(&mut core.kernel, code))
        })
    }

    /// From here on the process in a slot counts.
    ///
    /// # Errors
    ///
    /// When there are more processes than the kernel side has room for.
    pub fn open(&mut self, core: &mut Core<'_>, slot: Slot) -> Result<(), AttachError> {
        let Some(followed) = self.followed.get_mut(&slot) else {
            return Ok(());
        };
        let row = followed.row();
        followed.open(&mut core.kernel)?;
        core.windows.add_process(slot, row.number, row.pid);
        core.sinks.follow(&row);
        Ok(())
    }

    /// Leaves out a process that cannot be recorded, of which nothing counts.
    pub fn leave_out(&mut self, core: &mut Core<'_>, slot: Slot) {
        self.followed.remove(&slot);
        // A command of ours may not be held any more.
        core.kernel.release_process(slot);
        core.kernel.detach_aside(slot);
        core.windows.remove_process(slot);
        self.slots.give_back(slot, Instant::now());
    }

    /// Applies what has happened to the processes, and says which of them that has changed.
    pub fn apply(&mut self, events: Vec<(EventKind, Event)>) -> Changed {
        let mut changed = Changed::default();
        for (kind, event) in events {
            let slot = Slot::of_record(event.process);
            let Some(followed) = self.followed.get_mut(&slot) else {
                continue;
            };
            if changed.executed.contains(&slot) {
                continue;
            }
            followed.apply(kind, &event);
            match kind {
                EventKind::CodeMapped => {
                    changed.with_new_code.insert(slot);
                }
                EventKind::Executed => {
                    changed.with_new_code.remove(&slot);
                    changed.executed.insert(slot);
                }
                _ => {}
            }
        }
        changed
    }

    /// Ends the recording of a process: from here on nothing of it counts, and its probes are taken out. What it had
    /// then stays in the figures.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn retire(
        &mut self,
        core: &mut Core<'_>,
        slot: Slot,
        how: &str,
    ) -> Result<(), AttachError> {
        let Some(followed) = self.followed.get_mut(&slot).filter(|it| it.open) else {
            return Ok(());
        };
        followed.close(&mut core.kernel)?;
        let reason = match &followed.let_go {
            Some(why) => format!("{why}, later {how}"),
            None => how.to_owned(),
        };
        core.retire(followed.number, reason);
        core.windows.end(slot, &mut core.drain, None);
        core.kernel.detach_aside(slot);
        self.leaving.push(slot);
        core.remark(&Remark::Ended {
            process: followed.named(),
            how: how.to_owned(),
        });
        Ok(())
    }

    /// From here on nothing of any process counts.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn close(&mut self, core: &mut Core<'_>) -> Result<(), AttachError> {
        let mut open = self.followed.values_mut().filter(|followed| followed.open);
        open.try_for_each(|followed| followed.close(&mut core.kernel))
    }

    /// Forgets the processes that were retired before the ring buffers were read last, and makes room for others in
    /// the tables of the kernel side.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map, which it has no reason to.
    pub fn forget(&mut self, core: &mut Core<'_>, retired: &[Slot]) -> Result<(), AttachError> {
        let (mut slots, mut ids) = (HashSet::new(), HashSet::new());
        for slot in retired {
            if let Some(followed) = self.followed.remove(slot) {
                let unbound = core.windows.unbound(*slot, &core.drain);
                let outcome = followed.meter.outcome(core.kernel.probe_time(*slot)?);
                self.past.add(&followed, unbound, outcome);
                core.windows.remove_process(*slot);
                slots.insert(*slot);
                ids.insert(followed.pid().get());
                self.slots.give_back(*slot, Instant::now());
            }
        }
        // At the end of a recording nobody needs the room.
        if !slots.is_empty() && self.is_any_open() {
            core.kernel.forget(&slots, &ids);
        }
        Ok(())
    }

    /// The slots of the processes whose recording is over.
    pub fn take_leaving(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.leaving)
    }

    /// Looks at every process again: at the return trampoline and new code, and whether the process has ended.
    /// Returns the slot and the id of each that has.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update.
    pub fn look_again(&mut self, core: &mut Core<'_>) -> Result<Vec<(Slot, Pid)>, AttachError> {
        // Otherwise nobody asks where code is, or the kernel's trampoline.
        if core.config.follows_calls() {
            for followed in self.followed.values_mut() {
                followed.look_again(&mut core.kernel, &mut core.stacks.code)?;
            }
        }
        let ended = self.iter().filter(|it| it.open && it.process.has_exited());
        Ok(ended
            .map(|followed| (followed.slot, followed.process.pid()))
            .collect())
    }

    /// Tells of protocols that processes speak and residue does not read.
    pub fn look_at_protocols(&mut self, core: &mut Core<'_>) {
        for followed in self.followed.values() {
            let pid = followed.process.pid();
            let new: Vec<_> = (core.windows)
                .new_protocols(followed.slot, &core.drain)
                .collect();
            core.remarks(new.into_iter().map(|by| Remark::Unread { pid, by }));
        }
    }

    /// Tells of processes that may read requests where nobody sees it.
    pub fn look_at_rings(&mut self, core: &mut Core<'_>) {
        use crate::remark::Unread::Ring;
        for followed in self.followed.values() {
            let has_ring = followed.process.has_io_uring();
            if has_ring && core.windows.has_new_ring(followed.slot, &core.drain) {
                let pid = followed.process.pid();
                core.remark(&Remark::Unread { pid, by: Ring });
            }
        }
    }

    /// What all processes have mapped and had mapped.
    pub fn mappings(&self) -> impl Iterator<Item = (Origin, Figures)> {
        let now = self.iter().flat_map(|followed| followed.ranges.totals());
        now.chain(self.past.mappings())
    }

    /// What belongs to no single window, of every process; once more of one that is over.
    pub fn take_unbound(&mut self, core: &Core<'_>) -> Vec<ProcessUnbound> {
        let slots = self.followed.keys();
        let now = slots.map(|slot| core.windows.unbound(*slot, &core.drain));
        now.chain(self.past.take_unbound()).collect()
    }

    /// Takes note of the command that was started.
    pub fn set_command(&mut self, command: Option<Launched>) {
        self.command = command;
    }

    /// How the command ended, if there was one and it has ended.
    pub fn status_of_command(&mut self) -> Option<ExitStatus> {
        self.command.as_mut().and_then(Launched::status)
    }

    /// How a process ended, for a person.
    pub fn how_it_ended(&mut self, pid: Pid) -> String {
        how_it_ended(self.command.as_mut(), pid)
    }

    /// Takes note of how many Python objects there were.
    pub fn saw(&mut self, counters: &[(Counter, u64)]) {
        let mut counters = counters.iter();
        let objects = counters.find(|(counter, _)| *counter == Counter::PythonObjectCalls);
        self.python_objects = objects.map_or(0, |(_, objects)| *objects);
    }

    /// How many Python objects there were, if they were sampled.
    pub fn python_objects(&self) -> Option<Remark> {
        let sampled = self.python.heaps.samples_any();
        sampled.then_some(Remark::PythonObjects(self.python_objects))
    }
}
