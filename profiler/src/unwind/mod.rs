//! Unwind: from the call frame information of an object to a table for walks in the kernel.
//!
//! ELF bytes ▶ `sections` finds `.eh_frame` and `.debug_frame` ▶ `entries` reads their CIEs and
//! FDEs ▶ `columns` runs an FDE's instructions ▶ `rule` puts a row into the terms of the walk ▶
//! [`UnwindTable`], sorted by file offset ▶ [`TableStore`], laid out for BPF maps.
//!
//! ```no_run
//! let object = std::fs::read("/usr/bin/python3")?;
//! let table = residue::unwind::UnwindTable::read(&object[..])?;
//! println!("{:?}", table.rule_at(0x1234));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Pure, and everything in an object is hostile input: an entry is read once, an instruction is run
//! once, so that time and memory grow with the size of the sections and no faster.

mod build;
mod columns;
mod cover;
mod entries;
mod expression;
mod frame_pointers;
mod pages;
mod rule;
pub mod runtime;
mod sections;
mod store;
mod table;
mod trampoline;

#[cfg(test)]
mod tests;

pub use store::{NoRoom, StoreLimits, StoreUsage, TableStore, Update};
pub use table::{TableRow, UnwindStats, UnwindTable};

use crate::target::elf::NotUsable;

/// Why an object has no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwindError {
    /// No x86-64 ELF file.
    #[error(transparent)]
    NotUsable(#[from] NotUsable),
    /// Neither `.eh_frame` nor `.debug_frame`, or nothing in them.
    #[error("it has no call frame information (.eh_frame or .debug_frame)")]
    NoCfi,
    /// Not one sound entry, or headers that contradict themselves.
    #[error("its call frame information is damaged")]
    Damaged,
    /// Larger than any real object: its {0} exceed what residue reads.
    #[error("its {0} exceed what residue reads")]
    TooLarge(&'static str),
}
