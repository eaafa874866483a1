//! One module a concern; see the crate documentation.

pub mod call_shape;
pub mod counters;
pub mod event;
pub mod frame;
pub mod heap;
pub mod unwind;

/// The longest stack that is recorded, in frames. Deeper ones keep their leaf-most frames and are
/// marked [`event::WalkEnd::TooDeep`].
pub const MAX_FRAMES: usize = 127;

/// Stack id of the allocations whose stack did not fit into the stack table. Their bytes are
/// counted; only the place is unknown.
pub const UNKNOWN_STACK: u32 = 0;
