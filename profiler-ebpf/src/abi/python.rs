//! Where CPython keeps its frames, and the ids of its code objects.
//!
//! A frame of Python names its code object by an id. The kernel side gives a code object an id when a stack
//! first shows the object, and a probe takes the id back when the interpreter frees the object. So an id
//! never stands for two functions, though an address does.

/// How many ranges of native code may run Python's bytecode: the evaluation function, and the parts that a
/// compiler has moved away from the function.
pub const EVAL_RANGES: usize = 4;

/// How many bytes of an interpreter's frame a walk reads. All fields that the walk needs lie in them.
pub const FRAME_BYTES: usize = 128;

/// How many bytes of a `PyThreadState` a walk reads at once. The structure is larger in every version, and
/// all fields that the walk needs lie in these bytes.
pub const STATE_BYTES: usize = 256;

/// Stands for the place of the current context if that is not known for a version.
pub const NO_CONTEXT: u32 = u32::MAX;

/// The offset in a `PyContext` of the context that was current when the thread entered this one: `ctx_prev`
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

/// How a run of frames ends. One call of the evaluation function stands for each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryKind {
    /// Every frame has a call of its own (to 3.10).
    Every,
    /// The frame whose byte at `entry` is not zero is the last of the run (3.11).
    Flag,
    /// The frame whose byte at `entry` is 3 or more lies behind the last frame of the run and is no frame of Python
    /// itself (from 3.12).
    Owner,
}

/// How to find the frames of a process's threads. Offsets in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PythonLayout {
    /// Zero if there is no Python to walk.
    pub enabled: u32,
    /// The offset of the current thread's state from the thread's fsbase, or from the block below.
    pub tss: u32,
    /// The offset from the thread's fsbase of the pointer to the block that holds `tss`; zero if the thread's
    /// own block does.
    pub tss_block: u32,
    /// `PyThreadState.thread_id`: the result of pthread_self() in the thread, which is the fsbase.
    pub thread_id: u32,
    /// The AVMA of the pointer to the state of the thread that holds the GIL; zero from 3.12 on. In a subinterpreter,
    /// thread-local storage leads to another state.
    pub gil_holder: u64,
    /// The pointer in `PyThreadState` to the current frame, or to the `_PyCFrame` that has it.
    pub frame: u32,
    /// The pointer to the current frame in `_PyCFrame`; `u32::MAX` where there is none.
    pub frame_in_cframe: u32,
    /// How many bytes of a frame can be read for sure; at most [`FRAME_BYTES`], and a multiple of 8.
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
    /// The pointer in `PyThreadState` to the context of `contextvars` that the thread is in. Behind the
    /// pointer lies how often the thread has entered or left a context. [`NO_CONTEXT`] if the place is not
    /// known.
    pub context: u32,
    /// Zero.
    pub reserved: u32,
    /// Native code that makes asyncio's tasks, AVMAs: `[start, end)`; zero while the code is not known.
    pub task_code: [u64; 2],
}

/// How many ids code objects can have. The last id is never given.
pub const CODE_IDS: u64 = 1 << 24;

/// How many ids, the latest ones, wait for user space to look at their code objects.
pub const CODE_KEYS: u32 = 262_144;

/// Set in a code object's key once user space has read the object. No address in user space has
/// this bit.
pub const CODE_IS_READ: u64 = 1 << (super::heap::ADDRESS_BITS - 1);

/// How many pointers in a code object lead to the objects that name it.
pub const CODE_POINTERS: usize = 3;

/// How many bytes are kept of a code object, and of each of the objects that name it.
pub const PART_BYTES: usize = 512;

/// Where in a code object the pointers are, bytes. Unused ones are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CodePointers(pub [u32; CODE_POINTERS]);

/// Memory of a target.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CodePart {
    /// Where the memory began, AVMA.
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
    /// The code object's id.
    pub id: u32,
    /// Process slot.
    pub process: u32,
    /// The code object, and the objects to which the pointers lead.
    pub parts: [CodePart; 1 + CODE_POINTERS],
}

/// The key of a code object has its process and its address.
pub use super::heap::live_key as code_key;

const _: () = {
    assert!(size_of::<PythonLayout>() == 152);
    assert!(size_of::<CodePointers>() == 12);
    assert!(size_of::<FreedCode>() == 8 + 4 * (16 + PART_BYTES));
};
