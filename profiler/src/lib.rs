//! Residue: what a live server process leaves behind in memory, and which line of code left it.

pub mod capture;
pub mod cli;
pub mod profile;
pub mod report;
pub mod symbolize;
