//! Reads a capture as plain data.

use std::fs::File;
use std::path::Path;

use residue_ebpf::abi::heap::StackTotals;
use rusqlite::{Connection, OpenFlags};

use crate::capture::file::{check_header, journal_of};
use crate::capture::{
    CaptureError, Frame, MappingTotals, Meta, Module, Note, Process, SCHEMA_VERSION, Stack, load,
};
use crate::window::record::{Amount, LeftBehind, MemoryAt, ProcessUnbound, WindowRecord};

/// A whole recording, with all figures as they were at its end.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// What was known when it began.
    pub meta: Meta,
    /// When it ended, nanoseconds since 1970 UTC. None when the recorder was cut off, or is still
    /// at work.
    pub ended_ns: Option<u64>,
    /// When the last interval was written, nanoseconds since 1970 UTC.
    pub last_ns: u64,
    /// The processes, in the order of their slots, each with its end if it ended.
    pub processes: Vec<(Process, Option<Ended>)>,
    /// Every module.
    pub modules: Vec<Module>,
    /// Every frame, by ascending id.
    pub frames: Vec<Frame>,
    /// Every stack whose frames arrived, by ascending id.
    pub stacks: Vec<Stack>,
    /// Totals by stack id. A stack here may be missing from `stacks`.
    pub totals: Vec<(u32, StackTotals)>,
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

/// Request windows; all empty where none were recorded.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    /// Those that are over, in the order of their numbers, each with what survived of it if its grace
    /// was over.
    pub records: Vec<(WindowRecord, Option<Amount>)>,
    /// What they left behind, by stack. It may be of more windows than `records` are.
    pub left_behind: Vec<LeftBehind>,
    /// Memory of no single window, by process, whenever it changed, in the order of time.
    pub unbound: Vec<UnboundAt>,
    /// How much memory there was, by process, several times an interval, in the order of time.
    pub memory: Vec<MemoryAt>,
}

/// Memory of no single window at the end of an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnboundAt {
    /// Nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Whose, and how much.
    pub unbound: ProcessUnbound,
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// When, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Why, for a person.
    pub reason: String,
}

/// Reads the capture at `path`.
///
/// # Errors
///
/// Each kind of unfit file has its own [`CaptureError`].
pub fn read(path: &Path) -> Result<Capture, CaptureError> {
    let cut_off_in_write = journal_of(path).exists();
    if !cut_off_in_write {
        check_header(path)?;
    }
    let access = if cut_off_in_write {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    } else {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    let mut db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| opening(path, error))?;
    if cut_off_in_write {
        // The first read undoes the transaction that was cut off; the file is whole only then.
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
            .map_err(|error| CaptureError::sqlite(path, error))?;
        check_header(path)?;
    }
    // One transaction, so that a capture which is still written is seen at one moment.
    let snapshot = db
        .transaction()
        .map_err(|error| CaptureError::sqlite(path, error))?;
    let version = check_version(path, &snapshot)?;
    load::load(&snapshot, version).map_err(|error| CaptureError::sqlite(path, error))
}

fn opening(path: &Path, error: rusqlite::Error) -> CaptureError {
    match File::open(path) {
        Ok(_) => CaptureError::sqlite(path, error),
        Err(error) => CaptureError::io(path, error),
    }
}

fn check_version(path: &Path, db: &Connection) -> Result<u32, CaptureError> {
    let found: u32 = db
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| CaptureError::sqlite(path, error))?;
    if found > SCHEMA_VERSION {
        return Err(CaptureError::NewerSchema {
            path: path.to_owned(),
            found,
        });
    }
    Ok(found)
}
