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

impl Held {
    /// What only one of the two counts is not known of both.
    fn add(&mut self, other: &Self) {
        let first = *self == Self::default();
        let sum = |a: Option<u64>, b: Option<u64>| if first { b } else { Some(a? + b?) };
        self.allocated_bytes = sum(self.allocated_bytes, other.allocated_bytes);
        self.allocated_objects = sum(self.allocated_objects, other.allocated_objects);
        self.bytes += other.bytes;
        self.objects += other.objects;
    }
}

/// What was allocated through one chain of calls.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Chain {
    /// Leaf first, from the site to `main` or to a thread's first function. What an entry may be is
    /// said in [`chains`](crate::chains).
    pub frames: Vec<String>,
    /// Requested bytes.
    pub bytes: u64,
    /// Blocks.
    pub objects: u64,
}

/// One line of JSON from a target.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    /// Allocator blocks, by site.
    pub sites: BTreeMap<String, Held>,
    /// The target's own anonymous mappings, by site.
    pub mappings: BTreeMap<String, Held>,
    /// The same blocks by the whole chain of calls, where the target keeps account of that.
    #[serde(default)]
    pub chains: Vec<Chain>,
    /// `right` while the target's own data is as it wrote it.
    pub checksum: String,
}

impl Truth {
    /// What several targets hold together, each chain of calls once.
    ///
    /// # Panics
    ///
    /// When the data of one of them is harmed.
    #[must_use]
    pub fn of_all(truths: &[Self]) -> Self {
        let mut all = Self {
            sites: BTreeMap::new(),
            mappings: BTreeMap::new(),
            chains: Vec::new(),
            checksum: "right".to_owned(),
        };
        for truth in truths {
            truth.assert_unharmed();
            for (site, held) in &truth.sites {
                all.sites.entry(site.clone()).or_default().add(held);
            }
            for (site, held) in &truth.mappings {
                all.mappings.entry(site.clone()).or_default().add(held);
            }
            truth.chains.iter().for_each(|chain| all.add_chain(chain));
        }
        all
    }

    fn add_chain(&mut self, chain: &Chain) {
        let same = |it: &&mut Chain| it.frames == chain.frames;
        match self.chains.iter_mut().find(same) {
            Some(same) => {
                same.bytes += chain.bytes;
                same.objects += chain.objects;
            }
            None => self.chains.push(chain.clone()),
        }
    }

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
