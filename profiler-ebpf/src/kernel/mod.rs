//! Reads what the kernel and the target's memory say of the thread at hand.

pub mod files;
pub mod memory;
pub mod probe;
pub mod process;
pub mod syscall;
pub mod task;
