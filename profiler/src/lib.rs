//! Residue: what a live server process leaves behind in memory, and which line of code left it.

pub mod probes;
pub mod target;
