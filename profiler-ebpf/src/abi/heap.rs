//! The live set, its keys, and the totals of stacks.

/// How many bits of an address a key keeps. On x86-64 with four-level page tables, user space ends at 2^47
/// (Documentation/arch/x86/x86_64/mm.rst), and the kernel hands out five-level addresses only on request.
pub const ADDRESS_BITS: u32 = 48;

/// The key of a live allocation, which has the process and the address. The process slot stands for the tgid
/// and takes 16 bits instead of 32, so that the whole key fits into 8 bytes. With ten million live
/// allocations every byte counts.
#[must_use]
pub const fn live_key(process: u16, address: u64) -> u64 {
    ((process as u64) << ADDRESS_BITS) | (address & ((1 << ADDRESS_BITS) - 1))
}

/// Set in the process slot of a key of a block of Python's own allocator. Such a block may have the same
/// address as a block of malloc, because a hook may hand on a block of malloc.
const PYTHON_SLOT: u16 = 1 << 15;

/// The key of a block or pool of Python's own allocator in the live set.
#[must_use]
pub const fn python_key(process: u16, address: u64) -> u64 {
    live_key(process | PYTHON_SLOT, address)
}

/// Stands for the key of a slot that is being written.
pub const BUSY_KEY: u64 = u64::MAX;

/// Whether a key belongs to a block of an allocator, and not to an object or a pool of Python's own allocator.
#[must_use]
pub const fn is_block(key: u64) -> bool {
    key != 0 && key != BUSY_KEY && (key >> ADDRESS_BITS) as u16 & PYTHON_SLOT == 0
}

/// The process slot in a [`live_key`] or [`python_key`].
#[must_use]
pub const fn process_of(key: u64) -> u16 {
    (key >> ADDRESS_BITS) as u16 & !PYTHON_SLOT
}

/// The largest request that Python's own allocator serves, bytes (`SMALL_REQUEST_THRESHOLD` in
/// Objects/obmalloc.c). Larger requests go to malloc.
pub const MAX_PYTHON_OBJECT: u64 = 512;

/// How many objects a sampled object of `size` bytes stands for, if samples are `interval` bytes apart:
/// `interval / size` on average. The remainder says for how large a part of all addresses the figure is
/// rounded up. So an object has the same figure when it is freed.
#[must_use]
pub const fn objects_of_sample(interval: u64, size: u64, address: u64) -> u64 {
    // Fibonacci hashing makes neighbours land far apart. The addresses of blocks are multiples of 8.
    let mixed = (address >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let size = if size == 0 { 1 } else { size };
    (interval + ((mixed * size) >> 32)) / size
}

/// A live allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveAllocation {
    /// Requested bytes.
    pub size: u64,
    /// The stack that made the allocation.
    pub stack: u32,
    /// The [window](super::window) in which the allocation was made.
    pub window: u32,
}

/// How many bits the stack id has in a packed allocation.
const STACK_BITS: u32 = 24;
/// The largest stack id.
pub const MAX_STACKS: u32 = (1 << STACK_BITS) - 1;

impl LiveAllocation {
    /// Packs the size and the stack into one word; `None` if the size is half a tebibyte or more.
    #[must_use]
    pub const fn pack(self) -> Option<u64> {
        if self.size >> (u64::BITS - STACK_BITS - 1) != 0 {
            return None;
        }
        Some((self.size << STACK_BITS) | (self.stack & MAX_STACKS) as u64)
    }

    /// Unpacks what [`Self::pack`] has packed, and adds the window.
    #[must_use]
    pub const fn unpack(packed: u64, window: u32) -> Self {
        Self {
            size: packed >> STACK_BITS,
            stack: packed as u32 & MAX_STACKS,
            window,
        }
    }
}

/// How many allocations a bucket of the live set holds.
pub const BUCKET_SLOTS: usize = 6;

/// A bucket of the live set, which is a hash table with open addressing. A bucket fills two cache lines, so
/// one cold access finds or places nearly every allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LiveBucket {
    /// A [`live_key`] for each slot; zero if the slot is free.
    pub keys: [u64; BUCKET_SLOTS],
    /// How many allocations belong here but lie in a bucket behind, because this bucket was full.
    pub spilled: u64,
    /// The allocations, as [`LiveAllocation::pack`] packs them.
    pub values: [u64; BUCKET_SLOTS],
    /// The [`LiveAllocation::window`]s of the allocations.
    pub windows: [u32; BUCKET_SLOTS],
}

/// How many buckets hold `max_live` allocations for sure. The buckets are half full on average then, and an
/// allocation that spills finds room close by.
#[must_use]
pub const fn live_buckets(max_live: u32) -> u32 {
    max_live.div_ceil(BUCKET_SLOTS as u32).saturating_mul(2)
}

/// The allocations of one stack since the recording began, and how many of them were released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StackTotals {
    /// Bytes allocated and tracked.
    pub alloc_bytes: u64,
    /// Allocations tracked.
    pub alloc_objects: u64,
    /// Bytes of tracked allocations that were released since, by any code.
    pub freed_bytes: u64,
    /// Tracked allocations that were released since, by any code.
    pub freed_objects: u64,
    /// Bytes allocated but not tracked, because the live set was full.
    pub lost_bytes: u64,
    /// Allocations not tracked, because the live set was full.
    pub lost_objects: u64,
    /// Not zero once the kernel side has handed the stack's frames to user space.
    pub delivered: u64,
    /// How many of the first allocations of a shallow context had their stack walked. The field fills the
    /// cache line, so that two stacks never share one.
    pub walked: u64,
}

impl StackTotals {
    /// Bytes allocated and tracked, and not released.
    #[must_use]
    pub const fn outstanding_bytes(&self) -> u64 {
        self.alloc_bytes.saturating_sub(self.freed_bytes)
    }

    /// Allocations tracked, and not released.
    #[must_use]
    pub const fn outstanding_objects(&self) -> u64 {
        self.alloc_objects.saturating_sub(self.freed_objects)
    }
}

/// What a stack id stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum StackKind {
    /// The stack of allocations and mappings, walked to its end.
    #[default]
    Full,
    /// A shallow context: the caller of the allocator, and the Python frame that runs. The totals are those
    /// of allocations whose stack was not walked.
    Context,
    /// The stack of Python objects. The totals are estimates from samples.
    PythonObjects,
    /// The stack of allocations of Python objects that needed a new pool. The totals are those of the pools,
    /// whose bytes overlap with mappings.
    PythonPools,
}

impl StackKind {
    /// Every kind, in the order of their discriminants.
    const ALL: [Self; 4] = [
        Self::Full,
        Self::Context,
        Self::PythonObjects,
        Self::PythonPools,
    ];

    /// From its number, if there is such a kind.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        Self::ALL.get(bits as usize).copied()
    }

    /// Whether the totals are those of Python's own allocator. Such totals overlap with mappings, so nobody
    /// may add them to the totals of other kinds.
    #[must_use]
    pub const fn is_python(self) -> bool {
        matches!(self, Self::PythonObjects | Self::PythonPools)
    }

    /// The name in captures: kebab case, stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Context => "context",
            Self::PythonObjects => "python-objects",
            Self::PythonPools => "python-pools",
        }
    }

    /// The kind of this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Which allocations have their stacks walked. The kernel side counts every allocation exactly, whatever the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum StackPolicy {
    /// Allocations that tell something new: large ones, the first ones of each shallow context, a sample of
    /// all others, and all allocations of a context that user space suspects of growing.
    #[default]
    Auto,
    /// All allocations.
    All,
    /// No allocations: they are counted by shallow context alone.
    None,
}

impl StackPolicy {
    /// The name on the command line and in captures: stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

/// How many processes the kernel side tells apart at a time: each has a slot below this number.
pub const MAX_PROCESSES: u32 = 1024;

/// Events of the process count.
pub const PROCESS_OPEN: u32 = 1;
/// Residue is starting the process. The kernel side stops the process (SIGSTOP) at exec and whenever it maps
/// code, so that its allocator is probed before the first call.
pub const PROCESS_LAUNCHING: u32 = 2;
/// Residue is taking out the probes of the process, so their hits do not count any more.
pub const PROCESS_UNPROBED: u32 = 4;

/// A process slot, as the kernel side sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessState {
    /// Thread group id in the initial PID namespace.
    pub tgid: u32,
    /// `PROCESS_…` bits.
    pub flags: u32,
}

/// What the kernel side knows of a probed function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FunctionInfo {
    /// Where the executable mapping begins that holds the function, AVMA.
    pub text_start: u64,
    /// Where that mapping ends, AVMA.
    pub text_end: u64,
    /// Not zero if the function frees or resizes blocks, and the function that allocates such blocks is not probed.
    pub unpaired: u64,
}

const _: () = {
    assert!(size_of::<LiveBucket>() == 128);
    assert!(size_of::<StackTotals>() == 64);
    assert!(size_of::<ProcessState>() == 8);
    assert!(size_of::<FunctionInfo>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_packed_without_loss() {
        for size in [0, 1, 4096, (1 << 39) - 1] {
            for stack in [0, 1, MAX_STACKS] {
                let window = 7;
                let allocation = LiveAllocation {
                    size,
                    stack,
                    window,
                };
                let packed = allocation.pack().expect("below half a tebibyte");
                assert_eq!(LiveAllocation::unpack(packed, window), allocation);
            }
        }
        let huge = LiveAllocation {
            size: 1 << 39,
            stack: 1,
            window: 0,
        };
        assert_eq!(huge.pack(), None);
    }

    #[test]
    fn a_python_key_is_another_key_of_the_same_process() {
        let (block, object) = (
            live_key(7, 0x7f00_1234_5678),
            python_key(7, 0x7f00_1234_5678),
        );
        assert_ne!(block, object);
        assert_eq!((process_of(block), process_of(object)), (7, 7));
    }

    #[test]
    fn a_sample_stands_for_as_many_objects_as_its_interval_holds() {
        let (interval, blocks) = (8192, 100_000);
        for size in [1, 16, 56, 72, 100, 333, 500, MAX_PYTHON_OBJECT] {
            let address = |block: u64| 0x7f00_0000_0000 + block * size.next_multiple_of(16);
            let objects = (0..blocks).map(|it| objects_of_sample(interval, size, address(it)));
            let mean = objects.sum::<u64>() as f64 / blocks as f64;
            let exact = interval as f64 / size as f64;
            assert!(
                (mean / exact - 1.0).abs() < 1e-4,
                "{size}: {mean}, not {exact}"
            );
        }
        assert_eq!(
            objects_of_sample(8192, 0, 0x7f00_0000_0000),
            8192,
            "no division by zero"
        );
    }

    #[test]
    fn the_live_set_is_half_full_at_its_limit() {
        assert_eq!(live_buckets(6), 2);
        assert_eq!(live_buckets(1), 2);
        assert_eq!(live_buckets(10_000_000), 3_333_334);
    }
}
