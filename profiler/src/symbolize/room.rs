//! How much room the names of functions may take. The recorded user chooses the names, thousands of bytes each,
//! and how many functions there are at an address.

use super::Symbol;

/// Room for names.
#[derive(Debug)]
pub(super) struct Room {
    most: u64,
    spent: u64,
}

impl Room {
    /// Room for `most` bytes.
    pub(super) const fn new(most: u64) -> Self {
        Self { most, spent: 0 }
    }

    fn has(&self, bytes: u64, of: u64) -> bool {
        self.spent.saturating_add(bytes) <= of
    }
}

/// Keeps the functions at one address for which all these rooms have space. Inlined functions take at most the
/// first half of a room, so that the room lasts longer for the others. Returns whether this left something out.
pub(super) fn keep(rooms: &mut [&mut Room], functions: &mut Vec<Symbol>) -> bool {
    let all = functions.iter().map(bytes).sum();
    if rooms.iter().all(|room| room.has(all, room.most / 2)) {
        spend(rooms, all);
        return false;
    }
    let Some(outermost) = functions.pop() else {
        return false;
    };
    let inlined = functions.drain(..).count();
    let alone = bytes(&outermost);
    if !rooms.iter().all(|room| room.has(alone, room.most)) {
        return true;
    }
    spend(rooms, alone);
    functions.push(outermost);
    inlined > 0
}

fn spend(rooms: &mut [&mut Room], bytes: u64) {
    rooms.iter_mut().for_each(|room| room.spent += bytes);
}

fn bytes(symbol: &Symbol) -> u64 {
    let file = symbol.file.as_ref().map_or(0, String::len);
    (size_of::<Symbol>() + symbol.name.len() + file) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(names: &[&str]) -> Vec<Symbol> {
        let symbol = |name: &&str| Symbol {
            name: name.repeat(1000),
            ..Symbol::default()
        };
        names.iter().map(symbol).collect()
    }

    #[test]
    fn inlined_functions_go_first_and_then_all() {
        let (mut small, mut large) = (Room::new(8400), Room::new(1 << 20));
        let kept: Vec<(usize, bool)> = (0..7)
            .map(|_| {
                let mut found = functions(&["i", "j", "o"]);
                let is_short = keep(&mut [&mut large, &mut small], &mut found);
                assert!(
                    found
                        .last()
                        .is_none_or(|function| function.name.starts_with('o'))
                );
                (found.len(), is_short)
            })
            .collect();
        let expected = [
            (3, false),
            (1, true),
            (1, true),
            (1, true),
            (1, true),
            (0, true),
            (0, true),
        ];
        assert_eq!(kept, expected);
        assert!(small.spent <= small.most && small.spent == large.spent);
        assert!(
            !keep(&mut [&mut small], &mut Vec::new()),
            "nothing was there"
        );
    }
}
