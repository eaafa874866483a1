//! Reads a capture as plain data.

use std::path::Path;

use residue_ebpf::abi::heap::StackTotals;

use crate::capture::image::Image;
use crate::capture::tables::Tables;
use crate::capture::{
    CaptureError, Frame, MappingTotals, Meta, Module, Note, Process, SCHEMA_VERSION, Stack, header,
    load, schema, snapshot,
};
use crate::ids::StackId;
use crate::requests::record::{Amount, LeftBehind, MemoryAt, ProcessUnbound, WindowRecord};

/// A whole recording, with all figures as they were at its end.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// What was known when the recording began.
    pub meta: Meta,
    /// When the recording ended, nanoseconds since 1970 UTC. `None` when the recorder was cut off, or is
    /// still at work.
    pub ended_ns: Option<u64>,
    /// When the last interval was written, nanoseconds since 1970 UTC.
    pub last_ns: u64,
    /// The processes, in the order of their numbers, each with its end if it ended.
    pub processes: Vec<(Process, Option<Ended>)>,
    /// Every module.
    pub modules: Vec<Module>,
    /// Every frame, by ascending id.
    pub frames: Vec<Frame>,
    /// Every stack whose frames arrived, by ascending id.
    pub stacks: Vec<Stack>,
    /// Totals by stack id. A stack here may be missing from `stacks`.
    pub totals: Vec<(StackId, StackTotals)>,
    /// Mapped ranges by stack and owner.
    pub mappings: Vec<MappingTotals>,
    /// Counters by name, without those that were always zero.
    pub counters: Vec<(String, u64)>,
    /// Remarks in the order of their making.
    pub notes: Vec<Note>,
    /// When each interval ended, nanoseconds since 1970 UTC.
    pub snapshots: Vec<u64>,
    /// Requests, and what they left behind.
    pub windows: Windows,
}

/// Request windows; all lists are empty where none were recorded.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    /// The windows that are over, in the order of their numbers. Each has what survived of it if its
    /// grace was over.
    pub records: Vec<(WindowRecord, Option<Amount>)>,
    /// What windows left behind, by stack. This may include windows that are not in `records`.
    pub left_behind: Vec<LeftBehind>,
    /// Memory of no single window, by process, whenever it changed, in the order of time.
    pub unbound: Vec<UnboundAt>,
    /// How much memory each process had, several times an interval, in the order of time.
    pub memory: Vec<MemoryAt>,
}

/// Memory of no single window at the end of an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnboundAt {
    /// Nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// The process, and how much memory.
    pub unbound: ProcessUnbound,
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// When, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Why the process ended, for a person.
    pub reason: String,
}

impl Ended {
    /// The beginning of the reason if Residue never counted anything of the process.
    pub const NOT_RECORDED: &str = "not recorded: ";
}

/// Reads the capture at `path`, and writes nothing anywhere.
///
/// If a recorder is writing an interval, this waits for it; while this takes the bytes, the recorder
/// waits.
///
/// # Errors
///
/// Each kind of unfit file has its own [`CaptureError`].
pub fn read(path: &Path) -> Result<Capture, CaptureError> {
    from_bytes(path, snapshot::take(path)?)
}

/// Reads a capture from its bytes. `path` is for errors.
pub(super) fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Capture, CaptureError> {
    header::check(path, &bytes)?;
    let image = Image::open(path, bytes)?;
    let version = check_version(path, &image)?;
    schema::check(path, &image, version)?;
    load::load(&Tables::of(&image), version).map_err(|error| CaptureError::reading(path, error))
}

fn check_version(path: &Path, image: &Image) -> Result<u32, CaptureError> {
    let found: i64 = image
        .db()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| CaptureError::reading(path, error))?;
    // SQLite's number is signed; no residue writes a negative one, and `schema::check` says so.
    let found = u32::try_from(found).unwrap_or(0);
    if found > SCHEMA_VERSION {
        return Err(CaptureError::NewerSchema {
            path: path.to_owned(),
            found,
        });
    }
    Ok(found)
}
