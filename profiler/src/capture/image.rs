//! A capture's bytes as a database that SQLite may only read. SQLite sees no file: it takes no lock, looks for no
//! journal and makes nothing. The limits here bound what a hostile capture may cost.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, MAIN_DB};

use crate::capture::CaptureError;

/// Bytes of the longest row, text or BLOB that SQLite accepts. The longest row that residue writes is that of a
/// process, with four texts of at most [`MAX_TEXT_BYTES`](crate::capture::rows::MAX_TEXT_BYTES) each.
const MAX_ROW_BYTES: i32 = 1 << 20;
/// How many instructions SQLite runs between two looks at what it has spent.
const STEPS_A_LOOK: i32 = 1000;
/// Instructions that reading any capture may take, and how many more each of its bytes allows. True captures take
/// about two a byte.
const MIN_STEPS: u64 = 1_000_000;
const STEPS_A_BYTE: u64 = 32;
/// How long reading any capture may take, and how many bytes allow another second.
const MIN_TIME: Duration = Duration::from_secs(10);
const BYTES_A_SECOND: u64 = 16 << 20;

/// The limits are no higher than residue's own tables and queries need.
const LIMITS: [(Limit, i32); 10] = [
    (Limit::SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 16 << 10),
    (Limit::SQLITE_LIMIT_COLUMN, 64),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 64),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 4),
    (Limit::SQLITE_LIMIT_VDBE_OP, 10_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 8),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 8),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 0),
];

/// A capture in memory.
#[derive(Debug)]
pub(super) struct Image {
    /// The database borrows `bytes`, and Rust drops it before them.
    db: Connection,
    bytes: Vec<u8>,
}

impl Image {
    /// The database in `bytes`, the bytes of the capture at `path`.
    pub(super) fn open(path: &Path, bytes: Vec<u8>) -> Result<Self, CaptureError> {
        Self::deserialize(bytes).map_err(|error| CaptureError::reading(path, error))
    }

    fn deserialize(bytes: Vec<u8>) -> rusqlite::Result<Self> {
        let mut db = Connection::open_in_memory()?;
        // SAFETY: the bytes are on the heap and stay there, unchanged, for as long as `db` lives: both are
        // fields of the same value, neither is handed out as mutable, and `db` is dropped first.
        let borrowed: &'static [u8] =
            unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        db.deserialize_bytes(MAIN_DB, borrowed)?;
        let image = Self { db, bytes };
        image.forbid()?;
        image.bound()?;
        Ok(image)
    }

    /// The connection for queries.
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// How long the capture is, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Has SQLite run nothing that the capture says.
    fn forbid(&self) -> rusqlite::Result<()> {
        let set = |config, on| self.db.set_db_config(config, on);
        set(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        set(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        set(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
        set(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        for (limit, most) in LIMITS {
            self.db.set_limit(limit, most)?;
        }
        // A query that does not fit into memory fails, instead of writing a temporary file.
        self.db.pragma_update(None, "temp_store", "MEMORY")?;
        self.db.pragma_update(None, "cell_size_check", true)
    }

    fn bound(&self) -> rusqlite::Result<()> {
        let mut steps = MIN_STEPS.saturating_add(STEPS_A_BYTE.saturating_mul(self.length()));
        let deadline =
            Instant::now() + MIN_TIME + Duration::from_secs(self.length() / BYTES_A_SECOND);
        let is_too_much = move || {
            steps = steps.saturating_sub(STEPS_A_LOOK as u64);
            steps == 0 || Instant::now() > deadline
        };
        self.db.progress_handler(STEPS_A_LOOK, Some(is_too_much))
    }
}
