//! Why residue could not write or read a capture. Each error says what to do next.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::capture::SCHEMA_VERSION;
use crate::printable::printable;

/// How many characters of a reason an error shows.
const MAX_REASON_CHARS: usize = 200;

/// Why residue could not write or read a capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// There is no such file.
    #[error(
        "no capture at {path}: check the path, or make one with `residue record -p PID -o {path}`"
    )]
    Missing {
        /// The path that the caller gave.
        path: PathBuf,
    },
    /// The file is not a capture.
    #[error("{path} is not a residue capture: give a file that `residue record -o` wrote")]
    NotACapture {
        /// The file.
        path: PathBuf,
    },
    /// The recorder ended before it had committed anything.
    #[error("{path} holds no data, its recording ended before the first interval: record again")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A later residue wrote the tables.
    #[error(
        "{path} was written by a newer residue (schema {found}, this one reads up to \
         {SCHEMA_VERSION}): upgrade residue"
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The file's schema version.
        found: u32,
    },
    /// The end of the file is missing.
    #[error("{path} is truncated ({found} of {expected} bytes): copy it again, or record again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The file's length in bytes.
        found: u64,
        /// The length that the file's header states, in bytes.
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
    /// The file has other tables than a capture.
    #[error("{path} is not as residue wrote it ({what}): give the unchanged file, or record again")]
    Altered {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// Reading the file would go on for longer than any capture of its length needs.
    #[error("{path} is damaged, reading it finds no end: copy it again, or record again")]
    Endless {
        /// The file.
        path: PathBuf,
    },
    /// The file is longer than a report reads.
    #[error(
        "{path} is larger than {max_gib} GiB: record for a shorter time, or with a longer --interval"
    )]
    TooLarge {
        /// The file, or its journal.
        path: PathBuf,
        /// The longest file that a report reads, in GiB.
        max_gib: u64,
    },
    /// A recorder is writing the file, for longer than an interval takes.
    #[error(
        "another program keeps {path} locked: try again when it has ended, or report on a copy"
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A recorder wrote to the file during every try to read it.
    #[error(
        "{path} is written to faster than it can be read: try again when its recording has ended"
    )]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// Somebody reads the file for so long that the recorder cannot keep any more rows.
    #[error(
        "another program keeps {path} locked, and nothing more can be written: end that program, and record again"
    )]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// The path leads to no regular file.
    #[error("{path} is {kind}, not a capture: give the file itself that `residue record -o` wrote")]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What is there, with its article.
        kind: &'static str,
    },
    /// The journal beside the capture would have SQLite delete a file.
    #[error(
        "{path}-journal names another file, to have it deleted, and no residue wrote it: \
         do not open {path} with other programs, and remove {path}-journal"
    )]
    HostileJournal {
        /// The capture.
        path: PathBuf,
    },
    /// The journal beside the capture is somebody else's.
    #[error(
        "{path}-journal is not by the owner of {path}, and nothing of it is believed: \
         remove it, and report again"
    )]
    ForeignJournal {
        /// The capture.
        path: PathBuf,
    },
    /// The file system has no room left.
    #[error("the disk is full, {path} cannot grow: free some space, or write elsewhere with -o")]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// What is to be written comes faster than the disk takes it.
    #[error(
        "the disk is too slow for {path}, and too much waits to be written: write elsewhere with -o"
    )]
    TooSlow {
        /// The file.
        path: PathBuf,
    },
    /// The recording would overwrite something that is no capture.
    #[error("{path} exists and is not a residue capture, it is left alone: choose another -o")]
    WouldOverwrite {
        /// The file.
        path: PathBuf,
    },
    /// The recording would overwrite something that is no file at all.
    #[error("{path} is {kind}, which is left alone: choose another -o")]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// What is there, with its article.
        kind: &'static str,
    },
    /// The recording would take over a journal.
    #[error(
        "{path}-journal exists, and is left alone: remove it if it is yours, or choose another -o"
    )]
    JournalInTheWay {
        /// The capture.
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
        /// What the operating system said.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("cannot use {path} as a capture: check the file system, or name another file")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
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

    /// What SQLite's error at writing `path` means.
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            Some(ErrorCode::DatabaseBusy) => Self::Held { path },
            _ => Self::Sqlite { path, source },
        }
    }

    /// What SQLite's error at reading the bytes of `path` means.
    pub(super) fn reading(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::Endless { path },
            Some(ErrorCode::OutOfMemory) => Self::Sqlite { path, source },
            // Without a code, rusqlite complains: a value is not what its column says.
            _ => Self::Damaged {
                path,
                reason: quoted(&source.to_string()),
            },
        }
    }
}

/// The beginning of a text that quotes the capture, with unprintable characters by number.
fn quoted(text: &str) -> String {
    let beginning: String = text.chars().take(MAX_REASON_CHARS).collect();
    printable(&beginning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_reads_as_it_does_elsewhere() {
        assert_eq!(
            quoted("it's \"é\"\u{202e}\u{1b}"),
            "it's \"é\"\\u{202e}\\u{1b}"
        );
        assert_eq!(quoted("caf\u{65}\u{301} \\"), "caf\u{65}\u{301} \\");
        assert_eq!(quoted(&"x".repeat(999)).len(), MAX_REASON_CHARS);
    }
}
