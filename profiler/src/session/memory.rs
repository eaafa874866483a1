//! How much memory processes have, several times an interval: what estimates are made from.

use std::collections::HashMap;

use super::{Core, clock::now, processes::Processes};
use crate::{ids::ProcessNumber, requests::record::MemoryAt};

/// What was seen since it was last written.
#[derive(Debug, Default)]
pub struct MemoryLog {
    /// By process: what was seen last, and whether it was taken.
    last: HashMap<ProcessNumber, (MemoryAt, bool)>,
    new: Vec<MemoryAt>,
}

impl MemoryLog {
    /// Takes a figure, unless it is as the one before; of those that are alike the first and the last, which
    /// tell from when to when it was so.
    fn add(&mut self, memory: MemoryAt) {
        let before = self.last.get(&memory.process).copied();
        let at_ns = memory.at_ns;
        let is_as_before = before.is_some_and(|(it, _)| MemoryAt { at_ns, ..it } == memory);
        if let Some((before, false)) = before.filter(|_| !is_as_before) {
            self.new.push(before);
        }
        if !is_as_before {
            self.new.push(memory);
        }
        self.last.insert(memory.process, (memory, !is_as_before));
    }

    /// Nothing more is looked at.
    pub fn end(&mut self) {
        for (memory, is_taken) in self.last.values_mut() {
            if !std::mem::replace(is_taken, true) {
                self.new.push(*memory);
            }
        }
    }

    /// What is new since the last time.
    pub fn take(&mut self) -> Vec<MemoryAt> {
        std::mem::take(&mut self.new)
    }
}

impl MemoryLog {
    /// Looks at the memory of all processes.
    pub fn look(&mut self, processes: &Processes, core: &mut Core<'_>) {
        let at_ns = now();
        // What a request was answered with by now is in its window's amounts, whose number the events tell.
        core.windows.poll(&mut core.drain);
        for followed in processes.iter() {
            let Some(resident) = followed.process.resident_set() else {
                continue;
            };
            let is_counted = core.config.tracing.allocations && followed.let_go.is_none();
            let unbound_bytes =
                is_counted.then(|| core.windows.not_bound_bytes(followed.slot, &core.drain));
            self.add(MemoryAt {
                process: followed.number,
                at_ns,
                unbound_bytes,
                resident_bytes: Some(resident),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_alike_the_first_and_the_last_are_kept() {
        let at = |process, at_ns, resident| MemoryAt {
            process: ProcessNumber(process),
            at_ns,
            unbound_bytes: None,
            resident_bytes: Some(resident),
        };
        let mut log = MemoryLog::default();
        let [first, other] = [at(0, 1, 10), at(1, 1, 10)];
        for it in [first, other, at(0, 2, 10), at(0, 3, 10), at(0, 4, 11)] {
            log.add(it);
        }
        assert_eq!(log.take(), [first, other, at(0, 3, 10), at(0, 4, 11)]);
        log.add(at(0, 5, 11));
        log.add(at(0, 6, 11));
        assert_eq!(log.take(), []);
        log.end();
        log.end();
        assert_eq!(log.take(), [at(0, 6, 11)]);
    }
}
