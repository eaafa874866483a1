//! Walks over a small interpreter in an array, with the layout of 3.12.

use super::*;
use crate::python::{PythonVersion, memory_of};

const BASE: u64 = 0x1_0000;
const RUNTIME: u64 = BASE;
const CODE_TYPE: u64 = BASE + 0x1000;
const MAIN: u64 = BASE + 0x2000;
const THREAD: u64 = BASE + 0x3000;
const IDLE: u64 = BASE + 0x3400;
const CFRAME: u64 = BASE + 0x3800;
const CODE: u64 = BASE + 0x4000;
const GIL: u64 = BASE + 0x4400;
const NAME: u64 = BASE + 0x5000;
const TABLE: u64 = BASE + 0x5100;
/// The innermost frame, one of the interpreter's own, and the outermost frame.
const FRAMES: [u64; 3] = [BASE + 0x6000, BASE + 0x6100, BASE + 0x6200];

struct Image(Vec<u8>);

impl Image {
    /// One interpreter with two threads. One of them runs two functions, with a frame of the interpreter's own
    /// between them.
    fn new() -> Self {
        let mut image = Self(vec![0; 0x8000]);
        let offsets = offsets();
        let Gil::Interpreter {
            gil,
            holder,
            locked,
        } = offsets.gil
        else {
            panic!("3.12 has a GIL for each interpreter");
        };
        image.set(RUNTIME + offsets.interpreters, MAIN);
        image.set(MAIN + offsets.threads, IDLE);
        image.set(MAIN + gil, GIL);
        image.set(GIL + holder, THREAD);
        image.set(GIL + locked, 1);
        image.set(IDLE + offsets.thread_next, THREAD);
        for (thread, id) in [(IDLE, 0x500), (THREAD, 0x600)] {
            image.set(thread + offsets.thread_interpreter, MAIN);
            image.set(thread + offsets.thread_id, id);
        }
        image.set(THREAD + offsets.frame, CFRAME);
        image.set(CFRAME, FRAMES[0]);
        for (frame, previous) in [(0, FRAMES[1]), (1, FRAMES[2]), (2, 0)] {
            image.set(FRAMES[frame] + offsets.executable, CODE);
            image.set(FRAMES[frame] + offsets.previous, previous);
            let first = CODE + offsets.first_instruction;
            image.set(
                FRAMES[frame] + offsets.instruction,
                first + 2 * frame as u64,
            );
        }
        image.byte(FRAMES[1] + offsets.entry, OWNED_BY_INTERPRETER);
        image.code();
        image
    }

    fn code(&mut self) {
        let code = offsets().code;
        self.set(CODE + OBJECT_TYPE, CODE_TYPE);
        self.set(CODE + VARIABLE_SIZE, 3);
        self.set(CODE + code.name, NAME);
        self.set(CODE + code.filename, NAME);
        self.set(CODE + code.line_table, TABLE);
        // An ASCII string of one character: kind 1, compact, ascii.
        self.set(NAME + 16, 1);
        self.set(NAME + 32, 1 << 2 | 1 << 5 | 1 << 6);
        self.byte(NAME + 40, b'f');
    }

    fn set(&mut self, at: u64, word: u64) {
        let at = (at - BASE) as usize;
        self.0[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    fn byte(&mut self, at: u64, byte: u8) {
        self.0[(at - BASE) as usize] = byte;
    }

    fn memory(self) -> impl Memory {
        memory_of([(BASE, self.0)])
    }
}

fn offsets() -> Offsets {
    Offsets::of(PythonVersion::of_hex(0x030c_0000)).expect("3.12 is known")
}

const fn structures(offsets: Offsets) -> Structures {
    Structures {
        runtime: Avma(RUNTIME),
        code_type: Avma(CODE_TYPE),
        offsets,
    }
}

fn checked(image: Image) -> Result<Vec<ThreadState>, Misfit> {
    structures(offsets()).check(&image.memory())
}

#[test]
fn threads_and_who_holds_the_gil_are_found_from_the_runtime() {
    let threads = checked(Image::new()).expect("all of it is sound");
    let seen = threads
        .iter()
        .map(|thread| (thread.state.0, thread.id.0, thread.holds_gil));
    let expected = [(IDLE, 0x500, false), (THREAD, 0x600, true)];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
}

#[test]
fn a_gil_that_is_free_is_held_by_nobody() {
    let mut image = Image::new();
    image.set(GIL + 16, 0);
    let threads = checked(image).expect("all of it is sound");
    assert!(threads.iter().all(|thread| !thread.holds_gil));
}

#[test]
fn the_interpreters_own_frames_are_none_of_pythons() {
    let memory = Image::new().memory();
    let walked = structures(offsets()).calls(&memory, Avma(THREAD), 10);
    let instructions = |calls: &Calls| calls.calls.iter().map(|call| call.instruction).collect();
    let walked = walked.expect("the frames are sound");
    let all: Vec<u32> = instructions(&walked);
    assert_eq!((all, walked.cut), (vec![0, 2], false));
    let innermost = structures(offsets()).calls(&memory, Avma(THREAD), 1);
    let innermost = innermost.expect("the frames are sound");
    assert_eq!((innermost.calls.len(), innermost.cut), (1, true));
}

#[test]
fn stacks_have_names_and_are_steady_where_nothing_moves() {
    let memory = Image::new().memory();
    let stacks = structures(offsets()).stacks(&memory, 10);
    let stacks = stacks.expect("the threads are sound");
    assert!(stacks.iter().all(|stack| stack.steady && !stack.cut));
    let names = stacks[1]
        .functions
        .iter()
        .map(|function| function.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["f", "f"]);
    assert_eq!(stacks[0].functions, []);
}

#[test]
fn whatever_does_not_fit_is_said() {
    let offsets = offsets();
    let cases: [(u64, u64, Misfit); 9] = [
        (RUNTIME + offsets.interpreters, 8, Misfit::Interpreters),
        (RUNTIME + offsets.interpreters, 0, Misfit::NoThreads),
        (MAIN + offsets.threads, 8, Misfit::Threads),
        (
            THREAD + offsets.thread_interpreter,
            IDLE,
            Misfit::BackPointer,
        ),
        (THREAD + offsets.frame, 8, Misfit::Frames),
        (CODE + OBJECT_TYPE, MAIN, Misfit::CodeType),
        (CODE + VARIABLE_SIZE, 2, Misfit::Instruction),
        (CODE + offsets.code.name, 8, Misfit::Name),
        // The string is not compact, so no compiler has made it.
        (NAME + 32, 1 << 2, Misfit::Name),
    ];
    for (at, word, misfit) in cases {
        let mut image = Image::new();
        image.set(at, word);
        assert_eq!(checked(image), Err(misfit));
    }
}

#[test]
fn lists_that_go_in_circles_come_to_an_end() {
    let offsets = offsets();
    let mut image = Image::new();
    image.set(THREAD + offsets.thread_next, IDLE);
    assert_eq!(checked(image), Err(Misfit::Threads));
    let mut image = Image::new();
    image.set(FRAMES[1] + offsets.previous, FRAMES[1]);
    let walked = structures(offsets).calls(&image.memory(), Avma(THREAD), 10);
    assert!(walked.expect("each frame can be read").cut);
    let mut image = Image::new();
    image.set(MAIN + offsets.threads, 0);
    image.set(MAIN + offsets.interpreter_next, MAIN);
    assert_eq!(checked(image), Err(Misfit::Interpreters));
}

#[test]
fn offsets_of_another_version_do_not_fit() {
    let memory = Image::new().memory();
    for hex in [
        0x0308_0000,
        0x0309_0000,
        0x030a_0000,
        0x030b_0000,
        0x030d_0000,
    ] {
        let other = Offsets::of(PythonVersion::of_hex(hex)).expect("it is known");
        assert!(structures(other).check(&memory).is_err(), "{hex:#x}");
    }
}

#[test]
fn codes_without_a_pointer_to_instructions_have_them_in_a_bytes_object() {
    let offsets = Offsets::of(PythonVersion::of_hex(0x030a_0000)).expect("it is known");
    let mut image = Image::new();
    image.set(CODE + CODE_BYTES, TABLE);
    image.set(TABLE + VARIABLE_SIZE, 8);
    let memory = image.memory();
    assert_eq!(
        structures(offsets).instructions(&memory, Avma(CODE)),
        Some(4)
    );
}
