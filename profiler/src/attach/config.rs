//! The settings of the kernel side for one recording.

use residue_ebpf::abi::heap::StackPolicy;

use crate::unwind::StoreLimits;

/// How much the kernel side may keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many live allocations, over all targets.
    pub max_live: u32,
    /// How many distinct stacks, over all targets.
    pub max_stacks: u32,
    /// How much kernel memory for the unwind tables of all objects, MiB.
    pub max_unwind_mib: u32,
    /// How many bytes of Python objects lie between two samples on average, at least
    /// [`MAX_PYTHON_OBJECT`](residue_ebpf::abi::heap::MAX_PYTHON_OBJECT).
    pub python_interval: u32,
}

impl Limits {
    /// The limits of a recording whose user gives no others.
    pub const DEFAULT: Self = Self {
        max_live: 1 << 20,
        max_stacks: 65_536,
        max_unwind_mib: 16,
        python_interval: 8192,
    };

    /// Divides the memory for unwind tables between rows and pages. A table has about nine times as many bytes
    /// of rows as of pages.
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
    /// By unwind tables, and by frame pointers in code that has no unwind table but keeps frame pointers.
    #[default]
    Tables,
    /// By frame pointers alone.
    FramePointers,
    /// By unwind tables, with the few steps that a kernel without `bpf_loop` can verify.
    FewSteps,
}

/// Whether the kernel side hands out samples for tests: stacks, each with the memory that it walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Samples {
    /// No samples.
    #[default]
    None,
    /// As many samples as the ring buffer has room for.
    Taken,
}

impl Samples {
    /// The size of the ring buffer for samples, bytes: enough for a few hundred between two polls, or the
    /// smallest that the kernel allows.
    pub(super) const fn ring_bytes(self) -> u32 {
        match self {
            Self::None => 4096,
            Self::Taken => 32 << 20,
        }
    }
}

/// How the kernel side takes stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackConfig {
    /// Which stacks the kernel side walks.
    pub policy: StackPolicy,
    /// How the kernel side walks a stack.
    pub walking: Walking,
    /// Whether the kernel side hands out samples.
    pub samples: Samples,
}

/// What the tracepoints follow besides the processes themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Allocations and mappings.
    pub allocations: bool,
    /// Requests on sockets.
    pub sockets: bool,
}
