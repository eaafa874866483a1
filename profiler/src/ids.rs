//! Numbers that a recording gives to what it sees, as types.

/// The number of a process in one recording, in the order in which the recording took the processes in. No two
/// processes have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessNumber(pub u32);
