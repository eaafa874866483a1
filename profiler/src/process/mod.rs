//! Discovers what a process is, which files it runs code from, and in which order its symbols
//! resolve. This room has all reading of `/proc`, and all opening of files that a target names.
//!
//! Residue opens a [`Process`] once and holds it by a pidfd, so that it never takes a process with
//! a reused PID for the target. Everything in a target is hostile input: reads are bounded, and
//! residue refuses what contradicts itself, or leaves it out by name, and never trusts it.

pub mod address;
mod backing;
mod children;
pub mod elf;
mod file;
mod link_map;
mod live;
mod mapping;
mod memory;
mod objects;
mod refusal;
mod sandbox;
mod search_order;
mod settings;

pub use address::{Avma, FileOffset, LoadBias, Svma};
pub use backing::Backing;
pub use children::children;
pub use file::{FileData, ReadBudget, Root, RootId, TargetFile};
pub use live::{Pid, Process};
pub use mapping::{FileKey, Mapping, Mappings};
pub use memory::{Memory, ProcessMemory};
pub use objects::{Load, LoadedObject, LoadedObjects, UnreadableObject};
pub use refusal::Refusal;
