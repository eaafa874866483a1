//! Finds the functions of `queue.SimpleQueue` that put an item in and take one out. `concurrent.futures` hands work
//! to its threads through such a queue.
//!
//! The module `_queue` exports nothing but its initialization, and may have no symbols. But each of its methods has
//! a documentation of its own, and a `PyMethodDef` (name, function, flags, documentation; Include/methodobject.h)
//! points to that documentation.
//!
//! A thread of a pool may already wait in `get` for its next item when a recording begins. A return probe would miss
//! that item, so residue puts probes on the instructions by which these functions return.

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl};

use crate::process::{Avma, Memory};

/// How the documentation of the methods that put an item in begins: `put` and `put_nowait`. Neither calls the other
/// (Modules/_queuemodule.c).
const PUT: [&[u8]; 2] = [b"put($self, /, item, ", b"put_nowait($self, /, item)"];
/// How the documentation of the methods that take an item out begins: `get` and `get_nowait`.
const TAKE: [&[u8]; 2] = [b"get($self, /, ", b"get_nowait($self, /)"];
/// Offsets in `PyMethodDef`, bytes.
const METHOD_FUNCTION: u64 = 8;
const METHOD_DOCUMENTATION: u64 = 24;
/// The most memory of a module to read, bytes. The module takes 40 KiB.
const MAX_BYTES: u64 = 1 << 20;
const WORD: usize = size_of::<u64>();
/// The most code of a function to decode, bytes, and the most returns. `get` has up to 900 bytes (in 3.13), and
/// returns in one place.
const MAX_CODE_BYTES: u64 = 4096;
const MAX_EXITS: usize = 4;
/// The length of the longest instruction, bytes.
const MAX_INSTRUCTION: u64 = 15;

/// The functions of `queue.SimpleQueue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFunctions {
    /// The functions that put an item in: `PyObject *put(PyObject *self, PyObject *const *args, …)`.
    pub put: [Avma; 2],
    /// The instructions by which the functions that take an item out return.
    pub exits: Vec<Avma>,
    /// The functions that take an item out and whose returns residue does not know.
    pub take: Vec<Avma>,
}

impl QueueFunctions {
    /// Finds the functions of a module that lies in these parts of memory, `[start, end)`. `None` if the module has
    /// other methods, or is built without documentation.
    pub fn find(parts: &[[Avma; 2]], memory: &impl Memory) -> Option<Self> {
        let read = |[start, end]: &[Avma; 2]| {
            let len = end.0.checked_sub(start.0).filter(|len| *len <= MAX_BYTES)?;
            let mut bytes = vec![0; usize::try_from(len).ok()?];
            memory.read(*start, &mut bytes)?;
            Some((start.0, bytes))
        };
        let parts: Vec<_> = parts.iter().filter_map(read).collect();
        let mut found = Self {
            put: [function(&parts, PUT[0])?, function(&parts, PUT[1])?],
            exits: Vec::new(),
            take: Vec::new(),
        };
        for documentation in TAKE {
            let take = function(&parts, documentation)?;
            match exits(take, memory) {
                Some(exits) => found.exits.extend(exits),
                None => found.take.push(take),
            }
        }
        Some(found)
    }
}

/// The instructions by which a function returns; `None` if there may be another way out.
fn exits(function: Avma, memory: &impl Memory) -> Option<BTreeSet<Avma>> {
    let body = function.0..function.0.checked_add(MAX_CODE_BYTES)?;
    let (mut exits, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut starts = vec![function.0];
    while let Some(mut at) = starts.pop() {
        while seen.insert(at) {
            if !body.contains(&at) {
                return None;
            }
            let code: [u8; MAX_INSTRUCTION as usize] = memory.array(Avma(at))?;
            let instruction = Decoder::with_ip(64, &code, at, DecoderOptions::NONE).decode();
            at = instruction.next_ip();
            match instruction.flow_control() {
                FlowControl::Return if instruction.code() == Code::Retnq => {
                    exits.insert(Avma(instruction.ip()));
                    break;
                }
                FlowControl::UnconditionalBranch => at = instruction.near_branch_target(),
                FlowControl::ConditionalBranch => starts.push(instruction.near_branch_target()),
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {}
                _ => return None,
            }
        }
    }
    (1..=MAX_EXITS).contains(&exits.len()).then_some(exits)
}

/// The function of the method whose documentation begins with these bytes.
fn function(parts: &[(u64, Vec<u8>)], documentation: &[u8]) -> Option<Avma> {
    let at = parts.iter().find_map(|part| text(part, documentation))?;
    let documented = parts.iter().find_map(|part| pointer_to(part, at))?;
    let method = documented.checked_sub(METHOD_DOCUMENTATION)?;
    let function = method.checked_add(METHOD_FUNCTION)?;
    let function = parts.iter().find_map(|part| word(part, function))?;
    Some(Avma(function))
}

fn text((start, bytes): &(u64, Vec<u8>), text: &[u8]) -> Option<u64> {
    let begins = |window: &[u8]| window[0] == 0 && &window[1..] == text;
    let index = bytes.windows(text.len() + 1).position(begins)?;
    start.checked_add(index as u64 + 1)
}

fn pointer_to((start, bytes): &(u64, Vec<u8>), address: u64) -> Option<u64> {
    let (words, _) = bytes.as_chunks::<WORD>();
    let index = words
        .iter()
        .position(|word| u64::from_le_bytes(*word) == address)?;
    start.checked_add((index * WORD) as u64)
}

fn word((start, bytes): &(u64, Vec<u8>), address: u64) -> Option<u64> {
    let index = usize::try_from(address.checked_sub(*start)?).ok()?;
    let word = bytes.get(index..)?.first_chunk::<WORD>()?;
    Some(u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::memory_of;

    const TEXT: u64 = 0x1000;
    const DATA: u64 = 0x8000;
    const METHODS: [(&str, u64); 4] = [
        ("put_nowait($self, /, item)\n--\n", 0x100),
        ("put($self, /, item, block=True, timeout=None)\n--\n", 0x200),
        ("get($self, /, block=True, timeout=None)\n--\n", 0x300),
        ("get_nowait($self, /)\n--\n", 0x400),
    ];

    fn find(methods: &[(&str, u64)]) -> Option<QueueFunctions> {
        let (mut text, mut data) = (vec![0], Vec::new());
        for (documentation, function) in methods {
            for word in [1, *function, 3, TEXT + text.len() as u64] {
                data.extend(word.to_le_bytes());
            }
            text.extend(documentation.bytes().chain([0]));
        }
        let ends = [TEXT + text.len() as u64, DATA + data.len() as u64].map(Avma);
        let parts = [[Avma(TEXT), ends[0]], [Avma(DATA), ends[1]]];
        QueueFunctions::find(&parts, &memory_of([(TEXT, text), (DATA, data)]))
    }

    #[test]
    fn methods_are_found_by_what_is_said_of_them() {
        let expected = QueueFunctions {
            put: [Avma(0x200), Avma(0x100)],
            exits: Vec::new(),
            take: vec![Avma(0x300), Avma(0x400)],
        };
        assert_eq!(find(&METHODS), Some(expected));
    }

    fn exits_of(mut code: Vec<u8>) -> Option<Vec<u64>> {
        code.resize(code.len() + MAX_INSTRUCTION as usize, 0x90);
        let exits = exits(Avma(TEXT), &memory_of([(TEXT, code)]))?;
        Some(exits.into_iter().map(|exit| exit.0).collect())
    }

    #[test]
    fn every_return_is_found_that_a_function_can_reach() {
        // test %edi,%edi; je +2; ret; int3; call +0; jmp -7
        let code = vec![
            0x85, 0xff, 0x74, 2, 0xc3, 0xcc, 0xe8, 0, 0, 0, 0, 0xeb, 0xf7,
        ];
        assert_eq!(exits_of(code), Some(vec![TEXT + 4]));
    }

    #[test]
    fn a_function_with_another_way_out_has_no_exits() {
        // A jump out of the function; a jump through a register; an endless loop.
        for code in [
            vec![0xe9, 0, 0x20, 0, 0, 0xc3],
            vec![0xff, 0xe0],
            vec![0xeb, 0xfe],
        ] {
            assert_eq!(exits_of(code), None);
        }
    }

    #[test]
    fn a_module_that_lacks_one_has_none() {
        assert_eq!(find(&METHODS[..3]), None);
        assert_eq!(find(&[]), None);
        let unreadable = [[Avma(0), Avma(u64::MAX)], [Avma(TEXT), Avma(0)]];
        assert_eq!(QueueFunctions::find(&unreadable, &memory_of([])), None);
    }
}
