//! Residue, a profiler that shows what a live server process leaves behind in memory, and which
//! line of code left it there.

pub mod attach;
pub mod capture;
pub mod cli;
pub mod drain;
pub mod error_text;
pub mod estimate;
pub mod heap;
pub mod ids;
#[cfg(test)]
mod machine;
pub mod messages;
mod printable;
mod private_file;
pub mod probes;
pub mod process;
pub mod profile;
pub mod python;
pub mod remark;
pub mod report;
pub mod requests;
pub mod session;
mod signal_mask;
pub mod sink;
pub mod symbolize;
pub mod unwind;
mod wording;
