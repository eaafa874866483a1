//! Makes tables for walks in the kernel from the call frame information of objects.
//!
//! ELF bytes ▶ `sections` finds `.eh_frame` and `.debug_frame` ▶ `entries` reads their CIEs and
//! FDEs ▶ `columns` runs the instructions of an FDE ▶ `rule` turns a row into a rule of the walk ▶
//! [`UnwindTable`], sorted by file offset ▶ [`TableStore`], laid out for BPF maps.
//!
//! ```no_run
//! let object = std::fs::read("/usr/bin/python3")?;
//! let table = residue::unwind::UnwindTable::read(&object[..])?;
//! println!("{:?}", table.rule_at(0x1234));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Pure. Everything in an object is hostile input: this module reads an entry once and runs an instruction once,
//! so that time and memory grow no faster than the size of the sections.

mod build;
mod columns;
mod cover;
mod entries;
mod expression;
mod frame_pointers;
mod pages;
mod rule;
pub(crate) mod sections;
mod store;
mod table;
mod trampoline;

#[cfg(test)]
mod tests;

pub use store::{NoRoom, StoreLimits, StoreUsage, TableStore, Update};
pub use table::{TableRow, UnwindStats, UnwindTable};

use crate::process::elf::NotUsable;

/// Why residue can make no unwind table of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwindError {
    /// The object is no ELF file for x86-64.
    #[error(transparent)]
    NotUsable(#[from] NotUsable),
    /// The object has neither `.eh_frame` nor `.debug_frame`, or both are empty.
    #[error("it has no call frame information (.eh_frame or .debug_frame)")]
    NoCfi,
    /// The object has not one sound entry, or its headers contradict themselves.
    #[error("its call frame information is damaged")]
    Damaged,
    /// The object has more of something than any real object. The text names what.
    #[error("its {0} exceed what residue reads")]
    TooLarge(&'static str),
}
