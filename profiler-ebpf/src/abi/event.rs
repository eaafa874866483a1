//! What the kernel side sends through its two ring buffers.
//!
//! `STACKS` carries the frames of stacks seen for the first time; a stack that does not fit is sent
//! again at its next use, so nothing is lost there. `EVENTS` carries what happens to address ranges
//! and processes, in the order in which it happened; what does not fit is counted.

use crate::abi::MAX_FRAMES;

/// Why a stack walk stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WalkEnd {
    /// The chain of frame pointers ended, or led somewhere that is no stack.
    ChainEnded,
    /// The next frame record could not be read.
    Unreadable,
    /// There were more than [`MAX_FRAMES`] frames.
    TooDeep,
}

impl WalkEnd {
    /// From its number, if there is such an end.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Self::ChainEnded),
            1 => Some(Self::Unreadable),
            2 => Some(Self::TooDeep),
            _ => None,
        }
    }
}

/// A stack's frames, leaf first. Only the first `len` frames are sent.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct StackEvent {
    /// The id in live allocations and totals.
    pub stack: u32,
    /// The process slot it was taken in.
    pub process: u32,
    /// Number of frames.
    pub len: u32,
    /// A [`WalkEnd`].
    pub end: u32,
    /// Return addresses, AVMA.
    pub frames: [u64; MAX_FRAMES],
}

impl StackEvent {
    /// Bytes before the first frame.
    pub const HEADER_BYTES: usize = 16;
}

/// What happened to an address range or a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// `[address, address + length)` was mapped; whatever was mapped there is gone.
    RangeMapped,
    /// The range is about to be unmapped, or moved away by mremap.
    RangeTaken,
    /// The last `RangeTaken` of this thread did not happen after all.
    RangeRestored,
    /// The program break is now `address`.
    BreakMoved,
    /// An executable file mapping appeared: a library was loaded.
    CodeMapped,
    /// The process replaced its program. Nothing of the old address space is left.
    Executed,
}

impl EventKind {
    /// From its number, if there is such a kind.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits {
            0 => Self::RangeMapped,
            1 => Self::RangeTaken,
            2 => Self::RangeRestored,
            3 => Self::BreakMoved,
            4 => Self::CodeMapped,
            5 => Self::Executed,
            _ => return None,
        })
    }
}

/// The range backs a file, and is no memory of its own.
pub const RANGE_IS_FILE: u32 = 1;
/// The range was mapped by an allocator for its own use.
pub const RANGE_BACKS_ALLOCATOR: u32 = 2;

/// See [`EventKind`] for what the fields mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// An [`EventKind`].
    pub kind: u32,
    /// The process slot.
    pub process: u32,
    /// The thread that did it.
    pub tid: u32,
    /// The stack that did it, for `RangeMapped` and `BreakMoved`.
    pub stack: u32,
    /// AVMA.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// `RANGE_…` bits.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<StackEvent>() == StackEvent::HEADER_BYTES + 8 * MAX_FRAMES);
    assert!(size_of::<Event>() == 40);
};
