//! From registers to a stack id: walk, then intern.

pub mod intern;
pub mod native;
pub mod python;
mod return_probe;
mod sample;
mod table;
pub mod window;
