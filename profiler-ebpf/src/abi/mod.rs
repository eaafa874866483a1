//! One module a concern; see the crate documentation.

pub mod call_shape;
pub mod cost;
pub mod counters;
pub mod event;
pub mod frame;
pub mod heap;
pub mod http;
#[cfg(feature = "user")]
mod pod;
pub mod python;
pub mod unwind;
pub mod window;

/// The leaf-most frames of a stack, which are always kept.
pub const LEAF_FRAMES: usize = 384;
/// The outermost frames of a stack, which are kept as well: what lies between is left out of stacks
/// that have more than [`MAX_FRAMES`]. A power of two.
pub const ROOT_FRAMES: usize = 128;
/// The longest stack that is recorded whole, in frames.
pub const MAX_FRAMES: usize = LEAF_FRAMES + ROOT_FRAMES;

/// Stack id of the allocations whose stack did not fit into the stack table. Their bytes are
/// counted; only the place is unknown.
pub const UNKNOWN_STACK: u32 = 0;
