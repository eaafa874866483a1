//! What a person should know of a recording beside its figures: one value for each kind of remark, with a code that
//! does not change and the data of the remark. Nothing between the recorder and whoever reads a remark handles text.

mod cost;
#[cfg(test)]
mod tests;

use std::{
    fmt::{self, Display, Formatter},
    path::PathBuf,
    time::Duration,
};

pub use cost::{Cost, Spent};

use crate::private_file::STAYS_ROOTS;

/// How many processes a remark names at most. A remark says how many more there are.
const NAMED: usize = 10;

/// A request to a small Django view makes so many Python objects.
const EXAMPLE_OBJECTS: u32 = 5000;

/// A process, as remarks name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The process id.
    pub pid: i32,
    /// The short name, from `/proc/PID/comm`.
    pub comm: String,
}

impl Display for Named {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { pid, comm } = self;
        write!(f, "{pid} ({comm})")
    }
}

/// What a recorded process reads requests by, although residue sees none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// HTTP/2.
    Http2,
    /// TLS by a library whose functions residue does not probe.
    Tls,
    /// An io_uring, which makes no system calls.
    Ring,
}

/// Why the objects of a Python are not sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSampled {
    /// Residue did not find the functions of the allocator.
    AllocatorUnknown,
    /// The allocator is malloc.
    UsesMalloc,
    /// The code of the interpreter cannot be read.
    CodeUnreadable,
    /// The compiler has copied the allocator into so many places of the interpreter.
    Inlined(usize),
}

/// When residue looked for processes that recorded ones have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All probes were in.
    AtTheStart,
    /// An interval was written.
    Meanwhile,
    /// Nothing counted any more.
    AtTheEnd,
}

/// What became of the probes that a library needs which a process has loaded while it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Late {
    /// Where the library lies cannot be read.
    Unread,
    /// So many functions are probed.
    Probed(usize),
    /// The kernel refused, for this reason.
    Refused(String),
}

/// A remark on a recording. The text of each is what `Display` says.
#[derive(Clone, Debug, PartialEq)]
pub enum Remark {
    /// A process that was asked for cannot be recorded.
    NotRecorded {
        /// The process.
        pid: i32,
        /// Why, and what to do about that.
        reason: String,
    },
    /// The capture should belong to the user who called sudo, and the file system refuses.
    StaysRoots,
    /// Code of a process that residue did not look into, or cannot read.
    NotLookedInto(String),
    /// A function that allocates or reads requests has no probe.
    NotProbed(String),
    /// Code of a process takes stacks by itself, which are cut while return probes are in.
    TakesStacks(String),
    /// The kernel side has no room for the unwind table of a file.
    NoTableRoom(PathBuf),
    /// The symbols of a file cannot be read, or not all of them.
    NoNames(String),
    /// The frames of a Python cannot be walked, or not for certain.
    PythonFrames(String),
    /// Nothing tells when this Python frees a code object.
    PythonCodeUnknown,
    /// Nothing tells which asyncio task works for which request.
    PythonTasksUnknown,
    /// The objects of a Python are not sampled although that was asked for.
    PythonNotSampled {
        /// The process.
        pid: i32,
        /// Why.
        why: NotSampled,
    },
    /// Something stands before the allocator of a Python.
    PythonHooked {
        /// The process.
        pid: i32,
    },
    /// What sampling costs a process for each Python object.
    PythonPrice(Duration),
    /// How many Python objects were allocated while they were sampled.
    PythonObjects(u64),
    /// Requests that residue cannot read.
    Unread {
        /// The process.
        pid: i32,
        /// What the process reads them by.
        by: Unread,
    },
    /// A process loaded a library while it was recorded.
    Library {
        /// The process.
        pid: i32,
        /// What became of the probes.
        probes: Late,
    },
    /// What recording costs the processes.
    Cost(Cost),
    /// Processes that recorded ones have made, and that nobody records.
    Children {
        /// When residue looked.
        when: When,
        /// Whether children were asked for (`--children`).
        asked: bool,
        /// Which they are.
        children: Several<Named>,
    },
    /// A process ended, or replaced its program, before the recording did.
    Ended {
        /// The process.
        process: Named,
        /// How.
        how: String,
    },
    /// Whoever listened to the recording can take nothing more.
    SinkFailed {
        /// What is made there, such as the capture.
        sink: String,
        /// Why no more of it is made.
        reason: String,
    },
    /// What is missing where a sink has failed or was too slow.
    SinkMissed {
        /// What is made there.
        sink: String,
        /// How much is missing, with its unit.
        missing: String,
    },
}

/// Values of which a remark shows only the first few.
#[derive(Clone, Debug, PartialEq)]
pub struct Several<T> {
    first: Vec<T>,
    further: usize,
}

impl<T> Default for Several<T> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            further: 0,
        }
    }
}

impl<T> Several<T> {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Adds a value.
    pub fn push(&mut self, value: T) {
        match self.first.len() < NAMED {
            true => self.first.push(value),
            false => self.further += 1,
        }
    }

    fn list(&self, between: &str, text: impl Fn(&T) -> String) -> String {
        let first: Vec<String> = self.first.iter().map(text).collect();
        first.join(between)
    }
}

impl<T> FromIterator<T> for Several<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut several = Self::default();
        values.into_iter().for_each(|value| several.push(value));
        several
    }
}

impl Remark {
    /// The name of the kind of remark, for programs. The names of kinds never change.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotRecorded { .. } => "not-recorded",
            Self::StaysRoots => "stays-roots",
            Self::NotLookedInto(_) => "not-looked-into",
            Self::NotProbed(_) => "not-probed",
            Self::TakesStacks(_) => "takes-stacks",
            Self::NoTableRoom(_) => "no-table-room",
            Self::NoNames(_) => "no-names",
            Self::PythonFrames(_) => "python-frames",
            Self::PythonCodeUnknown => "python-code-unknown",
            Self::PythonTasksUnknown => "python-tasks-unknown",
            Self::PythonNotSampled { .. } => "python-not-sampled",
            Self::PythonHooked { .. } => "python-hooked",
            Self::PythonPrice(_) => "python-price",
            Self::PythonObjects(_) => "python-objects",
            Self::Unread { .. } => "requests-unread",
            Self::Library { probes, .. } => match probes {
                Late::Unread => "library-unread",
                Late::Probed(_) => "library-probed",
                Late::Refused(_) => "library-refused",
            },
            Self::Cost(cost) => cost.code(),
            Self::Children { .. } => "children",
            Self::Ended { .. } => "ended",
            Self::SinkFailed { .. } => "sink-failed",
            Self::SinkMissed { .. } => "sink-missed",
        }
    }

    /// Whether the remark is of the moment alone: what it says is said again, as a whole, at the end.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Cost(Cost::Slowed { .. }) | Self::PythonObjects(_)
        )
    }
}

impl Display for Remark {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRecorded { pid, reason } => write!(f, "pid {pid} is not recorded: {reason}"),
            Self::StaysRoots => f.write_str(STAYS_ROOTS),
            Self::NotLookedInto(text)
            | Self::NotProbed(text)
            | Self::TakesStacks(text)
            | Self::NoNames(text)
            | Self::PythonFrames(text) => f.write_str(text),
            Self::NoTableRoom(path) => write!(
                f,
                "no room for the unwind table of {}: stacks are cut there; raise --max-unwind-memory",
                path.display()
            ),
            Self::PythonCodeUnknown => f.write_str(
                "what frees Python's code objects was not found: Python frames are not named",
            ),
            Self::PythonTasksUnknown => f.write_str(
                "where its contexts (contextvars) are was not found: what asyncio tasks allocate is not told apart \
                 by request",
            ),
            Self::PythonNotSampled { pid, why } => write_not_sampled(f, *pid, *why),
            Self::PythonHooked { pid } => write!(
                f,
                "Python in pid {pid} has hooks before its allocator (tracemalloc, or PYTHONMALLOC=debug, which adds \
                 some 24 bytes to each object): sampled is what they ask the allocator for"
            ),
            Self::PythonPrice(object) => write!(
                f,
                "every Python object costs about {:.1} us more while it is recorded: a request that makes \
                 {EXAMPLE_OBJECTS} objects takes {:.0} ms longer",
                object.as_secs_f64() * 1e6,
                (*object * EXAMPLE_OBJECTS).as_secs_f64() * 1e3,
            ),
            Self::PythonObjects(objects) => write!(
                f,
                "{objects} Python objects of up to 512 bytes were allocated"
            ),
            Self::Unread { pid, by } => write!(f, "pid {pid} {}", by.text()),
            Self::Library { pid, probes } => write!(f, "pid {pid} loaded a library{probes}"),
            Self::Cost(cost) => cost.fmt(f),
            Self::Children {
                when,
                asked,
                children,
            } => write_children(f, *when, *asked, children),
            Self::Ended { process, how } => {
                write!(f, "pid {process} {how}; the report shows what it held then")
            }
            Self::SinkFailed { sink, reason } => {
                write!(f, "no more is written to {sink}: {reason}")
            }
            Self::SinkMissed { sink, missing } => write!(f, "{missing} are missing in {sink}"),
        }
    }
}

impl Display for Late {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread => f.write_str(
                ", and its mappings could not be read: what the library does is not seen",
            ),
            Self::Probed(functions) => write!(f, ": {functions} more functions are probed"),
            Self::Refused(reason) => write!(
                f,
                " that could not be probed: {reason}. What it does is not seen, or only in part"
            ),
        }
    }
}

impl Unread {
    const fn text(self) -> &'static str {
        match self {
            Self::Http2 => "reads requests of HTTP/2, which have no windows",
            Self::Tls => "reads TLS, and not by OpenSSL or its kin: those requests have no windows",
            Self::Ring => {
                "has an io_uring: requests that it reads through it have no windows, since no syscall shows them"
            }
        }
    }
}

fn write_not_sampled(f: &mut Formatter<'_>, pid: i32, why: NotSampled) -> fmt::Result {
    let why = match why {
        NotSampled::AllocatorUnknown => {
            "its own allocator was not found: no Python objects are sampled"
        }
        NotSampled::UsesMalloc => {
            "takes its objects from malloc (PYTHONMALLOC=malloc): every one of them is among the blocks, and none \
             is sampled"
        }
        NotSampled::CodeUnreadable => "its code cannot be read",
        NotSampled::Inlined(copies) => {
            return write!(
                f,
                "Python in pid {pid} was built with its allocator inlined in {copies} places (profile-guided \
                 optimization): objects cannot be sampled there; start it with PYTHONMALLOC=malloc to have each of \
                 them counted as a block"
            );
        }
    };
    write!(f, "Python in pid {pid}: {why}")
}

fn write_children(
    f: &mut Formatter<'_>,
    when: When,
    asked: bool,
    children: &Several<Named>,
) -> fmt::Result {
    // With --children, those that were there have been recorded or named.
    let what = match (when, asked) {
        (When::AtTheStart, false) => "child processes that are there are",
        (When::AtTheStart | When::Meanwhile, _) => {
            "child processes that were forked after the recording began are"
        }
        (When::AtTheEnd, true) => "child processes that were forked after the recording began were",
        (When::AtTheEnd, false) => "child processes that run on were",
    };
    let or = match asked {
        true => "",
        false => ", or give --children once they exist",
    };
    write!(
        f,
        "{what} not recorded: {}{}; record them by -p PID{or}",
        children.list(", ", Named::to_string),
        more(children.further, " ")
    )
}

fn more(further: usize, between: &str) -> String {
    match further {
        0 => String::new(),
        further => format!("{between}and {further} more"),
    }
}
