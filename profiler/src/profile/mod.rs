//! The one symbolized model that every report reads.
//!
//! A [`Profile`] is the end state of a recording: which processes the recorder followed, for how
//! long, what the recorder lost, and the figures of each distinct symbolized stack. Building a
//! profile is pure: the builder never symbolizes and opens no files. All text in a profile is
//! printable, no matter who chose the text. Stacks of one process whose frames read the same are
//! one row, although their addresses differ.

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

/// A recording in the form that reports read.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The recorded processes. The first is the one that the user named first.
    pub targets: Vec<Target>,
    /// When the recorder ran.
    pub span: Span,
    /// Every counter, including the ones at zero.
    pub counters: Vec<CounterValue>,
    /// Remarks that the recorder made.
    pub notes: Vec<Note>,
    /// Each distinct frame once. Stacks refer to frames by [`FrameId`].
    pub frames: Vec<Frame>,
    /// What each stack allocated, with the most outstanding bytes first.
    pub stacks: Vec<StackProfile>,
    /// What each stack mapped, with the most outstanding bytes first.
    pub mappings: Vec<MappingProfile>,
    /// Python objects by stack, estimated from samples. The objects lie in pools, and the pools in
    /// mappings.
    pub python_objects: Vec<StackProfile>,
    /// Pools of Python's allocator, by the stack of the allocation that needed the pool. Pools lie
    /// in mappings.
    pub python_pools: Vec<StackProfile>,
    /// The distance between samples of Python objects in bytes. None if the recorder took no
    /// samples.
    pub python_interval: Option<u64>,
    /// Requests and what they left behind. None if the recorder saw no windows.
    pub requests: Option<Requests>,
    /// Whether the recorder followed no allocation (`--rss-only`). An empty list then does not mean
    /// that the process allocated nothing.
    pub rss_only: bool,
}

/// Which blocks a report shows. Tiers overlap, so no report adds them up.
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
    /// Thread group id.
    pub pid: u32,
    /// The short name of the process.
    pub comm: String,
    /// The path of the executable, as the target sees it.
    pub exe: String,
    /// The command line.
    pub cmdline: String,
    /// Why the process ended, if the process ended during the recording.
    pub end_reason: Option<String>,
}

impl Target {
    fn was_recorded(&self) -> bool {
        let reason = self.end_reason.as_deref();
        !reason.is_some_and(|reason| reason.starts_with(Ended::NOT_RECORDED))
    }
}

/// The time that a recording covers, in nanoseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// When the recording began.
    pub start_ns: u64,
    /// The moment that the figures describe.
    pub end_ns: u64,
    /// Whether something cut the recorder off. Everything after `end_ns` is then missing.
    pub cut_off: bool,
}

impl Span {
    /// The length of the recording in nanoseconds.
    #[must_use]
    pub const fn duration_ns(self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// A counter of things that the recorder lost, or that a reader should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterValue {
    /// The stable name of the counter.
    pub name: String,
    /// What the counter counts, in words for a person.
    pub meaning: String,
    /// Whether a value above zero makes the report incomplete.
    pub kind: CounterKind,
    /// How often the counted thing happened.
    pub value: u64,
}

/// What one symbolized stack of one process allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackProfile {
    /// Index into [`Profile::targets`]. None when the stack is unknown, since then the process is
    /// unknown too.
    pub target: Option<usize>,
    /// The frames, leaf first.
    pub frames: Vec<FrameId>,
    /// How much the stack allocated.
    pub figures: Figures,
    /// The part of `figures` that is apportioned to this stack, because nobody walked the stacks of
    /// those allocations.
    pub estimated: Figures,
    /// Whether `frames` holds only the first frames of several stacks, all of them unwalked.
    pub shallow: bool,
    /// Bytes that the process allocated and the recorder did not track.
    pub lost_bytes: u64,
    /// Allocations that the recorder did not track.
    pub lost_objects: u64,
}

/// What one symbolized stack of one process mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingProfile {
    /// Index into [`Profile::targets`]. None when the stack is unknown, since then the process is
    /// unknown too.
    pub target: Option<usize>,
    /// The frames, leaf first.
    pub frames: Vec<FrameId>,
    /// For whom the process mapped the memory.
    pub owner: MappingOwner,
    /// Whether these mappings are arenas of Python's allocator, which hold small objects. The
    /// interpreter itself maps arenas, in pieces of the size of an arena.
    pub python_arenas: bool,
    /// How much the stack mapped. A block is a mapped range.
    pub figures: Figures,
}

impl Profile {
    /// Lists the processes that the recorder could probe.
    pub fn recorded(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter(|target| target.was_recorded())
    }

    /// Finds the frame that a stack refers to.
    ///
    /// # Panics
    ///
    /// Panics when `id` belongs to another profile.
    #[must_use]
    pub fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[id.index()]
    }

    /// Tells whose code a frame is.
    #[must_use]
    pub fn origin(&self, id: FrameId) -> Origin {
        origin::of(self.frame(id), &self.targets)
    }

    /// Adds up all blocks.
    #[must_use]
    pub fn total(&self) -> Figures {
        self.total_of(Tier::Blocks)
    }

    /// Adds up all stacks of a tier.
    #[must_use]
    pub fn total_of(&self, tier: Tier) -> Figures {
        sum(self.tier(tier).iter().map(|stack| stack.figures))
    }

    /// The stacks of a tier, with the most outstanding bytes first.
    #[must_use]
    pub fn tier(&self, tier: Tier) -> &[StackProfile] {
        match tier {
            Tier::Blocks => &self.stacks,
            Tier::PythonObjects => &self.python_objects,
            Tier::PythonPools => &self.python_pools,
        }
    }

    /// Adds up the blocks whose full stack the recorder walked.
    #[must_use]
    pub fn walked(&self) -> Figures {
        let walked = self.stacks.iter().filter(|stack| !stack.shallow);
        sum(walked.map(|stack| stack.figures.minus(stack.estimated)))
    }

    /// Adds up all arenas of Python's allocator.
    #[must_use]
    pub fn python_arenas(&self) -> Figures {
        let arenas = self.mappings.iter().filter(|mapping| mapping.python_arenas);
        sum(arenas.map(|mapping| mapping.figures))
    }

    /// Adds up all mappings of one owner.
    #[must_use]
    pub fn mapped(&self, owner: MappingOwner) -> Figures {
        sum(self
            .mappings
            .iter()
            .filter(|mapping| mapping.owner == owner)
            .map(|mapping| mapping.figures))
    }

    /// Adds up all mappings, except the ones that hold an allocator's blocks.
    #[must_use]
    pub fn mapped_beside(&self) -> Figures {
        let mappings = self.mappings.iter();
        let beside = mappings.filter(|mapping| mapping.owner != MappingOwner::Allocator);
        sum(beside.map(|mapping| mapping.figures))
    }

    /// Finds what makes this profile incomplete: the counters of lost things that are above zero.
    pub fn lost(&self) -> impl Iterator<Item = &CounterValue> {
        self.counters
            .iter()
            .filter(|counter| counter.kind == CounterKind::Lost && counter.value > 0)
    }

    /// Finds the frame that a person wants to see first, as an index into `frames`: the innermost
    /// frame of the application. A stack without such a frame yields the frame that is nearest to
    /// the application.
    #[must_use]
    pub fn culprit(&self, frames: &[FrameId]) -> usize {
        culprit::find(frames.iter().map(|id| self.frame(*id)))
    }

    /// Finds the frame of the library through which the application's frame at `culprit` allocated,
    /// as an index into `frames`. None if the frame at `culprit` is not the application's, or calls
    /// no library.
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
