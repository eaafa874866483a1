//! Where CPython keeps its frames, and which of its code objects is which.
//!
//! A frame of Python names its code object by an id. Ids are given out when a code object is first
//! seen on a stack, and taken back when the interpreter frees it, which is probed: so an id never
//! stands for two functions, though an address does.

/// Ranges of native code that may run Python's bytecode: the evaluation function, and the parts
/// that a compiler has moved away from it.
pub const EVAL_RANGES: usize = 4;

/// Bytes of an interpreter frame that are read: all that is wanted of it lies before.
pub const FRAME_BYTES: usize = 128;

/// Bytes of a `PyThreadState` that are read at once: in every version it is larger, and all that is
/// wanted of it lies before.
pub const STATE_BYTES: usize = 256;

/// Where a version keeps the current context is not known.
pub const NO_CONTEXT: u32 = u32::MAX;

/// Where a `PyContext` has the one that was current when it was entered: `ctx_prev`
/// (Include/internal/pycore_context.h), bytes.
pub const CONTEXT_PREVIOUS: u64 = 16;

/// How a frame says which instruction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum InstructionKind {
    /// A 32-bit index, in bytes (to 3.9); negative before the first.
    Bytes,
    /// A 32-bit index, in code units of two bytes (3.10); negative before the first.
    Units,
    /// A pointer into the code object (from 3.11).
    Pointer,
}

/// How a run of frames ends that one call of the evaluation function stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryKind {
    /// Every frame has a call of its own (to 3.10).
    Every,
    /// The frame whose byte at `entry` is not zero is the last of the run (3.11).
    Flag,
    /// The frame whose byte at `entry` is 3 or more lies behind the last of the run and is none
    /// itself (from 3.12).
    Owner,
}

/// How to find the frames of a process's threads. Offsets in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PythonLayout {
    /// Zero where there is no Python to walk.
    pub enabled: u32,
    /// Where the current thread's state is kept: from the thread's fsbase, or from the block below.
    pub tss: u32,
    /// Where, from the thread's fsbase, the pointer to the block lies that holds `tss`; zero if it
    /// lies in the thread's own.
    pub tss_block: u32,
    /// `PyThreadState.thread_id`: what pthread_self() returns there, which is the fsbase.
    pub thread_id: u32,
    /// AVMA of the pointer to the state of the thread that holds the GIL; zero from 3.12 on. In a
    /// subinterpreter the state that is kept with the thread is another one.
    pub gil_holder: u64,
    /// The pointer in `PyThreadState` to the current frame, or to the `_PyCFrame` that has it.
    pub frame: u32,
    /// The pointer to the current frame in `_PyCFrame`; `u32::MAX` where there is none.
    pub frame_in_cframe: u32,
    /// How much of a frame can be read for sure; at most [`FRAME_BYTES`], and a multiple of 8.
    pub frame_bytes: u32,
    /// The caller's frame, in a frame.
    pub previous: u32,
    /// The code object, in a frame.
    pub code: u32,
    /// The instruction, in a frame.
    pub instruction: u32,
    /// An [`InstructionKind`].
    pub instruction_kind: u32,
    /// The first instruction, in a code object; where instructions are pointers.
    pub first_instruction: u32,
    /// The byte in a frame that tells where a run ends.
    pub entry: u32,
    /// An [`EntryKind`].
    pub entry_kind: u32,
    /// Native code that may run Python's bytecode, AVMAs: `[start, end)`; empty ones are zero.
    pub eval: [[u64; 2]; EVAL_RANGES],
    /// The pointer in `PyThreadState` to the context of `contextvars` that the thread is in, behind
    /// which is how often the thread has entered or left one; [`NO_CONTEXT`] if that is not known.
    pub context: u32,
    /// Zero.
    pub reserved: u32,
    /// Native code that makes asyncio's tasks, AVMAs: `[start, end)`; zero while it is not known.
    pub task_code: [u64; 2],
}

/// Ids that code objects can have; the last of them is never given.
pub const CODE_IDS: u64 = 1 << 24;

/// How many ids wait for user space to look at their code objects, the latest ones.
pub const CODE_KEYS: u32 = 262_144;

/// Set in a code object's key once user space has read the object. No address in user space has
/// this bit.
pub const CODE_IS_READ: u64 = 1 << (super::heap::ADDRESS_BITS - 1);

/// Pointers in a code object to what names it.
pub const CODE_POINTERS: usize = 3;

/// Bytes that are kept of a code object, and of each of the objects that name it.
pub const PART_BYTES: usize = 512;

/// Where in a code object the pointers are, bytes. Unused ones are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CodePointers(pub [u32; CODE_POINTERS]);

/// Memory of a target.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CodePart {
    /// Where it began, AVMA.
    pub address: u64,
    /// How many bytes could be read.
    pub len: u64,
    /// The bytes, as far as they could be read.
    pub bytes: [u8; PART_BYTES],
}

/// A code object that the interpreter frees before user space has read it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FreedCode {
    /// Its id.
    pub id: u32,
    /// Process slot.
    pub process: u32,
    /// The code object, and what the pointers lead to.
    pub parts: [CodePart; 1 + CODE_POINTERS],
}

/// The key of a code object: which process, which address.
pub use super::heap::live_key as code_key;

const _: () = {
    assert!(size_of::<PythonLayout>() == 152);
    assert!(size_of::<CodePointers>() == 12);
    assert!(size_of::<FreedCode>() == 8 + 4 * (16 + PART_BYTES));
};
