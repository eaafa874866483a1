//! Language runtimes that keep frames of their own beside the native stack.

pub mod python;
