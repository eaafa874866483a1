//! How much memory processes have, several times an interval: what estimates are made from.

use std::collections::HashMap;

use super::{Session, now, windows::Windows};
use crate::window::record::MemoryAt;

/// What was seen since it was last written.
#[derive(Debug, Default)]
pub struct MemoryLog {
    /// By process.
    last: HashMap<u16, MemoryAt>,
    new: Vec<MemoryAt>,
}

impl MemoryLog {
    /// Takes a figure, unless it is as the one before.
    fn add(&mut self, memory: MemoryAt) {
        let as_before = self.last.insert(memory.process, memory);
        let at_ns = memory.at_ns;
        if as_before.map(|it| MemoryAt { at_ns, ..it }) != Some(memory) {
            self.new.push(memory);
        }
    }

    /// What is new since the last time.
    pub fn take(&mut self) -> Vec<MemoryAt> {
        std::mem::take(&mut self.new)
    }
}

impl Session<'_> {
    pub(super) fn look_at_memory(&mut self) {
        let at_ns = now();
        for followed in &self.followed {
            let unbound = || {
                let unbound = Windows::unbound(followed.slot, &self.drain);
                let parts = [unbound.background, unbound.ambiguous];
                parts.map(|it| it.outstanding.bytes).iter().sum()
            };
            let Some(resident) = followed.process.resident_set() else {
                continue;
            };
            self.memory.add(MemoryAt {
                process: followed.slot,
                at_ns,
                unbound_bytes: self.config.tracing.allocations.then(unbound),
                resident_bytes: Some(resident),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_kept() {
        let at = |process, at_ns, resident| MemoryAt {
            process,
            at_ns,
            unbound_bytes: None,
            resident_bytes: Some(resident),
        };
        let mut log = MemoryLog::default();
        let [first, other] = [at(0, 1, 10), at(1, 1, 10)];
        for it in [first, other, at(0, 2, 10), at(0, 3, 11)] {
            log.add(it);
        }
        assert_eq!(log.take(), [first, other, at(0, 3, 11)]);
        log.add(at(0, 4, 11));
        assert_eq!(log.take(), []);
    }
}
