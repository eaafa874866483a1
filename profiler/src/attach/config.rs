//! What a recording asks of the kernel side.

use residue_ebpf::abi::heap::StackPolicy;

use crate::unwind::StoreLimits;

/// How much the kernel side may keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Live allocations, over all targets.
    pub max_live: u32,
    /// Distinct stacks, over all targets.
    pub max_stacks: u32,
    /// Unwind tables of all objects: room in the kernel, MiB.
    pub max_unwind_mib: u32,
    /// Mean distance of samples of Python objects, bytes; at least
    /// [`MAX_PYTHON_OBJECT`](residue_ebpf::abi::heap::MAX_PYTHON_OBJECT).
    pub python_interval: u32,
}

impl Limits {
    /// Those of a recording that asks for no others.
    pub const DEFAULT: Self = Self {
        max_live: 1 << 20,
        max_stacks: 65_536,
        max_unwind_mib: 16,
        python_interval: 8192,
    };

    /// How much of the unwind tables' room is for rows and how much for pages, whose entries go with
    /// about nine times their size in rows.
    #[must_use]
    pub const fn unwind_store(&self) -> StoreLimits {
        let chunks = self.max_unwind_mib * 256;
        StoreLimits {
            row_chunks: chunks - chunks / 8,
            page_chunks: chunks / 8,
        }
    }
}

/// How the kernel side walks stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Walking {
    /// By unwind tables, and by frame pointers in code that has none but keeps those.
    #[default]
    Tables,
    /// By frame pointers alone.
    FramePointers,
    /// By unwind tables, with the few steps that a kernel without `bpf_loop` can verify.
    FewSteps,
}

/// Whether the kernel side hands out stacks together with what it walked them from, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Samples {
    /// No stack.
    #[default]
    None,
    /// Some stacks: as many as get through.
    Taken,
}

impl Samples {
    /// A few hundred samples between two polls, or as little as a ring buffer can hold.
    pub(super) const fn ring_bytes(self) -> u32 {
        match self {
            Self::None => 4096,
            Self::Taken => 32 << 20,
        }
    }
}

/// What the kernel side does about stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackConfig {
    /// Which it walks.
    pub policy: StackPolicy,
    /// How it walks them.
    pub walking: Walking,
    /// Whether it hands out samples.
    pub samples: Samples,
}

/// What is followed besides the processes themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Allocations and mappings.
    pub allocations: bool,
    /// Requests on sockets.
    pub sockets: bool,
}
