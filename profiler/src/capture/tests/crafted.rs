//! Captures that somebody made to do harm. A reader runs none of them, reads none for long, and writes
//! nothing.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::*;

const ENDLESS: &str = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r)";

/// Statements that replace a table or view by one that residue did not write.
const ALTERED: &[&str] = &[
    // A view that looks like a table and is a query without an end, for every table and view.
    "DROP TABLE meta; CREATE VIEW meta AS {endless} SELECT 'option.' || i AS key, 'x' AS value FROM r",
    "DROP TABLE frame; CREATE VIEW frame AS {endless} SELECT i AS id, 'native' AS kind, NULL AS module_id,
     i AS file_offset FROM r",
    "DROP TABLE symbol; CREATE VIEW symbol AS {endless} SELECT i AS frame_id, 0 AS depth, 'x' AS name,
     NULL AS file, NULL AS line FROM r",
    "DROP TABLE stack; CREATE VIEW stack AS {endless} SELECT i AS id, 1 AS process_id, x'00' AS frames,
     0 AS left_out, 'bottom' AS walk_end, 'full' AS kind, NULL AS context_id FROM r",
    "DROP TABLE snapshot; CREATE VIEW snapshot AS {endless} SELECT i AS id, i AS at_ns FROM r",
    "DROP TABLE total; CREATE VIEW total AS {endless} SELECT i AS stack_id, 1 AS snapshot_id,
     1 AS alloc_bytes, 1 AS alloc_objects, 0 AS freed_bytes, 0 AS freed_objects, 0 AS lost_bytes,
     0 AS lost_objects FROM r",
    "DROP TABLE note; CREATE VIEW note AS {endless} SELECT i AS id, 1 AS at_ns, 'x' AS text FROM r",
    "DROP TABLE route; CREATE VIEW route AS {endless} SELECT i AS id, 'GET' AS method, '/' AS template FROM r",
    "DROP TABLE memory; CREATE VIEW memory AS {endless} SELECT i AS process_id, i AS at_ns,
     1 AS unbound_bytes, 1 AS resident_bytes FROM r",
    "DROP TABLE process; CREATE VIEW process AS {endless} SELECT i AS id, 1 AS pid, '' AS comm, '' AS exe,
     '' AS cmdline, 1 AS started_ns, NULL AS ended_ns, NULL AS end_reason FROM r",
    "DROP TABLE module; CREATE VIEW module AS {endless} SELECT i AS id, '' AS path, NULL AS build_id,
     0 AS interpreter FROM r",
    "DROP VIEW latest_total; CREATE VIEW latest_total AS {endless} SELECT i AS stack_id FROM r",
    "DROP VIEW latest_counter; CREATE VIEW latest_counter AS {endless} SELECT i AS name, 1 AS value FROM r",
    "DROP VIEW latest_unbound; CREATE VIEW latest_unbound AS {endless} SELECT i FROM r",
    "DROP VIEW request; CREATE VIEW request AS {endless} SELECT i FROM r",
    // Takes memory.
    "DROP TABLE note; CREATE VIEW note AS {endless} SELECT i AS id, 1 AS at_ns,
     hex(zeroblob(20000000)) AS text FROM r LIMIT 2000",
    "DROP TABLE note; CREATE TABLE note (id INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL,
     text TEXT AS (hex(zeroblob(400000000))) NOT NULL); INSERT INTO note (at_ns) VALUES (1)",
    "DROP TABLE meta; CREATE VIEW meta AS SELECT 'kernel' AS key, randomblob(900000000) AS value",
    // Sorts without an end.
    "DROP TABLE frame; CREATE VIEW frame AS {endless} SELECT i AS id, 'native' AS kind, NULL AS module_id,
     i AS file_offset FROM r ORDER BY random()",
    // Runs with every insertion.
    "CREATE TRIGGER t AFTER INSERT ON note BEGIN DELETE FROM total; END",
    "CREATE TEMP TABLE x (a); CREATE TABLE more (a)",
    "CREATE INDEX more ON total (alloc_bytes)",
    "CREATE INDEX more ON total (abs(-9223372036854775807 - alloc_bytes))",
    "CREATE VIRTUAL TABLE more USING fts5 (a)",
    "CREATE VIRTUAL TABLE more USING rtree (a, b, c)",
    "CREATE VIEW more AS SELECT load_extension('/tmp/x.so')",
    "CREATE VIEW more AS SELECT * FROM pragma_database_list",
    "DROP TABLE memory; CREATE TABLE memory (
     process_id INTEGER NOT NULL, at_ns INTEGER NOT NULL, unbound_bytes INTEGER,
     resident_bytes INTEGER CHECK (abs(resident_bytes) > 0), PRIMARY KEY (process_id, at_ns)) WITHOUT ROWID",
    "DROP TABLE note; CREATE TABLE note (id INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, text NOT NULL)",
    "DROP TABLE note; CREATE TABLE note (id INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, text TEXT NOT NULL)
     STRICT",
    "DROP TABLE note",
    "ALTER TABLE note ADD COLUMN more TEXT",
    "ALTER TABLE note RENAME TO notes",
    // The same names, in another place.
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET type = 'view' WHERE name = 'note'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET tbl_name = 'meta' WHERE name = 'note'",
    "PRAGMA writable_schema = 1; DELETE FROM sqlite_schema WHERE name = 'note'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = replace(sql, 'at_ns', 'at_ms')
     WHERE name = 'note'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = 'CREATE TABLE ' || char(27) || '[31m (a)'
     WHERE name = 'note'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = 'CREATE TABLE note (' ||
     substr(replace(hex(zeroblob(9000)), '0', ', a'), 3) || ')' WHERE name = 'note'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = 'CREATE VIEW request AS SELECT ' ||
     replace(hex(zeroblob(5000)), '0', '(') || '1' || replace(hex(zeroblob(5000)), '0', ')')
     WHERE name = 'request'",
    "PRAGMA journal_mode = WAL",
    "PRAGMA user_version = 0",
    "PRAGMA user_version = 1",
    "PRAGMA user_version = 2",
    "PRAGMA user_version = -3",
];

/// Statements that keep residue's tables, with rows that no residue wrote.
const FALSE: &[&str] = &[
    "INSERT INTO note (at_ns, text) VALUES (1, hex(zeroblob(40000000)))",
    "UPDATE meta SET value = hex(zeroblob(1000000)) WHERE key = 'kernel'",
    "UPDATE stack SET frames = zeroblob(30000000)",
    "UPDATE meta SET value = 'soon' WHERE key = 'ended_ns'",
    "UPDATE meta SET value = '-1' WHERE key = 'started_ns'",
    "UPDATE symbol SET name = x'ff'",
    "UPDATE symbol SET line = 1e300",
    "UPDATE snapshot SET at_ns = 'now'",
    "UPDATE total SET stack_id = 4294967296 WHERE stack_id = 9",
    "UPDATE total SET alloc_bytes = 1e20",
    "UPDATE window SET route_id = 99",
    "UPDATE window SET confidence = char(27) || '[31m'",
    "UPDATE process SET pid = -1",
    // Two tables in the same place, and a table that is everywhere.
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET rootpage = 1 WHERE type = 'table'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET rootpage = 0 WHERE name = 'frame'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET rootpage = 123456789 WHERE name = 'frame'",
    "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET rootpage =
     (SELECT rootpage FROM sqlite_schema WHERE name = 'window') WHERE name = 'process'",
];

/// Statements that make a capture strange, and sound all the same.
const SOUND: &[&str] = &[
    "UPDATE total SET stack_id = 4294967295 WHERE stack_id = 9",
    "UPDATE total SET alloc_bytes = 9223372036854775807",
    "UPDATE stack SET context_id = id, left_out = 4294967295",
    "UPDATE symbol SET name = char(27) || '[31m', file = char(10), line = 0",
    "DELETE FROM meta",
    "DELETE FROM frame; DELETE FROM module; DELETE FROM process",
    "UPDATE snapshot SET at_ns = 0",
    "INSERT INTO counter VALUES (char(27) || '[31m', 1, 5)",
    "VACUUM",
];

fn craft(sql: &str) -> Result<(TempDir, PathBuf), Box<dyn Error>> {
    let (directory, path) = place()?;
    samples::write_everything(&path)?;
    let db = Connection::open(&path)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
    db.execute_batch(&sql.replace("{endless}", ENDLESS))?;
    drop(db);
    Ok((directory, path))
}

fn read_quickly(path: &Path) -> Result<super::super::Capture, CaptureError> {
    let before = files_in(path.parent());
    let began = Instant::now();
    let read = read(path);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(files_in(path.parent()), before);
    read
}

fn files_in(directory: Option<&Path>) -> usize {
    let entries = directory.and_then(|directory| fs::read_dir(directory).ok());
    entries.map_or(0, Iterator::count)
}

#[test]
fn other_tables_than_residues_are_refused() -> TestResult {
    for sql in ALTERED {
        let (_directory, path) = craft(sql).map_err(|error| format!("{sql}: {error}"))?;
        let error = read_quickly(&path).unwrap_err();
        let is_refused = matches!(
            error,
            CaptureError::Altered { .. } | CaptureError::Damaged { .. }
        );
        assert!(is_refused, "{sql}: {error}");
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
    Ok(())
}

#[test]
fn rows_that_no_residue_wrote_are_refused() -> TestResult {
    for sql in FALSE {
        let (_directory, path) = craft(sql).map_err(|error| format!("{sql}: {error}"))?;
        let error = read_quickly(&path).unwrap_err();
        let is_refused = matches!(
            error,
            CaptureError::Damaged { .. } | CaptureError::Endless { .. }
        );
        assert!(is_refused, "{sql}: {error}");
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
    Ok(())
}

#[test]
fn strange_captures_that_are_sound_are_read() -> TestResult {
    for sql in SOUND {
        let (_directory, path) = craft(sql).map_err(|error| format!("{sql}: {error}"))?;
        read_quickly(&path).map_err(|error| format!("{sql}: {error}"))?;
    }
    Ok(())
}

/// One page of rows that stands for a table's every page: each row is real, and there are hundreds of
/// times as many.
#[test]
fn a_table_that_shows_the_same_rows_again_and_again_is_refused() -> TestResult {
    /// The most cells that SQLite accepts in a page of 4096 bytes.
    const CELLS: u16 = 681;
    let (_directory, path) = place()?;
    samples::write_everything(&path)?;
    let db = Connection::open(&path)?;
    db.execute_batch(
        "WITH RECURSIVE n(i) AS (VALUES (100) UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO snapshot SELECT i, i FROM n",
    )?;
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'snapshot'";
    let root: usize = db.query_row(sql, [], |row| row.get(0))?;
    drop(db);
    let mut bytes = fs::read(&path)?;
    let page = &mut bytes[(root - 1) * 4096..root * 4096];
    assert_eq!(page[0], 5, "an interior page of a table");
    let first: [u8; 2] = [page[12], page[13]];
    page[3..5].copy_from_slice(&CELLS.to_be_bytes());
    for cell in 0..usize::from(CELLS) {
        page[12 + 2 * cell..14 + 2 * cell].copy_from_slice(&first);
    }
    fs::write(&path, &bytes)?;
    let error = read_quickly(&path).unwrap_err();
    assert!(error.to_string().contains("more than its bytes"), "{error}");
    Ok(())
}
