//! What the recorder knows about a window when the window is over.

use std::time::Duration;

use residue_ebpf::abi::window::Amounts;
use serde::Serialize;

use super::route::Route;
use crate::ids::{ProcessNumber, StackId, WindowNumber};

/// A finished window. The record never changes after it is made: what survives of the window is
/// known later, and is counted apart ([`survivors`](super::survivors)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRecord {
    /// The number of the window in this recording.
    pub window: WindowNumber,
    /// The number of the process in this recording.
    pub process: ProcessNumber,
    /// Thread group id, in the recorder's PID namespace.
    pub pid: u32,
    /// The thread that opened the window, in the recorder's PID namespace.
    pub tid: u32,
    /// When the server read the first byte of the head, in nanoseconds since 1970 UTC.
    pub opened_ns: u64,
    /// When the worker was done with the request, in nanoseconds since 1970 UTC. That is after the
    /// response, because what the worker cleans up then belongs to the request.
    pub closed_ns: u64,
    /// Nanoseconds from the first byte of the head to the last byte of the response. `None` if the
    /// recorder saw no response.
    pub duration_ns: Option<u64>,
    /// The method and the path template.
    pub route: Route,
    /// The status of the response.
    pub status: Option<u16>,
    /// The name that the client or the server gives to the request.
    pub request_id: Option<String>,
    /// The resident set of the process. `None` if the kernel could not tell.
    pub rss: Option<RssPair>,
    /// Everything that was allocated in the window. With [`Binding::Candidates`]: everything that
    /// may have been.
    pub allocated: Amount,
    /// The part of `allocated` that was outstanding when the window closed.
    pub retained: Amount,
    /// How sure the recorder is that these allocations belong to the window.
    pub binding: Binding,
    /// Why the window is over.
    pub end: WindowEnd,
}

impl WindowRecord {
    /// The growth of the RSS between open and close in bytes. The RSS is that of the process: if
    /// windows overlap, the growth of each includes what the others did.
    #[must_use]
    pub fn delta(&self) -> Option<i64> {
        self.rss.map(RssPair::delta)
    }
}

/// The resident set of the process at two moments, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RssPair {
    /// Bytes when the window opened.
    pub open: u64,
    /// Bytes when the window closed.
    pub close: u64,
}

impl RssPair {
    /// Returns the growth in bytes. The growth is clamped, in case the kernel's numbers are absurd.
    #[must_use]
    pub fn delta(self) -> i64 {
        let grown = i128::from(self.close) - i128::from(self.open);
        i64::try_from(grown).unwrap_or(if grown < 0 { i64::MIN } else { i64::MAX })
    }
}

/// An amount of memory, as the caller of the allocator asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Allocations.
    pub objects: u64,
}

impl Amount {
    /// Everything that was allocated.
    #[must_use]
    pub const fn allocated(amounts: &Amounts) -> Self {
        Self {
            bytes: amounts.alloc_bytes,
            objects: amounts.alloc_objects,
        }
    }

    /// What was allocated and not released.
    #[must_use]
    pub const fn outstanding(amounts: &Amounts) -> Self {
        Self {
            bytes: amounts.alloc_bytes.saturating_sub(amounts.freed_bytes),
            objects: amounts.alloc_objects.saturating_sub(amounts.freed_objects),
        }
    }

    /// Adds an amount. The sum saturates, because a damaged capture may hold anything.
    pub fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.objects = self.objects.saturating_add(other.objects);
    }

    /// Returns what is left without `part`. The result is nothing if `part` is larger than the
    /// whole.
    #[must_use]
    pub const fn minus(self, part: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(part.bytes),
            objects: self.objects.saturating_sub(part.objects),
        }
    }
}

/// The moment at which the recorder looks at what windows left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// When the window closed.
    Retained,
    /// When the grace of the window was over.
    Survivors,
}

impl Stage {
    /// Returns `retained` or `survivors`, a word of the capture format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retained => "retained",
            Self::Survivors => "survivors",
        }
    }

    /// Finds the stage of this name, if there is one.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Retained, Self::Survivors];
        all.into_iter().find(|stage| stage.name() == name)
    }
}

/// What similar windows left behind from one stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// The number of the process in this recording.
    pub process: ProcessNumber,
    /// The method and the path template.
    pub route: Route,
    /// The status of the response.
    pub status: Option<u16>,
    /// When the recorder looked.
    pub stage: Stage,
    /// The stack that allocated the memory: the number of the stack in this recording.
    pub stack: StackId,
    /// How much the windows left behind.
    pub amount: Amount,
}

/// What survived of one window when its grace was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survived {
    /// The number of the window in this recording.
    pub window: WindowNumber,
    /// The method and the path template.
    pub route: Route,
    /// How much survived.
    pub amount: Amount,
}

/// Allocations that belong to no single window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unbound {
    /// Everything that was allocated.
    pub allocated: Amount,
    /// The part of `allocated` that is outstanding.
    pub outstanding: Amount,
}

impl Unbound {
    /// Adds other allocations. The sum saturates, because a damaged capture may hold anything.
    pub fn add(&mut self, other: Self) {
        self.allocated.add(other.allocated);
        self.outstanding.add(other.outstanding);
    }
}

/// What one process has allocated that belongs to no single window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUnbound {
    /// The number of the process in this recording.
    pub process: ProcessNumber,
    /// Allocations of no window.
    pub background: Unbound,
    /// Allocations of one of several windows.
    pub ambiguous: Unbound,
}

/// How much memory a process has, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryAt {
    /// The number of the process in this recording.
    pub process: ProcessNumber,
    /// When the recorder looked, in nanoseconds since 1970 UTC. It looks at all processes at the
    /// same time.
    pub at_ns: u64,
    /// Outstanding bytes in blocks that are not bound to a single window, and in blocks of windows that are open. None
    /// where the recorder follows no allocations.
    pub unbound_bytes: Option<u64>,
    /// The resident set in bytes. None where the kernel does not tell.
    pub resident_bytes: Option<u64>,
}

impl MemoryAt {
    /// How often the recorder looks at memory. The difference from one look to the next tells what
    /// requests leave behind. The recorder does not store a look that equals the looks around it.
    pub const EVERY: Duration = Duration::from_millis(100);
}

/// How the recorder found that an allocation belongs to a window, from the surest way to the least
/// sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// The thread or task worked on this request and on no other.
    Exact,
    /// A thread or task that was bound exactly started the one that allocated.
    Lineage,
    /// Nobody knows for whom some of the allocating threads work, but no other window of the
    /// process was open at that time.
    Single,
    /// The number of open windows to which the allocation may belong. If the number is one, the
    /// allocation may also belong to the background.
    Candidates(u8),
    /// Nothing is known.
    None,
}

impl Binding {
    /// Whether the amounts belong to this window, so that a reader may add them up.
    #[must_use]
    pub const fn is_bound(self) -> bool {
        matches!(self, Self::Exact | Self::Lineage | Self::Single)
    }

    /// Returns the number of windows to which the allocations may belong.
    #[must_use]
    pub const fn candidates(self) -> Option<u8> {
        match self {
            Self::Candidates(count) => Some(count),
            _ => None,
        }
    }

    /// Returns `exact`, `lineage`, `single`, `candidates` or `none`, a word of the capture format
    /// and of the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Lineage => "lineage",
            Self::Single => "single",
            Self::Candidates(_) => "candidates",
            Self::None => "none",
        }
    }

    /// Finds the binding of this name, with the given number of candidates if it has any.
    pub(crate) fn from_name(name: &str, candidates: Option<u8>) -> Option<Self> {
        let several = candidates.map(Self::Candidates);
        let all = [
            Some(Self::Exact),
            Some(Self::Lineage),
            Some(Self::Single),
            several,
            Some(Self::None),
        ];
        let mut all = all.into_iter().flatten();
        all.find(|binding| binding.name() == name)
    }
}

/// How a window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowEnd {
    /// The worker sent the response and turned to something else.
    Done,
    /// The server closed the connection before the response was whole.
    CutOff,
    /// The client was gone.
    Reset,
    /// The recording ended first, or the recorder took out the probe that sees the window's end. The process may still
    /// free what the window retained.
    StillOpen,
}

impl WindowEnd {
    /// Returns `done`, `cut-off`, `reset` or `still-open`, a word of the capture format and of the
    /// JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::CutOff => "cut-off",
            Self::Reset => "reset",
            Self::StillOpen => "still-open",
        }
    }

    /// Finds the end of this name, if there is one.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Done, Self::CutOff, Self::Reset, Self::StillOpen];
        all.into_iter().find(|end| end.name() == name)
    }
}
