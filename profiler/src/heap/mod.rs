//! The outstanding memory that user space keeps track of. Pure.
//!
//! The kernel side keeps the allocators' blocks and their totals by stack. This module keeps memory
//! mappings, because mappings are ranges, which split and overlap.

mod ranges;
mod suspects;

pub use ranges::{Origin, Ranges};
pub use suspects::Suspects;

/// Who a mapped range belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MappingOwner {
    /// The application mapped the range itself.
    Application,
    /// An allocator mapped the range and makes blocks of it: counting the range beside the blocks would count
    /// the same memory twice.
    Allocator,
    /// The application mapped the range, and other processes may have the same memory: a memfd, POSIX or
    /// System V shared memory, `MAP_SHARED` without a file.
    Shared,
}

impl MappingOwner {
    /// Every owner, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Allocator, Self::Application, Self::Shared];

    /// The owner's name in captures and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Allocator => "allocator",
            Self::Shared => "shared",
        }
    }

    /// The owner with this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|owner| owner.name() == name)
    }
}

/// An amount of memory, counted in two ways: what is outstanding now, and everything since attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes allocated since attach and not yet freed.
    pub inuse_bytes: u64,
    /// Blocks (or ranges) allocated since attach and not yet freed.
    pub inuse_objects: u64,
    /// Bytes allocated since attach.
    pub alloc_bytes: u64,
    /// Blocks (or ranges) allocated since attach.
    pub alloc_objects: u64,
}

impl Figures {
    /// What remains of these figures without `part`, which they include.
    #[must_use]
    pub const fn minus(self, part: Self) -> Self {
        Self {
            inuse_bytes: self.inuse_bytes.saturating_sub(part.inuse_bytes),
            inuse_objects: self.inuse_objects.saturating_sub(part.inuse_objects),
            alloc_bytes: self.alloc_bytes.saturating_sub(part.alloc_bytes),
            alloc_objects: self.alloc_objects.saturating_sub(part.alloc_objects),
        }
    }

    /// Adds `other`. A sum that is too large becomes the largest number.
    pub fn add(&mut self, other: Self) {
        let Self {
            inuse_bytes,
            inuse_objects,
            alloc_bytes,
            alloc_objects,
        } = other;
        self.inuse_bytes = self.inuse_bytes.saturating_add(inuse_bytes);
        self.inuse_objects = self.inuse_objects.saturating_add(inuse_objects);
        self.alloc_bytes = self.alloc_bytes.saturating_add(alloc_bytes);
        self.alloc_objects = self.alloc_objects.saturating_add(alloc_objects);
    }
}
