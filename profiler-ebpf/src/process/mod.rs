//! The life of processes and threads: new processes, new programs, new code, and ends.

pub mod descendants;
mod program;

pub use program::{code_appeared, executed, thread_exited};
