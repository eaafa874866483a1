//! `residue report --format json`, as far as the tests read it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    truth::Held,
    windows::{RouteRow, Unbound},
};

/// One report.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// What could not be recorded, by counter.
    pub lost: BTreeMap<String, u64>,
    /// What is worth knowing, by counter.
    pub notes: BTreeMap<String, u64>,
    /// What of `stacks` has a stack of its own.
    #[serde(default)]
    pub walked: Figures,
    /// The allocator's blocks.
    pub stacks: Vec<Stack>,
    /// Memory mappings.
    pub mappings: Vec<Stack>,
    /// Python objects, estimated from samples.
    #[serde(default)]
    pub python_objects: Vec<Stack>,
    /// Pools of Python's allocator.
    #[serde(default)]
    pub python_pools: Vec<Stack>,
    /// Request windows by route.
    #[serde(default)]
    pub routes: Vec<RouteRow>,
    /// What was allocated by no request.
    #[serde(default)]
    pub background: Option<Unbound>,
    /// What was allocated by one of several requests.
    #[serde(default)]
    pub ambiguous: Option<Unbound>,
}

/// Memory by both ways to count it.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "as in a stack")]
pub struct Figures {
    pub inuse_bytes: u64,
    pub inuse_objects: u64,
    pub alloc_bytes: u64,
    pub alloc_objects: u64,
}

/// One stack and what it has allocated.
#[derive(Clone, Debug, Deserialize)]
pub struct Stack {
    /// Leaf first.
    pub frames: Vec<Frame>,
    /// Bytes outstanding.
    pub inuse_bytes: u64,
    /// Blocks outstanding.
    pub inuse_objects: u64,
    /// Bytes allocated since the recording began.
    pub alloc_bytes: u64,
    /// Blocks allocated since the recording began.
    pub alloc_objects: u64,
    /// What of that was apportioned to the stack.
    #[serde(default)]
    pub estimated: Figures,
    /// Whether it is the beginning of stacks of which none was walked.
    #[serde(default)]
    pub shallow: bool,
    /// Of a mapping: `application`, `allocator` or `shared`.
    #[serde(default)]
    pub owner: Option<String>,
}

/// One frame.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Frame {
    /// Function, or `module+0xoffset`, or what is known of frames that are missing, in brackets.
    pub name: String,
    /// The path of the file that the function is in.
    #[serde(default)]
    pub module: Option<String>,
    /// The source file.
    #[serde(default)]
    pub file: Option<String>,
    /// The line in it.
    #[serde(default)]
    pub line: Option<u32>,
}

impl Frame {
    /// The function without what a compiler may have added to its name: a C++ parameter list, a
    /// Rust path, the mark of a part that is seldom run.
    #[must_use]
    pub fn function(&self) -> &str {
        let name = self.name.split('(').next().unwrap_or_default();
        let name = name.rsplit("::").next().unwrap_or(name);
        name.split(".cold").next().unwrap_or(name)
    }
}

/// The name under which everything counts that no site is responsible for.
pub const NO_SITE: &str = "(no site)";

impl Stack {
    /// The leaf-most frame that is a site, by its function's name.
    #[must_use]
    pub fn site(&self) -> Option<&str> {
        self.from_site().first().map(Frame::function)
    }

    /// The frames from the leaf-most site outwards; none when there is no site.
    #[must_use]
    pub fn from_site(&self) -> &[Frame] {
        let is_site = |frame: &Frame| frame.function().starts_with("site_");
        let first = self.frames.iter().position(is_site);
        first.map_or(&[], |first| &self.frames[first..])
    }

    fn held(&self) -> Held {
        Held {
            bytes: self.inuse_bytes,
            objects: self.inuse_objects,
            allocated_bytes: Some(self.alloc_bytes),
            allocated_objects: Some(self.alloc_objects),
        }
    }
}

impl Report {
    /// Blocks by site, [`NO_SITE`] included.
    #[must_use]
    pub fn by_site(&self) -> BTreeMap<String, Held> {
        sum(self.stacks.iter())
    }

    /// The application's own mappings by site, shared ones and [`NO_SITE`] included.
    #[must_use]
    pub fn mappings_by_site(&self) -> BTreeMap<String, Held> {
        let own = |stack: &&Stack| stack.owner.as_deref() != Some("allocator");
        sum(self.mappings.iter().filter(own))
    }

    /// Without the stacks and mappings that are in no site: what a program did before `ready`.
    #[must_use]
    pub fn only_sites(mut self) -> Self {
        self.stacks.retain(|stack| stack.site().is_some());
        self.mappings.retain(|mapping| mapping.site().is_some());
        self
    }

    /// Bytes outstanding, of all stacks.
    #[must_use]
    pub fn outstanding_bytes(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.inuse_bytes).sum()
    }

    /// Blocks outstanding, of all stacks.
    #[must_use]
    pub fn outstanding_objects(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.inuse_objects).sum()
    }

    /// The row of a route; none when it had no request.
    #[must_use]
    pub fn route(&self, route: &str) -> Option<&RouteRow> {
        self.routes.iter().find(|row| row.route == route)
    }

    /// A counter of what was lost; zero when the report does not have it.
    #[must_use]
    pub fn lost(&self, counter: &str) -> u64 {
        self.lost.get(counter).copied().unwrap_or(0)
    }

    /// The counters of what was lost that are not zero.
    #[must_use]
    pub fn losses(&self) -> BTreeMap<&str, u64> {
        self.lost
            .iter()
            .filter(|&(_, &amount)| amount != 0)
            .map(|(name, &amount)| (name.as_str(), amount))
            .collect()
    }
}

fn sum<'a>(stacks: impl Iterator<Item = &'a Stack>) -> BTreeMap<String, Held> {
    let mut sites: BTreeMap<String, Held> = BTreeMap::new();
    for stack in stacks {
        let site = stack.site().unwrap_or(NO_SITE);
        let total = sites.entry(site.to_owned()).or_default();
        let held = stack.held();
        total.bytes += held.bytes;
        total.objects += held.objects;
        *total.allocated_bytes.get_or_insert(0) += stack.alloc_bytes;
        *total.allocated_objects.get_or_insert(0) += stack.alloc_objects;
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(frames: &[&str], bytes: u64) -> Stack {
        Stack {
            frames: frames
                .iter()
                .map(|&name| Frame {
                    name: name.to_owned(),
                    module: None,
                    ..Frame::default()
                })
                .collect(),
            inuse_bytes: bytes,
            inuse_objects: 1,
            alloc_bytes: bytes,
            alloc_objects: 1,
            estimated: Figures::default(),
            shallow: false,
            owner: None,
        }
    }

    #[test]
    fn a_stack_counts_for_its_leafmost_site() {
        let stacks = [
            stack(&["helper", "site_b", "site_a", "main"], 5),
            stack(&["site_b", "main"], 7),
            stack(&["app::site_c(unsigned long)", "main"], 1),
            stack(&["main", "not_site_d"], 2),
        ];
        let sites = sum(stacks.iter());
        assert_eq!(sites["site_b"].bytes, 12);
        assert_eq!(sites["site_b"].objects, 2);
        assert_eq!(sites["site_c"].bytes, 1);
        assert_eq!(sites[NO_SITE].bytes, 2);
        assert!(!sites.contains_key("site_a"));
    }
}
