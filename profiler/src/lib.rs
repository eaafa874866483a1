//! Residue: what a live server process leaves behind in memory, and which line of code left it.

pub mod attach;
pub mod drain;
pub mod heap;
