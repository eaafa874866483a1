//! What a target says that it holds.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What one site holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Held {
    /// Requested bytes; for mappings whole pages.
    pub bytes: u64,
    /// Blocks. Mappings are not counted: a range that is cut in two is a matter of view.
    pub objects: u64,
    /// Bytes it ever got, when the target counts that.
    pub allocated_bytes: Option<u64>,
    /// Blocks it ever got, when the target counts that.
    pub allocated_objects: Option<u64>,
}

/// One line of JSON from a target.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    /// Allocator blocks, by site.
    pub sites: BTreeMap<String, Held>,
    /// The target's own anonymous mappings, by site.
    pub mappings: BTreeMap<String, Held>,
    /// `right` while the target's own data is as it wrote it.
    pub checksum: String,
}

impl Truth {
    /// Bytes in blocks, of all sites.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sites.values().map(|held| held.bytes).sum()
    }

    /// Blocks, of all sites.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.sites.values().map(|held| held.objects).sum()
    }

    /// Panics unless the target's data is unharmed.
    pub fn assert_unharmed(&self) {
        assert_eq!(self.checksum, "right", "the target's own data was harmed");
    }
}
