//! Python's side of a walk: the interpreter's own frames, the state of its threads, and the ids of code objects.

mod codes;
mod frames;
mod thread_state;

pub use codes::freed as code_freed;
pub use frames::{begin, count_what_is_missing, pass, running, step, take_rest};
pub use thread_state::context;
