//! Why a capture could not be written or read; each says what to do next.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::capture::SCHEMA_VERSION;

/// Why a capture could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// There is no such file.
    #[error(
        "no capture at {path}: check the path, or make one with `residue record -p PID -o {path}`"
    )]
    Missing {
        /// The file that was asked for.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{path} is not a residue capture: give a file that `residue record -o` wrote")]
    NotACapture {
        /// The file.
        path: PathBuf,
    },
    /// Nothing was committed before the recorder ended.
    #[error("{path} holds no data, its recording ended before the first interval: record again")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The tables are of a later residue.
    #[error(
        "{path} was written by a newer residue (schema {found}, this one reads up to \
         {SCHEMA_VERSION}): upgrade residue"
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
    },
    /// The end of the file is missing.
    #[error("{path} is truncated ({found} of {expected} bytes): copy it again, or record again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length its header states, in bytes.
        expected: u64,
    },
    /// The contents contradict the format.
    #[error("{path} is damaged ({reason}): copy it again, or record again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A transaction was cut off, and undoing it needs to write.
    #[error(
        "{path} was cut off in mid-write and must be repaired first, which needs write access: \
         copy it together with {path}-journal into a directory of your own and report on the copy"
    )]
    NeedsRepair {
        /// The file.
        path: PathBuf,
    },
    /// The file system has no room left.
    #[error("the disk is full, {path} cannot grow: free some space, or write elsewhere with -o")]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// Something that is no capture would be overwritten.
    #[error("{path} exists and is not a residue capture, it is left alone: choose another -o")]
    WouldOverwrite {
        /// The file.
        path: PathBuf,
    },
    /// The directory to write into does not exist.
    #[error("cannot create {path}, its directory does not exist: make it, or choose another -o")]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// Another recorder writes into the file.
    #[error("another residue is recording into {path}: choose another -o")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot access {path}: check that you may, or name another file")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("cannot use {path} as a capture: check the file system, or name another file")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
}

impl CaptureError {
    /// What an operating system error on `path` means.
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, source },
        }
    }

    /// What an SQLite error on `path` means.
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            Some(ErrorCode::ReadOnly) => Self::NeedsRepair { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged {
                path,
                reason: source.to_string(),
            },
            Some(_) => Self::Sqlite { path, source },
            // Without a code it is rusqlite that complains: a value is not what its column says.
            None => Self::Damaged {
                path,
                reason: source.to_string(),
            },
        }
    }
}
