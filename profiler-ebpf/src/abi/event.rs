//! The records of two ring buffers, by which the kernel side sends stacks and events.
//!
//! `STACKS` carries the frames of each stack that the kernel side sees for the first time. A stack that does
//! not fit is sent again at its next use, so nothing is lost there. `EVENTS` carries the events of address
//! ranges and processes, in the order in which they happened. Events that do not fit are counted.

use crate::abi::MAX_FRAMES;

macro_rules! walk_ends {
    ($($(#[doc = $meaning:literal])+ $variant:ident = $name:literal;)+) => {
        /// Why a stack walk stopped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum WalkEnd { $($(#[doc = $meaning])+ $variant,)+ }

        impl WalkEnd {
            /// Every end, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in captures: kebab case, stable.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The meaning of the end, for a person.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning,)+).trim_ascii(),)+ }
            }
        }
    };
}

// Each end but the first has a counter, in the same order.
walk_ends! {
    /// outermost frame
    Bottom = "bottom";
    /// stack memory not readable
    Unreadable = "unreadable";
    /// too many frames
    TooDeep = "too-deep";
    /// no unwind table and no frame pointer
    NoTable = "no-table";
    /// unwind table not loaded yet
    TableLoading = "table-loading";
    /// no room for the unwind table
    NoRoom = "no-room";
    /// code mapped a moment ago, or no code
    UnknownCode = "unknown-code";
    /// unwind rule not supported
    Unsupported = "unsupported";
    /// the frame's caller does not lie above it
    NoProgress = "no-progress";
}

impl WalkEnd {
    /// From its number, if there is such an end.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        Self::ALL.get(bits as usize).copied()
    }

    /// Whether the stack has every frame down to the outermost one.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::Bottom)
    }
}

/// The frames of a stack, leaf first. If a stack has more than [`MAX_FRAMES`], the first
/// [`LEAF_FRAMES`](crate::abi::LEAF_FRAMES) places hold the leaf-most frames, and the other places are a
/// ring: the frame with the number `n` lies at `(n - LEAF_FRAMES) % ROOT_FRAMES` in the ring, unless a later
/// frame does.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct StackEvent {
    /// The id in live allocations and totals.
    pub stack: u32,
    /// The slot of the process whose stack this is.
    pub process: u32,
    /// How many frames the walk has entered; at most [`MAX_FRAMES`] of them are here.
    pub walked: u32,
    /// A [`WalkEnd`].
    pub end: u32,
    /// A [`StackKind`](crate::abi::heap::StackKind).
    pub kind: u32,
    /// The id of the shallow context that the stack belongs to; zero if it has none.
    pub context: u32,
    /// [`RawFrame`](crate::abi::frame::RawFrame)s. Only the frames that the walk has written are sent.
    pub frames: [u64; MAX_FRAMES],
}

impl StackEvent {
    /// Bytes before the first frame.
    pub const HEADER_BYTES: usize = 24;
}

/// Bytes of the stack in a sample.
pub const SAMPLE_BYTES: usize = 64 << 10;

/// A walk, with the registers and the memory from which it was made, for tests that walk the stack by other means.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct StackSample {
    /// Thread group id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Where the walk began: a return address, AVMA.
    pub ip: u64,
    /// The stack pointer where the walk began, AVMA.
    pub sp: u64,
    /// rbp where the walk began.
    pub bp: u64,
    /// The process slot.
    pub process: u32,
    /// As in [`StackEvent`].
    pub walked: u32,
    /// A [`WalkEnd`].
    pub end: u32,
    /// How much of `stack` was copied, bytes.
    pub stack_bytes: u32,
    /// As in [`StackEvent`].
    pub frames: [u64; MAX_FRAMES],
    /// The memory from `sp` upwards.
    pub stack: [u8; SAMPLE_BYTES],
}

/// What happened to an address range or a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// `[address, address + length)` was mapped; any earlier mapping there is gone.
    RangeMapped,
    /// The range is about to be unmapped, or moved away by mremap.
    RangeTaken,
    /// The last `RangeTaken` of this thread did not happen after all.
    RangeRestored,
    /// The program break is now `address`.
    BreakMoved,
    /// An executable file mapping appeared: a library was loaded.
    CodeMapped,
    /// The process has replaced its program. Nothing of the old address space is left.
    Executed,
    /// A System V segment of shared memory was attached at `address`. Only the process's mappings say how
    /// long the segment is.
    SegmentAttached,
    /// The segment that was attached at `address` is about to be detached.
    SegmentDetached,
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
            6 => Self::SegmentAttached,
            7 => Self::SegmentDetached,
            _ => return None,
        })
    }
}

/// A file backs the range, which is no memory of its own.
pub const RANGE_IS_FILE: u32 = 1;
/// An allocator has mapped the range for its own use.
pub const RANGE_BACKS_ALLOCATOR: u32 = 2;
/// The range is memory that other processes may map as well.
pub const RANGE_IS_SHARED: u32 = 4;
/// The range was mapped by mremap. The last `RangeTaken` of the thread says what the range is.
pub const RANGE_IS_MOVED: u32 = 8;
/// In a `RangeTaken`: the range stays mapped where it is (`MREMAP_DONTUNMAP`).
pub const RANGE_STAYS: u32 = 16;

/// An event of an address range or a process. The [`EventKind`] says what the fields mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// An [`EventKind`].
    pub kind: u32,
    /// The process slot.
    pub process: u32,
    /// The thread that caused the event.
    pub tid: u32,
    /// The stack that caused the event, for `RangeMapped`, `BreakMoved` and `SegmentAttached`.
    pub stack: u32,
    /// The address, AVMA.
    pub address: u64,
    /// The length of the range, bytes.
    pub length: u64,
    /// `RANGE_…` bits.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<StackEvent>() == StackEvent::HEADER_BYTES + 8 * MAX_FRAMES);
    assert!(size_of::<Event>() == 40);
    assert!(size_of::<StackSample>() == 48 + 8 * MAX_FRAMES + SAMPLE_BYTES);
};
