//! From registers to a stack id: walk, then intern.

pub mod frame_pointer;
pub mod intern;
