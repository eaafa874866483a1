//! A walk of a stack under way: its native side, its Python side, and the piece of the stack that was read ahead.

use residue_ebpf::abi::{
    python::{FRAME_BYTES, STATE_BYTES},
    unwind::{CodeMapping, ObjectState},
};

/// The registers that a stack walk starts from. AVMAs.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Registers {
    /// The address of the leaf-most frame: a return address, or the address to which a syscall returns.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
}

/// A walk under way.
#[repr(C)]
pub struct Walk {
    /// The registers of the next frame. The address is a return address, or the address behind the instruction
    /// that a signal has interrupted.
    pub at: Registers,
    /// The mapping of the last frame.
    pub code: CodeMapping,
    /// The object of the last frame.
    pub object: ObjectState,
    /// The hash of the frames so far.
    pub hash: u64,
    /// How many frames the walk has entered so far.
    pub walked: u32,
    /// Why the walk ended: a `WalkEnd`.
    pub end: u32,
    /// Not zero when the last step relied on a frame pointer that no table vouches for.
    pub guessed: u32,
    /// Not zero when any step relied on such a frame pointer.
    pub ever_guessed: u32,
    /// The piece of the target's stack that was read last.
    pub ahead: ReadAhead,
    /// The interpreter's own frames.
    pub python: PythonWalk,
}

/// Words that are read ahead. A power of two.
pub const AHEAD_WORDS: usize = 128;

/// A piece of the target's stack.
#[repr(C)]
pub struct ReadAhead {
    /// Where the piece begins, AVMA; zero when nothing was read.
    pub start: u64,
    /// The words of the piece.
    pub words: [u64; AHEAD_WORDS],
}

/// Words that hold [`STATE_BYTES`]. A power of two.
const STATE_WORDS: usize = 32;

const _: () = assert!(STATE_WORDS * size_of::<u64>() >= STATE_BYTES);

/// What the next step of a walk does.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// The step enters a native frame.
    Native,
    /// The step enters a Python frame of the call of the evaluation function that the native walk has passed.
    Run,
    /// The step enters one of the Python frames that are left: the native walk is over.
    Rest,
}

/// The Python side of a walk under way.
#[repr(C)]
pub struct PythonWalk {
    /// The next frame, AVMA; zero when there is none.
    pub frame: u64,
    /// The first bytes of the frame that was read last.
    pub words: [u64; FRAME_BYTES / 8],
    /// The first bytes of the thread's `PyThreadState`.
    pub state: [u64; STATE_WORDS],
    /// The address of the `PyThreadState`, AVMA; zero when the thread has none.
    pub state_at: u64,
    /// Process slot.
    pub process: u32,
    /// Not zero if the process runs Python.
    pub enabled: u32,
    /// What the next step does: a [`Mode`].
    pub mode: u32,
    /// Not zero once the walk has passed the evaluation function and found no Python frame for the call.
    pub missing: u32,
}

impl PythonWalk {
    /// Whether the process runs Python. The walk must have begun.
    #[inline(always)]
    pub const fn is_enabled(&self) -> bool {
        self.enabled != 0
    }

    /// Whether the thread runs Python. The walk must have begun.
    #[inline(always)]
    pub const fn is_thread(&self) -> bool {
        self.state_at != 0
    }

    /// Whether the next step enters a Python frame.
    #[inline(always)]
    pub const fn is_next(&self) -> bool {
        self.mode != Mode::Native as u32
    }

    /// Whether the native walk is over and no Python frame is left.
    #[inline(always)]
    pub const fn is_over(&self) -> bool {
        self.mode == Mode::Rest as u32 && self.frame == 0
    }
}
