//! Plain data that maps hold, and questions that the data alone answers.
//!
//! Nothing here reads a map or calls a helper of the kernel. The rooms above do so, each in modules of its own.

pub mod connection;
pub mod request;
pub mod thread;
pub mod walk;
