//! The parts of a recording, in the terms of the recorder.

use std::time::{SystemTime, UNIX_EPOCH};

use residue_ebpf::abi::counters::Counter;
use residue_ebpf::abi::event::WalkEnd;
use residue_ebpf::abi::heap::{StackKind, StackTotals};

use crate::heap::{Figures, MappingOwner};
use crate::ids::{ProcessNumber, StackId};
use crate::requests::record::{LeftBehind, MemoryAt, ProcessUnbound, Survived, WindowRecord};
use crate::symbolize::Symbol;

/// A moment as captures store it: nanoseconds since 1970 UTC. Earlier moments become zero.
#[must_use]
pub fn unix_ns(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// The option that says how many bytes apart samples of Python objects are; missing where residue
/// took none.
pub const PYTHON_OBJECTS_OPTION: &str = "python-objects";

/// What the recorder knows before the first interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The version of residue that records.
    pub version: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The command line of the recorder.
    pub command: String,
    /// When recording began, nanoseconds since 1970 UTC.
    pub started_ns: u64,
    /// Settings that shaped the recording, such as `("max-live", "1000000")`.
    pub options: Vec<(String, String)>,
}

/// A recorded process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// The process's number in this recording.
    pub number: ProcessNumber,
    /// Thread group id, in the recorder's PID namespace.
    pub pid: u32,
    /// The short name, from `/proc/PID/comm`.
    pub comm: String,
    /// The executable, as the target sees it.
    pub exe: String,
    /// The command line, separated by spaces.
    pub cmdline: String,
    /// When the recording of the process began, nanoseconds since 1970 UTC.
    pub started_ns: u64,
}

/// An ELF file in which frames lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// The module's number in this recording.
    pub id: u32,
    /// The module's path as the target sees it.
    pub path: String,
    /// The module's GNU build id in hexadecimal, if it has one.
    pub build_id: Option<String>,
    /// Whether the module holds a language's interpreter, whose frames stand for those of the
    /// language.
    pub interpreter: bool,
}

/// What kind of code a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameKind {
    /// Machine code.
    #[default]
    Native,
    /// Python's bytecode.
    Python,
}

impl FrameKind {
    /// The name in captures: stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Python => "python",
        }
    }

    /// The kind with this name, if there is one.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Native, Self::Python]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// A place in code, with its names once they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The frame's number in this recording.
    pub id: u32,
    /// What kind of code the frame is.
    pub kind: FrameKind,
    /// The module that holds the code. `None` for code in no file, such as a JIT's, and for
    /// Python's.
    pub module: Option<u32>,
    /// File offset in the module, or the AVMA when there is no module. Of a Python frame, the
    /// instruction in code units of two bytes.
    pub offset: u64,
    /// Functions and lines, innermost inlined function first. Empty when nothing is known; writing
    /// the frame again later replaces them.
    pub symbols: Vec<Symbol>,
}

/// A stack seen for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The stack's number in this recording, as in the kernel's totals.
    pub id: StackId,
    /// The process that the stack is from.
    pub process: ProcessNumber,
    /// Frame ids, leaf first.
    pub frames: Vec<u32>,
    /// How many frames are missing before the last
    /// [`ROOT_FRAMES`](residue_ebpf::abi::ROOT_FRAMES) ones.
    pub left_out: u32,
    /// Why the walk stopped.
    pub end: WalkEnd,
    /// What the stack's totals count.
    pub kind: StackKind,
    /// The shallow context that the stack belongs to, which is a stack too. `None` if the stack has
    /// none.
    pub context: Option<StackId>,
}

/// What one stack has mapped. A block is one mapped range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingTotals {
    /// The stack that mapped the ranges.
    pub stack: StackId,
    /// On whose behalf the stack mapped them.
    pub owner: MappingOwner,
    /// How much, in bytes and ranges.
    pub figures: Figures,
}

/// A remark on the recording, such as that a target was killed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// When the remark was made, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// One sentence for a person.
    pub text: String,
}

/// What is new since the last interval, and the figures as they are now.
///
/// The writer leaves out figures that did not change: hand it all of them.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    /// When the figures were read, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Modules seen for the first time.
    pub modules: Vec<Module>,
    /// Frames seen for the first time, or whose symbols became known.
    pub frames: Vec<Frame>,
    /// Stacks seen for the first time.
    pub stacks: Vec<Stack>,
    /// Totals since attach, by stack id.
    pub totals: Vec<(StackId, StackTotals)>,
    /// Mapped ranges since attach, by stack and owner.
    pub mappings: Vec<MappingTotals>,
    /// Counters since attach.
    pub counters: Vec<(Counter, u64)>,
    /// Windows that are over.
    pub windows: Vec<WindowRecord>,
    /// Windows whose grace is over, and what survived of each.
    pub survivors: Vec<Survived>,
    /// What windows left behind, by stack. The writer adds it to what it wrote before.
    pub left_behind: Vec<LeftBehind>,
    /// Memory of no single window, by process, as it is now.
    pub unbound: Vec<ProcessUnbound>,
    /// Memory as it was between intervals, whenever it changed.
    pub memory: Vec<MemoryAt>,
}
