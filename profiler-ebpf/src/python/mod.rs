//! Python's side of a walk: the interpreter's own frames, and the ids of code objects.

mod frames;

pub use frames::code_freed;
