//! The order in which the dynamic linker searches the objects of a process, read from the linker's
//! own list: `DT_DEBUG` -> `struct r_debug` -> `struct link_map` (link.h; musl has the same).
//!
//! The list is the target's memory and may hold anything. This checks every read, and follows no
//! list further than [`MAX_OBJECTS`].

use super::{Avma, elf::MAX_DYNAMIC_ENTRIES};

/// `DT_NULL` (elf.h): the last dynamic entry.
const DT_NULL: u64 = 0;
/// `DT_DEBUG` (elf.h): its value is the AVMA of `struct r_debug`.
const DT_DEBUG: u64 = 21;
/// More objects than any process loads; the bound also ends a list that is a circle.
const MAX_OBJECTS: usize = 8192;

/// Reads exactly the buffer's length at an AVMA, or fails.
pub(super) type ReadMemory<'a> = &'a dyn Fn(Avma, &mut [u8]) -> Option<()>;

/// The AVMA of each object's dynamic section, in the order of symbol resolution. `None` when there
/// is no list (a static program), or the list is not there yet or not readable.
pub(super) fn read_list(read: ReadMemory<'_>, dynamic: Avma) -> Option<Vec<Avma>> {
    let r_debug = debug_pointer(read, dynamic)?;
    // struct r_debug { int r_version; struct link_map *r_map; … }
    let mut entry = word(read, r_debug, 8)?;
    let mut order = Vec::new();
    while entry != 0 && order.len() < MAX_OBJECTS {
        // struct link_map { l_addr; l_name; l_ld; l_next; l_prev }, a word each
        order.push(Avma(word(read, Avma(entry), 16)?));
        entry = word(read, Avma(entry), 24)?;
    }
    (!order.is_empty()).then_some(order)
}

fn debug_pointer(read: ReadMemory<'_>, dynamic: Avma) -> Option<Avma> {
    for index in 0..MAX_DYNAMIC_ENTRIES as u64 {
        match (
            word(read, dynamic, 16 * index)?,
            word(read, dynamic, 16 * index + 8)?,
        ) {
            (DT_NULL, _) | (DT_DEBUG, 0) => return None,
            (DT_DEBUG, r_debug) => return Some(Avma(r_debug)),
            _ => {}
        }
    }
    None
}

fn word(read: ReadMemory<'_>, base: Avma, offset: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    read(base.checked_add(offset)?, &mut bytes)?;
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of a target's memory, from address 0 on.
    fn order(memory: &[u64]) -> Option<Vec<Avma>> {
        let bytes: Vec<u8> = memory.iter().flat_map(|word| word.to_le_bytes()).collect();
        let read = |address: Avma, into: &mut [u8]| {
            let start = usize::try_from(address.0).ok()?;
            into.copy_from_slice(bytes.get(start..start.checked_add(into.len())?)?);
            Some(())
        };
        read_list(&read, Avma(0))
    }

    #[test]
    fn objects_come_in_the_order_of_the_list() {
        let dynamic = [1, 99, DT_DEBUG, 32];
        let r_debug = [1, 48];
        let maps = [0, 0, 0xa000, 88, 0, 0, 0, 0xb000, 0, 0];
        let memory: Vec<u64> = [&dynamic[..], &r_debug, &maps].concat();
        assert_eq!(order(&memory), Some(vec![Avma(0xa000), Avma(0xb000)]));
    }

    #[test]
    fn a_list_that_bites_its_tail_ends() {
        let memory = [DT_DEBUG, 16, 1, 32, 0, 0, 0xa000, 32];
        assert_eq!(order(&memory).map(|order| order.len()), Some(MAX_OBJECTS));
    }

    #[test]
    fn wild_pointers_give_no_order() {
        assert_eq!(order(&[DT_DEBUG, u64::MAX]), None);
        assert_eq!(order(&[DT_DEBUG, 16, 1, u64::MAX - 7]), None);
        assert_eq!(order(&[DT_NULL, 0, DT_DEBUG, 16]), None);
        assert_eq!(order(&[]), None);
    }
}
