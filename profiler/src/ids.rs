//! Numbers that a recording gives to what it sees, as types.

use residue_ebpf::abi::UNKNOWN_STACK;

/// The place of a process in the tables of the kernel side. Other processes have the place later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl Slot {
    /// The slot that a record of the kernel side names. A slot that is too large is nobody's.
    #[must_use]
    pub fn of_record(process: u32) -> Self {
        Self(u16::try_from(process).unwrap_or(u16::MAX))
    }

    /// The index of the slot's entry in a map.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }
}

/// The number of a process in one recording, in the order in which the recording took the processes in. No two
/// processes have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessNumber(pub u32);

/// The number of a stack in one recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub u32);

impl StackId {
    /// The stack of what has no stack, because there was no room for one.
    pub const UNKNOWN: Self = Self(UNKNOWN_STACK);
}

/// The number of a window on the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowId(pub u32);

/// The number of a request in one recording. Requests that arrive together share one window of the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowNumber(pub u64);

impl WindowNumber {
    /// The number of a request that arrived behind so many others of its window.
    #[must_use]
    pub fn new(window: WindowId, behind: u32) -> Self {
        Self(u64::from(behind) << 32 | u64::from(window.0))
    }

    /// The window that the request arrived in.
    #[must_use]
    pub const fn window(self) -> WindowId {
        WindowId(self.0 as u32)
    }
}

/// The number of a probed function of one process on the kernel side. Other functions have the number later.
#[derive(Clone, Copy, Debug)]
pub struct FunctionId(pub u32);
