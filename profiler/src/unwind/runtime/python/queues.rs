//! `queue.SimpleQueue`, through which `concurrent.futures` hands work to its threads: the functions that put an
//! item in and take one out.
//!
//! Its module `_queue` exports nothing but its initialization, and may have no symbols. But each of its methods has
//! a documentation of its own, which its `PyMethodDef` (Include/methodobject.h) points to: name, function, flags,
//! documentation.
//!
//! A thread of a pool waits in `get` for its next item, and does so already when it is first looked at. A return
//! probe would miss that item, so probes are put on the instructions by which these functions return.

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl};

use crate::target::{Avma, Memory};

/// How the documentation begins of what puts an item in: `put` and `put_nowait`, of which neither calls the other
/// (Modules/_queuemodule.c, from 3.8 to 3.14 the same).
const PUT: [&[u8]; 2] = [b"put($self, /, item, ", b"put_nowait($self, /, item)"];
/// Of what takes an item out: `get` and `get_nowait`.
const TAKE: [&[u8]; 2] = [b"get($self, /, ", b"get_nowait($self, /)"];
/// In `PyMethodDef`, bytes.
const METHOD_FUNCTION: u64 = 8;
const METHOD_DOCUMENTATION: u64 = 24;
/// The module takes 40 KiB.
const MAX_BYTES: u64 = 1 << 20;
const WORD: usize = size_of::<u64>();
/// `get` takes 900 bytes at most, in 3.13; it returns in one place.
const MAX_CODE_BYTES: u64 = 4096;
const MAX_EXITS: usize = 4;
/// How much the longest instruction has.
const MAX_INSTRUCTION: u64 = 15;

/// The functions of `queue.SimpleQueue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFunctions {
    /// Those that put one in: `PyObject *put(PyObject *self, PyObject *const *args, …)`.
    pub put: [Avma; 2],
    /// The instructions by which those return that take an item out.
    pub exits: Vec<Avma>,
    /// Those of them that return nobody knows where.
    pub take: Vec<Avma>,
}

impl QueueFunctions {
    /// Those of a module that lies in these parts of memory, `[start, end)`. `None` if it has other methods, or
    /// was built without documentation.
    pub fn find(parts: &[[Avma; 2]], memory: &impl Memory) -> Option<Self> {
        let read = |[start, end]: &[Avma; 2]| {
            let len = end.0.checked_sub(start.0).filter(|it| *it <= MAX_BYTES)?;
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
    let end = function.0.checked_add(MAX_CODE_BYTES)?;
    let mut exits = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut starts = vec![function.0];
    while let Some(mut at) = starts.pop() {
        while seen.insert(at) {
            let code: [u8; MAX_INSTRUCTION as usize] = memory.array(Avma(at))?;
            let instruction = Decoder::with_ip(64, &code, at, DecoderOptions::NONE).decode();
            let flow = instruction.flow_control();
            if matches!(
                flow,
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
            ) {
                let target = instruction.near_branch_target();
                let is_within = (function.0..end).contains(&target);
                starts.push(is_within.then_some(target)?);
            }
            match flow {
                FlowControl::Return if instruction.code() == Code::Retnq => {
                    exits.insert(Avma(at));
                    break;
                }
                FlowControl::UnconditionalBranch => break,
                FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {}
                FlowControl::ConditionalBranch => {}
                _ => return None,
            }
            at = instruction.next_ip();
            if at >= end {
                return None;
            }
        }
    }
    (1..=MAX_EXITS).contains(&exits.len()).then_some(exits)
}

/// The function of the method whose documentation begins so.
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
        .position(|it| u64::from_le_bytes(*it) == address)?;
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
    use crate::unwind::runtime::python::memory_of;

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
        Some(exits.into_iter().map(|it| it.0).collect())
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
        // A jump behind it; one through a register; one without an end.
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
