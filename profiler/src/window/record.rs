//! What is known of one window when it is over.

use std::time::Duration;

use serde::Serialize;

use super::route::Route;

/// A finished window. Complete when made: what survived of it is known later, and is counted by itself
/// ([`survivors`](super::survivors)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRecord {
    /// The window's number, unique in the recording.
    pub window: u64,
    /// The process slot: the process's number in this recording.
    pub process: u16,
    /// Thread group id, in the recorder's PID namespace.
    pub pid: u32,
    /// The thread that opened the window, in the recorder's PID namespace.
    pub tid: u32,
    /// When the first byte of the head was read, nanoseconds since 1970 UTC.
    pub opened_ns: u64,
    /// When the worker was done with it, nanoseconds since 1970 UTC: after the response, since what it
    /// cleans up belongs to the request.
    pub closed_ns: u64,
    /// From the first byte of the head to the last byte of the response, nanoseconds; `None` if no
    /// response was seen.
    pub duration_ns: Option<u64>,
    /// Method and path template.
    pub route: Route,
    /// Of the response.
    pub status: Option<u16>,
    /// What the client or the server calls the request.
    pub request_id: Option<String>,
    /// `None` if the kernel could not tell.
    pub rss: Option<RssPair>,
    /// Everything allocated inside the window. Of [`Binding::Candidates`]: what may have been.
    pub allocated: Amount,
    /// What of it was outstanding when the window closed.
    pub retained: Amount,
    /// How sure it is that these allocations are the window's.
    pub binding: Binding,
    /// Why it is over.
    pub end: WindowEnd,
}

impl WindowRecord {
    /// Growth of RSS between open and close, bytes. It is the process's: of windows that overlap, each
    /// has what the others did.
    #[must_use]
    pub fn delta(&self) -> Option<i64> {
        self.rss.map(RssPair::delta)
    }
}

/// The resident set of the process, as the kernel counts it, at two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RssPair {
    /// When the window opened, bytes.
    pub open: u64,
    /// When it closed, bytes.
    pub close: u64,
}

impl RssPair {
    /// Bytes; clamped, should the kernel's numbers be absurd.
    #[must_use]
    pub fn delta(self) -> i64 {
        let grown = i128::from(self.close) - i128::from(self.open);
        i64::try_from(grown).unwrap_or(if grown < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Memory, as the allocator's caller asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Allocations.
    pub objects: u64,
}

impl Amount {
    /// Saturates: a damaged capture may hold anything.
    pub fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.objects = self.objects.saturating_add(other.objects);
    }

    /// What is left without `part`; nothing, if that is not a part of it.
    #[must_use]
    pub const fn minus(self, part: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(part.bytes),
            objects: self.objects.saturating_sub(part.objects),
        }
    }
}

/// When it was looked at what windows left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// As they closed.
    Retained,
    /// When their grace was over.
    Survivors,
}

impl Stage {
    /// `retained` or `survivors`: part of the capture's vocabulary.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retained => "retained",
            Self::Survivors => "survivors",
        }
    }

    /// The stage that is spelled so, if there is one.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Retained, Self::Survivors];
        all.into_iter().find(|it| it.name() == name)
    }
}

/// What windows that are alike left behind from one stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// The process slot: the process's number in this recording.
    pub process: u16,
    /// Method and path template.
    pub route: Route,
    /// Of the response.
    pub status: Option<u16>,
    /// When it was looked at.
    pub stage: Stage,
    /// The stack that allocated it: its number in this recording.
    pub stack: u32,
    /// How much.
    pub amount: Amount,
}

/// Allocations that are no single window's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unbound {
    /// Everything that was allocated.
    pub allocated: Amount,
    /// What of it is outstanding.
    pub outstanding: Amount,
}

impl Unbound {
    /// Saturates: a damaged capture may hold anything.
    pub fn add(&mut self, other: Self) {
        self.allocated.add(other.allocated);
        self.outstanding.add(other.outstanding);
    }
}

/// What one process has allocated that is no single window's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUnbound {
    /// The process slot: the process's number in this recording.
    pub process: u16,
    /// Of no window.
    pub background: Unbound,
    /// Of one of several windows.
    pub ambiguous: Unbound,
}

/// How much memory a process has, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryAt {
    /// The process slot.
    pub process: u16,
    /// Nanoseconds since 1970 UTC. All processes are looked at at the same time.
    pub at_ns: u64,
    /// Outstanding in blocks that are not bound to a single window, and in those of windows that are open, bytes; none
    /// where allocations are not followed.
    pub unbound_bytes: Option<u64>,
    /// Resident set, bytes; none where the kernel does not say.
    pub resident_bytes: Option<u64>,
}

impl MemoryAt {
    /// How often memory is looked at: what requests leave behind is told by how they vary from one look to the
    /// next. Looks that are as the ones around them are not stored.
    pub const EVERY: Duration = Duration::from_millis(100);
}

/// How an allocation was found to belong to a window; from the surest to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// The thread or task that worked on this request and on no other.
    Exact,
    /// A task or thread that was started by one which was bound exactly.
    Lineage,
    /// Some of it was allocated by threads of which nobody knows for whom they work, while no other window of the
    /// process was under way.
    Single,
    /// So many windows were open that could have been meant. If it is one, it may be the background that
    /// was meant.
    Candidates(u8),
    /// Nothing is known.
    None,
}

impl Binding {
    /// Whether the amounts are this window's, so that they may be added up.
    #[must_use]
    pub const fn is_bound(self) -> bool {
        matches!(self, Self::Exact | Self::Lineage | Self::Single)
    }

    /// How many windows could have been meant.
    #[must_use]
    pub const fn candidates(self) -> Option<u8> {
        match self {
            Self::Candidates(count) => Some(count),
            _ => None,
        }
    }

    /// `exact`, `lineage`, `single`, `candidates` or `none`: part of the capture's and the JSON's vocabulary.
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

    /// The binding that is spelled so, with so many candidates if it has any.
    pub(crate) fn from_name(name: &str, candidates: Option<u8>) -> Option<Self> {
        let several = candidates.map(Self::Candidates);
        let all = [
            Some(Self::Exact),
            Some(Self::Lineage),
            Some(Self::Single),
            several,
            Some(Self::None),
        ];
        all.into_iter().flatten().find(|it| it.name() == name)
    }
}

/// How a window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowEnd {
    /// The response was sent, and the worker turned to something else.
    Done,
    /// The server closed the connection before the response was whole.
    CutOff,
    /// The client was gone.
    Reset,
    /// The recording ended first, or what saw the window's end was taken out. What is retained may be freed yet.
    StillOpen,
}

impl WindowEnd {
    /// `done`, `cut-off`, `reset` or `still-open`: part of the capture's and the JSON's vocabulary.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::CutOff => "cut-off",
            Self::Reset => "reset",
            Self::StillOpen => "still-open",
        }
    }

    /// The end that is spelled so, if there is one.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Done, Self::CutOff, Self::Reset, Self::StillOpen];
        all.into_iter().find(|it| it.name() == name)
    }
}
