//! Walks stacks: from the registers of a thread to the id of its stack.

mod context;
mod intern;
pub mod native;
mod read_ahead;
mod return_probe;
mod sample;
mod table;

pub use context::stack_of_allocation;
pub use intern::{stack_at, stack_of_kind, totals};
