//! What is outstanding, as far as user space keeps it. Pure.
//!
//! The kernel side keeps the allocator's blocks and their totals by stack. Memory mappings are
//! ranges, which split and overlap; they are kept here.

mod ranges;
mod suspects;

pub use ranges::{Origin, Ranges};
pub use suspects::Suspects;

/// Whose memory a mapped range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MappingOwner {
    /// Mapped by the application itself.
    Application,
    /// Mapped by an allocator as the backing of its blocks: counting it beside the blocks would
    /// count the same memory twice.
    Allocator,
    /// Mapped by the application, and other processes may have the same memory: a memfd, POSIX or
    /// System V shared memory, `MAP_SHARED` without a file.
    Shared,
}

impl MappingOwner {
    /// Every owner, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Allocator, Self::Application, Self::Shared];

    /// The name in captures and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Allocator => "allocator",
            Self::Shared => "shared",
        }
    }

    /// From its name, if there is such an owner.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|owner| owner.name() == name)
    }
}

/// Memory by the two ways to count it: what is outstanding now, and all since attach.
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
    /// What is left without `part`, which is a part of it.
    #[must_use]
    pub const fn minus(self, part: Self) -> Self {
        Self {
            inuse_bytes: self.inuse_bytes.saturating_sub(part.inuse_bytes),
            inuse_objects: self.inuse_objects.saturating_sub(part.inuse_objects),
            alloc_bytes: self.alloc_bytes.saturating_sub(part.alloc_bytes),
            alloc_objects: self.alloc_objects.saturating_sub(part.alloc_objects),
        }
    }

    /// Sums both, stopping at the largest number rather than wrapping.
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
