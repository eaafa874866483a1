//! Finds where glibc keeps the thread-specific value of CPython: the pointer to the `PyThreadState`.
//!
//! glibc describes a thread in a block. The fsbase of the thread points to that block, and pthread_self() returns
//! its address. The block has a slot `{ seq, data }` for each of the first keys, and pointers to further blocks with
//! the slots of later keys (`struct pthread` in nptl/descr.h, unchanged from glibc 2.4 on).

use super::{Misfit, Structures, ThreadState};
use crate::process::{Avma, Memory};

/// `header.self`, which points to the block itself. This and the following are offsets, bytes.
const SELF: u64 = 0x10;
/// `specific_1stblock`
const FIRST_BLOCK: u32 = 0x310;
/// `specific`: pointers to blocks. The first points to `specific_1stblock`.
const BLOCKS: u32 = FIRST_BLOCK + KEYS_IN_BLOCK * SLOT_BYTES;
/// `PTHREAD_KEY_2NDLEVEL_SIZE`
const KEYS_IN_BLOCK: u32 = 32;
/// `PTHREAD_KEYS_MAX`
const MAX_KEYS: u32 = 1024;
const SLOT_BYTES: u32 = 16;
/// `data` in a slot.
const DATA: u32 = 8;

/// The place of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// The number of the key.
    pub key: u32,
    /// The offset from fsbase to the pointer to the block with the value, bytes; zero if the block of the thread has
    /// the value.
    pub block: u32,
    /// The offset of the value from fsbase, or from that block, bytes.
    pub value: u32,
}

impl KeyPlace {
    /// The place for a key; `None` if there is no such key.
    #[must_use]
    pub const fn of(key: u32) -> Option<Self> {
        if key >= MAX_KEYS {
            return None;
        }
        let (block, slot) = (key / KEYS_IN_BLOCK, key % KEYS_IN_BLOCK);
        let value = slot * SLOT_BYTES + DATA;
        Some(if block == 0 {
            Self {
                key,
                block: 0,
                value: FIRST_BLOCK + value,
            }
        } else {
            Self {
                key,
                block: BLOCKS + 8 * block,
                value,
            }
        })
    }

    /// Reads the value of the thread with this fsbase.
    pub fn read(self, memory: &impl Memory, fsbase: Avma) -> Option<Avma> {
        let block = match self.block {
            0 => fsbase,
            block => memory.pointer(fsbase.checked_add(block.into())?)?,
        };
        if block.0 == 0 {
            return Some(Avma(0));
        }
        memory.pointer(block.checked_add(self.value.into())?)
    }
}

/// Finds the place where the threads keep the pointers to their states. Checks the place against the threads.
pub(super) fn locate(
    memory: &impl Memory,
    structures: &Structures,
    threads: &[ThreadState],
) -> Result<KeyPlace, Misfit> {
    let glibc = |thread: &&ThreadState| is_block(memory, thread.id);
    let threads: Vec<_> = threads.iter().filter(glibc).collect();
    let matches = |place: KeyPlace| {
        let mut held = threads.iter();
        held.any(|thread| place.read(memory, thread.id) == Some(thread.state))
    };
    let Some(key_at) = structures.offsets.tss_key else {
        // An extension may keep the same value under a key of its own, but the interpreter's key is the oldest.
        let mut places = (0..MAX_KEYS).filter_map(KeyPlace::of);
        return places.find(|place| matches(*place)).ok_or(Misfit::Key);
    };
    // Py_tss_t { int _is_initialized; pthread_key_t _key; } (Include/pythread.h)
    let at = structures.runtime.checked_add(key_at);
    let at = at.ok_or(Misfit::Key)?;
    let [initialized, key] = [0, 4].map(|offset| memory.u32(at.checked_add(offset)?));
    if initialized != Some(1) {
        return Err(Misfit::Key);
    }
    let place = key.and_then(KeyPlace::of).ok_or(Misfit::Key)?;
    if matches(place) {
        Ok(place)
    } else {
        Err(Misfit::Key)
    }
}

/// Whether glibc's block of a thread is at `fsbase`.
fn is_block(memory: &impl Memory, fsbase: Avma) -> bool {
    let own = fsbase.checked_add(SELF).and_then(|at| memory.pointer(at));
    fsbase.0 != 0 && own == Some(fsbase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::{Offsets, PythonVersion, memory_of};

    #[test]
    fn keys_lie_in_the_thread_or_in_a_block_of_their_own() {
        let place = |key| KeyPlace::of(key).map(|place| (place.block, place.value));
        assert_eq!(place(0), Some((0, 0x318)));
        assert_eq!(place(31), Some((0, 0x508)));
        assert_eq!(place(32), Some((0x518, 8)));
        assert_eq!(place(1023), Some((0x608, 0x1f8)));
        assert_eq!(place(1024), None);
    }

    const FSBASE: u64 = 0x5000;
    const STATE: u64 = 0xabc0;
    const RUNTIME: u64 = 0x8000;

    /// The key that is found with a thread that has these values, and a runtime which says that `key` is the
    /// interpreter's.
    fn located(values: &[(u32, u64)], key: Option<u32>) -> Result<u32, Misfit> {
        let mut thread = vec![0; 0x700];
        let mut set = |at: u64, word: u64| {
            thread[at as usize..at as usize + 8].copy_from_slice(&word.to_le_bytes());
        };
        set(SELF, FSBASE);
        for (key, value) in values {
            let place = KeyPlace::of(*key);
            set(place.map_or(0, |place| place.value.into()), *value);
        }
        let [initialized, number] = key.map_or([0, 0], |key| [1, key]).map(u32::to_le_bytes);
        let memory = memory_of([(FSBASE, thread), (RUNTIME, [initialized, number].concat())]);
        let offsets = Offsets {
            tss_key: key.map(|_| 0),
            ..Offsets::of(PythonVersion::of_hex(0x030d_0000)).expect("3.13 is known")
        };
        let state = ThreadState {
            state: Avma(STATE),
            interpreter: 0,
            id: Avma(FSBASE),
            native_id: None,
            context: None,
            holds_gil: false,
        };
        let structures = Structures {
            runtime: Avma(RUNTIME),
            code_type: Avma(0),
            offsets,
        };
        locate(&memory, &structures, &[state]).map(|place| place.key)
    }

    #[test]
    fn a_key_counts_if_a_thread_has_its_state_there() {
        assert_eq!(located(&[(2, STATE)], Some(2)), Ok(2));
        assert_eq!(located(&[(2, STATE)], Some(3)), Err(Misfit::Key));
        assert_eq!(located(&[(2, STATE)], Some(5000)), Err(Misfit::Key));
    }

    #[test]
    fn a_key_that_is_not_stated_is_the_first_that_holds_the_state() {
        assert_eq!(located(&[(0, 7), (3, STATE), (9, STATE)], None), Ok(3));
        assert_eq!(located(&[(0, 7)], None), Err(Misfit::Key));
    }

    #[test]
    fn a_value_in_a_second_block_is_read_through_its_pointer() {
        let mut thread = vec![0; 0x700];
        thread[0x518..0x520].copy_from_slice(&0x9000_u64.to_le_bytes());
        let mut block = vec![0; 0x200];
        block[16 + 8..16 + 16].copy_from_slice(&0xabc0_u64.to_le_bytes());
        let memory = memory_of([(0x5000, thread), (0x9000, block)]);
        let read = |key| KeyPlace::of(key).and_then(|place| place.read(&memory, Avma(0x5000)));
        assert_eq!(read(33), Some(Avma(0xabc0)));
        assert_eq!(read(34), Some(Avma(0)));
        assert_eq!(read(64), Some(Avma(0)), "a block that was never made");
    }
}
