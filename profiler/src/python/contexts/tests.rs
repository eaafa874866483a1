//! Finds the contexts in an array that holds a type and two threads.

use super::*;
use crate::python::memory_of;

const BASE: u64 = 0x1_0000;
const TYPE: u64 = BASE;
const METHODS: u64 = BASE + 0x400;
const NAMES: u64 = BASE + 0x600;
const CONTEXT: u64 = BASE + 0x700;
const STATES: [u64; 2] = [BASE + 0x800, BASE + 0x1000];
/// The offset of the context in 3.12.
const OFFSET: u64 = 208;

struct Image(Vec<u8>);

impl Image {
    /// An image with one thread in a context, and one thread in none.
    fn new() -> Self {
        let mut image = Self(vec![0; 0x2000]);
        image.set(TYPE + TYPE_NEW, 0x111);
        image.set(TYPE + TYPE_DEALLOC, 0x222);
        image.set(TYPE + TYPE_METHODS, METHODS);
        for (index, name) in [(0, b"get\0\0"), (1, b"copy\0"), (2, b"run\0\0")] {
            let at = NAMES + 8 * index;
            image.bytes(at, name);
            image.set(METHODS + METHOD_BYTES * index, at);
            image.set(METHODS + METHOD_BYTES * index + 8, 0x330 + index);
        }
        image.set(CONTEXT + OBJECT_TYPE, TYPE);
        image.set(STATES[1] + OFFSET, CONTEXT);
        image
    }

    fn set(&mut self, at: u64, word: u64) {
        self.bytes(at, &word.to_le_bytes());
    }

    fn bytes(&mut self, at: u64, bytes: &[u8]) {
        let at = (at - BASE) as usize;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn find(self, known: Option<u64>) -> Option<Contexts> {
        let threads = STATES.map(|state| ThreadState {
            state: Avma(state),
            interpreter: 0,
            id: Avma(1),
            native_id: None,
            context: None,
            holds_gil: false,
        });
        let symbols = ContextSymbols {
            kind: Svma(TYPE - 0x1000),
            makers: vec![Svma(0x10), Svma(0x20), Svma(0x10)],
        };
        let memory = memory_of([(BASE, self.0)]);
        Contexts::find(&symbols, LoadBias(0x1000), known, &threads, &memory)
    }
}

#[test]
fn what_makes_contexts_is_found_through_their_type() {
    let found = Image::new().find(Some(OFFSET)).expect("all is sound");
    let makers = found.makers.iter().map(|maker| maker.0).collect::<Vec<_>>();
    assert_eq!(makers, [0x111, 0x331, 0x1010, 0x1020]);
    assert_eq!((found.offset, found.dealloc), (OFFSET, Avma(0x222)));
}

#[test]
fn an_offset_that_is_not_known_is_found_by_a_thread_in_a_context() {
    let offset = |image: Image| image.find(None).map(|found| found.offset);
    assert_eq!(offset(Image::new()), Some(OFFSET));
    let mut image = Image::new();
    image.set(STATES[1] + OFFSET, 0);
    assert_eq!(offset(image), None, "nobody is in a context");
}

#[test]
fn an_offset_with_something_else_is_refused() {
    let mut image = Image::new();
    image.set(STATES[0] + OFFSET, TYPE);
    assert_eq!(image.find(Some(OFFSET)), None);
    let mut image = Image::new();
    image.set(STATES[0] + OFFSET, 7);
    assert_eq!(image.find(Some(OFFSET)), None, "it cannot be read");
}

#[test]
fn a_type_without_its_copy_method_is_refused() {
    let mut image = Image::new();
    image.bytes(NAMES + 8, b"clone");
    assert_eq!(image.find(Some(OFFSET)), None);
}
