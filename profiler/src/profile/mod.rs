//! The one symbolized model that every report reads.
//!
//! A [`Profile`] is a recording's end state: who was recorded, for how long, what was lost, and
//! each distinct symbolized stack with its figures. Building it is pure; it never symbolizes and
//! knows nothing of files. All its text is printable, whoever chose it. Stacks of one process whose frames read the same are one row, although
//! their addresses differ.

mod apportion;
mod build;
mod clean;
mod culprit;
mod cython;
mod frames;
mod interpreters;
mod merge;
mod origin;
mod requests;
mod stacks;

#[cfg(test)]
mod tests;

use residue_ebpf::abi::counters::CounterKind;

use crate::capture::Ended;
pub use crate::capture::{Figures, MappingOwner, Note};
pub use frames::{Frame, FrameId};
pub use merge::Languages;
pub use origin::Origin;
pub use requests::{LeftProfile, Requests, Walk};

/// A recording as reports show it.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The recorded processes, the first named first.
    pub targets: Vec<Target>,
    /// When it was recorded.
    pub span: Span,
    /// Every counter, those at zero included.
    pub counters: Vec<CounterValue>,
    /// Remarks made while recording.
    pub notes: Vec<Note>,
    /// Each distinct frame once; stacks refer to them.
    pub frames: Vec<Frame>,
    /// What each stack allocated, most outstanding bytes first.
    pub stacks: Vec<StackProfile>,
    /// What each stack mapped, most outstanding bytes first.
    pub mappings: Vec<MappingProfile>,
    /// Python objects by stack, estimated from samples. They lie in pools, and so in mappings.
    pub python_objects: Vec<StackProfile>,
    /// Pools of Python's allocator, by the stack of the allocation that needed the pool. They lie in
    /// mappings.
    pub python_pools: Vec<StackProfile>,
    /// How far apart samples of Python objects are, bytes; none if none were taken.
    pub python_interval: Option<u64>,
    /// Requests, and what they left behind; none if no windows were recorded.
    pub requests: Option<Requests>,
    /// Whether no allocation was followed (`--rss-only`): what is empty here is then not known to be so.
    pub rss_only: bool,
}

/// Whose blocks a report shows. They overlap, so no report adds them up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// Blocks of the allocator: each counted
    #[default]
    Blocks,
    /// Python objects of up to 512 bytes: estimated from samples (record --python-objects)
    PythonObjects,
    /// Pools of Python's own allocator: by the allocation that needed the pool
    PythonPools,
}

/// A recorded process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Its number in the recording.
    pub slot: u16,
    /// Thread group id.
    pub pid: u32,
    /// The short name.
    pub comm: String,
    /// The executable, as the target sees it.
    pub exe: String,
    /// The command line.
    pub cmdline: String,
    /// Why it ended, if it did while it was recorded.
    pub end_reason: Option<String>,
}

impl Target {
    fn was_recorded(&self) -> bool {
        let reason = self.end_reason.as_deref();
        !reason.is_some_and(|it| it.starts_with(Ended::NOT_RECORDED))
    }
}

/// When a recording was made; nanoseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub start_ns: u64,
    /// The moment whose figures these are.
    pub end_ns: u64,
    /// Whether the recorder was cut off: what came after `end_ns` is missing.
    pub cut_off: bool,
}

impl Span {
    /// Nanoseconds from start to end.
    #[must_use]
    pub const fn duration_ns(self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// A counter of things lost or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterValue {
    /// Its stable name.
    pub name: String,
    /// What it counts, for a person.
    pub meaning: String,
    /// Whether a value above zero makes the report incomplete.
    pub kind: CounterKind,
    /// How often.
    pub value: u64,
}

/// What one symbolized stack of one process allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackProfile {
    /// Index into [`Profile::targets`]; none when the stack, and so its process, is not known.
    pub target: Option<usize>,
    /// Leaf first.
    pub frames: Vec<FrameId>,
    /// How much.
    pub figures: Figures,
    /// How much of that was apportioned to the stack because the stacks of these allocations were not
    /// walked.
    pub estimated: Figures,
    /// Whether these are only the first frames of stacks none of which was walked.
    pub shallow: bool,
    /// Bytes that were allocated but not tracked.
    pub lost_bytes: u64,
    /// Allocations that were not tracked.
    pub lost_objects: u64,
}

/// What one symbolized stack of one process mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingProfile {
    /// Index into [`Profile::targets`]; none when the stack, and so its process, is not known.
    pub target: Option<usize>,
    /// Leaf first.
    pub frames: Vec<FrameId>,
    /// On whose behalf.
    pub owner: MappingOwner,
    /// Whether these are arenas of Python's allocator, which hold small objects: mapped by the
    /// interpreter itself, in pieces of an arena's size.
    pub python_arenas: bool,
    /// How much; a block is a mapped range.
    pub figures: Figures,
}

impl Profile {
    /// The processes of which anything was counted. One that could not be probed is none of them.
    pub fn recorded(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter(|it| it.was_recorded())
    }

    /// The frame that a stack refers to.
    ///
    /// # Panics
    ///
    /// When `id` is another profile's.
    #[must_use]
    pub fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[id.index()]
    }

    /// Whose code a frame is.
    #[must_use]
    pub fn origin(&self, id: FrameId) -> Origin {
        origin::of(self.frame(id), &self.targets)
    }

    /// All blocks together.
    #[must_use]
    pub fn total(&self) -> Figures {
        self.total_of(Tier::Blocks)
    }

    /// All stacks of a tier together.
    #[must_use]
    pub fn total_of(&self, tier: Tier) -> Figures {
        sum(self.tier(tier).iter().map(|stack| stack.figures))
    }

    /// The stacks of a tier, most outstanding bytes first.
    #[must_use]
    pub fn tier(&self, tier: Tier) -> &[StackProfile] {
        match tier {
            Tier::Blocks => &self.stacks,
            Tier::PythonObjects => &self.python_objects,
            Tier::PythonPools => &self.python_pools,
        }
    }

    /// What of all stacks together has its own full stack.
    #[must_use]
    pub fn walked(&self) -> Figures {
        let walked = self.stacks.iter().filter(|stack| !stack.shallow);
        sum(walked.map(|stack| stack.figures.minus(stack.estimated)))
    }

    /// All arenas of Python's allocator together.
    #[must_use]
    pub fn python_arenas(&self) -> Figures {
        let arenas = self.mappings.iter().filter(|mapping| mapping.python_arenas);
        sum(arenas.map(|it| it.figures))
    }

    /// All mappings of one owner together.
    #[must_use]
    pub fn mapped(&self, owner: MappingOwner) -> Figures {
        sum(self
            .mappings
            .iter()
            .filter(|mapping| mapping.owner == owner)
            .map(|it| it.figures))
    }

    /// All mappings together that are not there to hold an allocator's blocks.
    #[must_use]
    pub fn mapped_beside(&self) -> Figures {
        let mappings = self.mappings.iter();
        let beside = mappings.filter(|it| it.owner != MappingOwner::Allocator);
        sum(beside.map(|it| it.figures))
    }

    /// What makes this profile incomplete: the counters of lost things that are above zero.
    pub fn lost(&self) -> impl Iterator<Item = &CounterValue> {
        self.counters
            .iter()
            .filter(|it| it.kind == CounterKind::Lost && it.value > 0)
    }

    /// The frame that a person wants to see first, as an index into `frames`: the innermost one of the
    /// application; where there is none, of what is nearest to it.
    #[must_use]
    pub fn culprit(&self, frames: &[FrameId]) -> usize {
        culprit::find(frames.iter().map(|id| self.frame(*id)))
    }

    /// The library's frame by which the application's at `culprit` came to the memory, as an index into
    /// `frames`; none if that is no application's frame, or called no library.
    #[must_use]
    pub fn library(&self, frames: &[FrameId], culprit: usize) -> Option<usize> {
        culprit::library(frames.iter().map(|id| self.frame(*id)), culprit)
    }
}

fn sum(figures: impl Iterator<Item = Figures>) -> Figures {
    figures.fold(Figures::default(), |mut total, figures| {
        total.add(figures);
        total
    })
}
