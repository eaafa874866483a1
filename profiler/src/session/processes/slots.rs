//! Which place a process has in the tables of the kernel side.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use residue_ebpf::abi::heap::MAX_PROCESSES;

/// How long a slot stays empty when its process is over: programs that have begun for the process are over by then,
/// and what they have sent was read.
const REST: Duration = Duration::from_millis(200);

/// The slots of the kernel side. Each belongs to one process at a time, and to others later. A process has a number
/// of its own besides, in the order in which processes were taken in.
#[derive(Debug, Default)]
pub struct Slots {
    /// How many slots were ever taken.
    taken: u16,
    /// Slots that nobody has, and of which nothing is kept.
    clean: Vec<u16>,
    /// Slots whose process is over, and since when.
    resting: VecDeque<(Instant, u16)>,
    /// The number of the process that has each slot, or had it last.
    numbers: HashMap<u16, u16>,
    next_number: u16,
}

impl Slots {
    /// Takes a slot of which nothing is kept; none if there is none.
    pub fn take(&mut self) -> Option<u16> {
        if let Some(slot) = self.clean.pop() {
            return Some(slot);
        }
        let next = self.taken;
        (u32::from(next) < MAX_PROCESSES).then(|| {
            self.taken += 1;
            next
        })
    }

    /// Takes a slot back whose process is over.
    pub fn give_back(&mut self, slot: u16, now: Instant) {
        self.resting.push_back((now, slot));
    }

    /// Takes the slots out whose process is over for long enough, to have them cleaned.
    pub fn take_rested(&mut self, now: Instant) -> HashSet<u16> {
        let mut rested = HashSet::new();
        while let Some((since, slot)) = self.resting.front().copied()
            && now.saturating_duration_since(since) >= REST
        {
            self.resting.pop_front();
            rested.insert(slot);
        }
        rested
    }

    /// Takes slots back of which nothing is kept any more.
    pub fn add_clean(&mut self, slots: HashSet<u16>) {
        self.clean.extend(slots);
    }

    /// The next number, for the process in a slot.
    pub fn next_number(&mut self, slot: u16) -> u16 {
        let number = self.next_number;
        self.next_number += 1;
        self.numbers.insert(slot, number);
        number
    }

    /// The number of the process that has a slot, or had it last.
    pub fn number(&self, slot: u16) -> u16 {
        self.numbers.get(&slot).copied().unwrap_or(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_taken_again_once_it_has_rested_and_is_clean() {
        let mut slots = Slots::default();
        let all: Vec<u16> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(all.len() as u32, MAX_PROCESSES);
        assert_eq!(slots.next_number(7), 0);
        let now = Instant::now();
        slots.give_back(7, now);
        assert_eq!(slots.take(), None, "it rests");
        assert_eq!(slots.number(7), 0, "its last events are that process's");
        assert!(slots.take_rested(now).is_empty());
        let rested = slots.take_rested(now + REST);
        assert_eq!(rested, HashSet::from([7]));
        assert_eq!(slots.take(), None, "it is not clean");
        slots.add_clean(rested);
        assert_eq!(slots.take(), Some(7));
        assert_eq!(slots.next_number(7), 1);
        assert_eq!(slots.number(7), 1);
    }
}
