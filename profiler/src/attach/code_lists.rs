//! Finds places in the kernel side's array of code mappings for the lists of processes.
//!
//! A walk may read a list at any moment, so residue never changes a list in place. It writes the new list
//! elsewhere, and then points the process to the new list. The place of the old list becomes free only at
//! the change after that, long after any walk that still read the old list has ended.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use crate::ids::Slot;

/// The places of all lists of code mappings.
#[derive(Debug)]
pub(super) struct CodeLists {
    /// Free places: the length of each, by its beginning.
    free: BTreeMap<u32, u32>,
    in_use: HashMap<Slot, Range<u32>>,
    left: Option<Range<u32>>,
}

impl CodeLists {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            free: BTreeMap::from([(0, capacity)]),
            in_use: HashMap::new(),
            left: None,
        }
    }

    /// Finds a place for a process's new list of `count` mappings; `None` when no free place is large enough.
    pub(super) fn place(&mut self, slot: Slot, count: u32) -> Option<Range<u32>> {
        let (&start, &length) = self.free.iter().find(|(_, length)| **length >= count)?;
        self.free.remove(&start);
        let place = start..start + count;
        if length > count {
            self.free.insert(place.end, length - count);
        }
        if let Some(left) = self.left.take() {
            self.release(left);
        }
        self.left = self.in_use.insert(slot, place.clone());
        Some(place)
    }

    /// Frees the place of a process that is over, and whose walks are.
    pub(super) fn remove(&mut self, slot: Slot) {
        if let Some(place) = self.in_use.remove(&slot) {
            self.release(place);
        }
    }

    fn release(&mut self, place: Range<u32>) {
        let mut place = place;
        if let Some(length) = self.free.remove(&place.end) {
            place.end += length;
        }
        let before = self.free.range(..place.start).next_back();
        if let Some((&start, &length)) = before
            && start + length == place.start
        {
            place.start = start;
        }
        if !place.is_empty() {
            self.free.insert(place.start, place.end - place.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_moves_when_it_changes_and_its_place_is_used_again_later() {
        let mut lists = CodeLists::new(100);
        assert_eq!(lists.place(Slot(1), 40), Some(0..40));
        assert_eq!(lists.place(Slot(1), 41), Some(40..81), "elsewhere");
        assert_eq!(
            lists.place(Slot(2), 30),
            None,
            "the first place is not given yet"
        );
        assert_eq!(
            lists.place(Slot(2), 10),
            Some(81..91),
            "at this change it is given up"
        );
        assert_eq!(lists.place(Slot(3), 40), Some(0..40));
    }

    #[test]
    fn the_place_of_a_process_that_is_over_is_free_although_no_other_is() {
        let mut lists = CodeLists::new(40);
        assert_eq!(lists.place(Slot(1), 40), Some(0..40));
        assert_eq!(lists.place(Slot(2), 1), None);
        lists.remove(Slot(1));
        assert_eq!(lists.place(Slot(2), 40), Some(0..40));
    }

    #[test]
    fn neighbouring_places_are_joined() {
        let mut lists = CodeLists::new(40);
        let mut place = |slot, count| lists.place(Slot(slot), count);
        assert_eq!((place(1, 10), place(2, 10)), (Some(0..10), Some(10..20)));
        assert_eq!((place(1, 10), place(2, 10)), (Some(20..30), Some(30..40)));
        assert_eq!(
            place(1, 10),
            Some(0..10),
            "10..20 is given up with this change"
        );
        assert_eq!(place(3, 20), None, "20..30 is not yet");
        assert_eq!(place(3, 0), Some(10..10), "with this one it is");
        assert_eq!(place(3, 20), Some(10..30));
    }
}
