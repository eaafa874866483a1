//! The budget: how many bytes copies may take.

use std::{collections::HashMap, ops::AddAssign};

use crate::process::RootId;

/// The most bytes of all copies of symbol tables. The largest of real programs take some 200 MiB.
const SYMBOLS: u64 = 512 << 20;
/// The most bytes of all copies of debug information.
const DEBUG: u64 = 2 << 30;

/// How many bytes copies have taken.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::symbolize) struct Taken {
    symbols: u64,
    debug: u64,
}

impl AddAssign for Taken {
    fn add_assign(&mut self, more: Self) {
        self.symbols += more.symbols;
        self.debug += more.debug;
    }
}

/// The room for all copies. Symbol tables have room of their own, because a file has no names at all without
/// them.
#[derive(Debug)]
pub(in crate::symbolize) struct Budget {
    symbols: Pool,
    debug: Pool,
    /// How many files have debug information that found no room.
    pub(in crate::symbolize) left_out: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            symbols: Pool::new(SYMBOLS),
            debug: Pool::new(DEBUG),
            left_out: 0,
        }
    }
}

impl Budget {
    /// What is left for the files of a root, or for those without one.
    pub(in crate::symbolize) fn share(&mut self, root: Option<RootId>) -> Share<'_> {
        Share { budget: self, root }
    }
}

/// What is left of a budget for the files of one root.
#[derive(Debug)]
pub(in crate::symbolize) struct Share<'a> {
    budget: &'a mut Budget,
    root: Option<RootId>,
}

impl Share<'_> {
    /// Takes room for symbol tables. Returns whether there is room.
    pub(super) fn take_symbols(&mut self, bytes: u64, taken: &mut Taken) -> bool {
        let is_taken = self.budget.symbols.take(self.root, bytes);
        taken.symbols += if is_taken { bytes } else { 0 };
        is_taken
    }

    /// Takes room for debug information. Returns whether there is room, and counts the file if there is none.
    pub(super) fn take_debug(&mut self, bytes: u64, taken: &mut Taken) -> bool {
        let is_taken = self.budget.debug.take(self.root, bytes);
        taken.debug += if is_taken { bytes } else { 0 };
        self.budget.left_out += u64::from(!is_taken);
        is_taken
    }

    /// Gives back what copies had taken that are gone.
    pub(in crate::symbolize) fn give_back(&mut self, taken: Taken) {
        self.budget.symbols.give_back(self.root, taken.symbols);
        self.budget.debug.give_back(self.root, taken.debug);
    }
}

/// Room that roots share: none takes more than it leaves to the others.
#[derive(Debug)]
struct Pool {
    left: u64,
    taken: HashMap<Option<RootId>, u64>,
}

impl Pool {
    fn new(bytes: u64) -> Self {
        Self {
            left: bytes,
            taken: HashMap::new(),
        }
    }

    fn take(&mut self, root: Option<RootId>, bytes: u64) -> bool {
        let taken = self.taken.entry(root).or_default();
        match (taken.checked_add(bytes), self.left.checked_sub(bytes)) {
            (Some(all), Some(left)) if all <= left => {
                *taken = all;
                self.left = left;
                true
            }
            _ => false,
        }
    }

    fn give_back(&mut self, root: Option<RootId>, bytes: u64) {
        if let Some(taken) = self.taken.get_mut(&root) {
            *taken -= bytes;
            self.left += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Root;

    #[test]
    fn no_root_takes_what_others_need_and_what_is_given_back_is_there_again() {
        let root = Root::host().expect("there is one").id();
        let mut pool = Pool::new(1000);
        assert!(pool.take(None, 400) && pool.take(None, 100));
        assert!(!pool.take(None, 1), "half of it is the most");
        assert!(pool.take(Some(root), 250) && !pool.take(Some(root), 1));
        pool.give_back(None, 500);
        assert!(pool.take(Some(root), 125) && pool.take(None, 300));
        assert!(!pool.take(None, u64::MAX));
        assert_eq!(pool.left, 1000 - 250 - 125 - 300);
    }
}
