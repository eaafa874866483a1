//! The types that cross the kernel boundary, in one module a concern.

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

/// How many of a stack's leaf-most frames are kept.
pub const LEAF_FRAMES: usize = 384;
/// How many of a stack's outermost frames are kept. A stack of more than [`MAX_FRAMES`] lacks the frames
/// between these and the leaf-most ones. A power of two.
pub const ROOT_FRAMES: usize = 128;
/// The longest stack that is recorded whole, in frames.
pub const MAX_FRAMES: usize = LEAF_FRAMES + ROOT_FRAMES;

/// The stack id of allocations whose stack did not fit into the stack table. The bytes of these allocations
/// are counted; only their place is unknown.
pub const UNKNOWN_STACK: u32 = 0;
