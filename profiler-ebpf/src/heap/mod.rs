//! What keeps memory: blocks of allocators, objects of Python's allocator, and mapped ranges.

mod blocks;
pub mod calls;
mod noted_caller;
mod open_calls;
pub mod python;
pub mod ranges;

pub use noted_caller::note_caller;
