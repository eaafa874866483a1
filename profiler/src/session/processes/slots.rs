//! Which place a process has in the tables of the kernel side.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use residue_ebpf::abi::heap::MAX_PROCESSES;

use crate::ids::{ProcessNumber, Slot};

/// How long a slot stays empty when its process is over: programs that have begun for the process are over by then,
/// and what they have sent was read.
const REST: Duration = Duration::from_millis(200);

/// How many slots are cleaned together: to clean any takes a look at the whole live set.
const AT_ONCE: usize = 16;

/// The slots of the kernel side. Each belongs to one process at a time, and to others later. A process has a number
/// of its own besides, in the order in which processes were taken in.
#[derive(Debug, Default)]
pub struct Slots {
    /// How many slots were ever taken.
    taken: u16,
    /// Slots that nobody has, and of which nothing is kept.
    clean: Vec<Slot>,
    /// Slots whose process is over, and since when.
    resting: VecDeque<(Instant, Slot)>,
    /// The number of the process that has each slot, or had it last.
    numbers: HashMap<Slot, ProcessNumber>,
    next_number: u32,
}

impl Slots {
    /// Takes a slot of which nothing is kept; none if there is none.
    pub fn take(&mut self) -> Option<Slot> {
        if let Some(slot) = self.clean.pop() {
            return Some(slot);
        }
        let next = Slot(self.taken);
        (next.index() < MAX_PROCESSES).then(|| {
            self.taken += 1;
            next
        })
    }

    /// Takes out the slots that are to be cleaned before the next one is taken: those whose process is over for long
    /// enough and has no probes any more, if they are many, or there are no others.
    pub fn take_dirty(&mut self, now: Instant, is_free: impl Fn(Slot) -> bool) -> HashSet<Slot> {
        let is_last = Slot(self.taken).index() >= MAX_PROCESSES;
        if !self.clean.is_empty() || self.resting.len() < AT_ONCE && !is_last {
            return HashSet::new();
        }
        let rested = |(since, slot): &mut (Instant, Slot)| {
            now.saturating_duration_since(*since) >= REST && is_free(*slot)
        };
        let rested = std::iter::from_fn(|| self.resting.pop_front_if(rested));
        rested.map(|(_, slot)| slot).collect()
    }

    /// Takes a slot back whose process is over.
    pub fn give_back(&mut self, slot: Slot, now: Instant) {
        self.resting.push_back((now, slot));
    }

    /// Takes slots back of which nothing is kept any more.
    pub fn add_clean(&mut self, slots: HashSet<Slot>) {
        self.clean.extend(slots);
    }

    /// The next number, for the process in a slot.
    pub fn next_number(&mut self, slot: Slot) -> ProcessNumber {
        let number = ProcessNumber(self.next_number);
        self.next_number += 1;
        self.numbers.insert(slot, number);
        number
    }

    /// The number of the process that has a slot, or had it last.
    pub fn number(&self, slot: Slot) -> ProcessNumber {
        let number = self.numbers.get(&slot).copied();
        number.unwrap_or(ProcessNumber(slot.index()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Instant {
        Instant::now() + REST
    }

    #[test]
    fn a_slot_is_taken_again_once_it_has_rested_and_is_clean() {
        let mut slots = Slots::default();
        let all: Vec<Slot> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(all.len() as u32, MAX_PROCESSES);
        assert_eq!(slots.next_number(Slot(7)), ProcessNumber(0));
        slots.give_back(Slot(7), Instant::now());
        assert!(
            slots.take_dirty(Instant::now(), |_| true).is_empty(),
            "it rests"
        );
        assert!(
            slots.take_dirty(later(), |_| false).is_empty(),
            "it has probes"
        );
        assert_eq!(slots.take(), None);
        let before = slots.number(Slot(7));
        assert_eq!(
            before,
            ProcessNumber(0),
            "its last events are that process's"
        );
        let dirty = slots.take_dirty(later(), |_| true);
        assert_eq!(dirty, HashSet::from([Slot(7)]));
        assert_eq!(slots.take(), None, "it is not clean");
        slots.add_clean(dirty);
        assert_eq!(slots.take(), Some(Slot(7)));
        assert_eq!(slots.next_number(Slot(7)), ProcessNumber(1));
        assert_eq!(slots.number(Slot(7)), ProcessNumber(1));
    }

    #[test]
    fn slots_are_cleaned_when_they_are_many() {
        let mut slots = Slots::default();
        for _ in 0..AT_ONCE {
            assert!(slots.take_dirty(later(), |_| true).is_empty());
            let slot = slots.take().expect("there are more");
            slots.give_back(slot, Instant::now());
        }
        assert_eq!(slots.take_dirty(later(), |_| true).len(), AT_ONCE);
    }
}
