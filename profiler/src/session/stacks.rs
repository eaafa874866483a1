//! The stacks of a recording: from what the kernel side walked to frames with names.

use std::{collections::HashSet, time::Instant};

use residue_ebpf::abi::{
    counters::{Counter, CounterKind},
    frame::PythonFrame,
    heap::StackTotals,
};

use super::{Config, code::Code, frames::FrameTable, processes::Processes, python::CodeObjects};
use crate::{
    attach::{AttachError, Kernel},
    capture::{Frame, Module, Stack},
    drain::{Drain, RawStack},
    heap::Suspects,
    ids::{Slot, StackId},
    remark::Remark,
    sink::Tally,
    unwind::TableStore,
};

/// Where the frames of all stacks lie, what they are called, and which stacks are new.
pub struct Stacks {
    /// The code of all processes.
    pub code: Code,
    frames: FrameTable,
    code_objects: CodeObjects,
    suspects: Suspects,
    /// Stacks since the last interval.
    new: Vec<Stack>,
    seen: usize,
    /// The stacks whose totals are Python's own allocator's.
    of_python: HashSet<StackId>,
}

/// What is new of stacks since the last interval.
pub struct NewStacks {
    pub modules: Vec<Module>,
    pub frames: Vec<Frame>,
    pub stacks: Vec<Stack>,
}

impl Stacks {
    /// No stack was taken yet.
    pub fn new(config: &Config) -> Self {
        Self {
            code: Code::new(TableStore::new(config.limits.unwind_store())),
            frames: FrameTable::default(),
            code_objects: CodeObjects::default(),
            suspects: Suspects::default(),
            new: Vec::new(),
            seen: 0,
            of_python: HashSet::new(),
        }
    }

    /// Takes stacks that the kernel side has sent.
    pub fn take(&mut self, stacks: Vec<RawStack>, processes: &mut Processes, drain: &mut Drain) {
        for mut stack in stacks {
            let slot = stack.slot;
            if let Some(followed) = processes.get_mut(slot) {
                followed.locate(&mut stack);
                let python = followed.python.as_ref();
                let frames = stack.frames.iter().copied();
                for frame in frames.filter_map(PythonFrame::from_raw) {
                    self.code_objects.learn(frame, python, drain);
                }
            }
            self.suspects.add_stack(stack.id, stack.kind, stack.context);
            if stack.kind.is_python() {
                self.of_python.insert(stack.id);
            }
            let process = processes.number(slot);
            self.new.push(self.frames.intern(&stack, process));
        }
        drain.freed_python_code(|freed| {
            let slot = Slot::of_record(freed.process);
            let python = processes
                .get(slot)
                .and_then(|followed| followed.python.as_ref());
            self.code_objects.learn_freed(freed, python);
        });
    }

    /// Has the kernel side walk the stacks of contexts that seem to grow.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn review(
        &mut self,
        totals: &[(StackId, StackTotals)],
        kernel: &mut Kernel,
    ) -> Result<(), AttachError> {
        let changed = self.suspects.review(Instant::now(), totals);
        let mut changed = changed.into_iter();
        changed.try_for_each(|(context, suspected)| kernel.set_suspected(context, suspected))
    }

    /// What is new since the last interval. Waits for names until `deadline`; later names come with the next interval.
    pub fn take_new(&mut self, deadline: Instant) -> NewStacks {
        let (modules, frames) = self
            .frames
            .take_new(&self.code, &mut self.code_objects, deadline);
        let stacks = std::mem::take(&mut self.new);
        self.seen += stacks.len();
        NewStacks {
            modules,
            frames,
            stacks,
        }
    }

    /// What a person should know of files whose symbols could not be read.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        let notes = self.frames.take_notes().into_iter();
        notes.map(Remark::NoNames).collect()
    }

    /// What is missing of names.
    pub fn missing(&self) -> [(Counter, u64); 3] {
        [
            (Counter::PythonCodeStale, self.code_objects.stale()),
            (Counter::PythonCodeTableFull, self.frames.unnamed()),
            (Counter::FramesNameless, self.frames.nameless()),
        ]
    }

    /// Adds up the figures of a moment. Blocks alone: Python's own allocator hands out what lies in them.
    pub fn tally(&self, totals: &[(StackId, StackTotals)], counters: &[(Counter, u64)]) -> Tally {
        let mut tally = Tally {
            stacks: self.seen,
            ..Tally::default()
        };
        let of_blocks = totals.iter().filter(|(id, _)| !self.of_python.contains(id));
        for (_, totals) in of_blocks {
            tally.outstanding_bytes += totals.outstanding_bytes();
            tally.outstanding_objects += totals.outstanding_objects();
            tally.allocations += totals.alloc_objects;
        }
        let lost = counters.iter().filter(|(counter, _)| {
            counter.kind() == CounterKind::Lost && *counter != Counter::LiveSetFullBytes
        });
        tally.lost = lost.map(|(_, value)| value).sum();
        tally
    }
}
