//! The tables, and what tells a capture from other files.

use std::path::Path;

use residue_ebpf::abi::event::WalkEnd;

use crate::capture::CaptureError;
use crate::capture::image::Image;

/// The schema that this residue writes, and the newest that it reads (SQLite's `user_version`).
pub const SCHEMA_VERSION: u32 = 3;

/// The first schema with request windows.
pub(super) const WITH_WINDOWS: u32 = 3;

/// SQLite's `application_id`: the letters `Rsdu`.
pub(super) const APPLICATION_ID: u32 = u32::from_be_bytes(*b"Rsdu");

/// The tables and views of the schema before, which residue still reads.
pub(super) const DDL_2: &str = include_str!("schema/version_2.sql");

/// SQLite stores `WITHOUT ROWID` tables in the order of their keys: all values of one stack lie together,
/// the last one at the end, and the `latest_…` views jump to that one. The views walk from stack to stack
/// by the key, so their cost does not grow with the length of the recording.
pub(super) const DDL: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE process (
    id INTEGER PRIMARY KEY, pid INTEGER NOT NULL, comm TEXT NOT NULL, exe TEXT NOT NULL,
    cmdline TEXT NOT NULL, started_ns INTEGER NOT NULL, ended_ns INTEGER, end_reason TEXT);
CREATE TABLE module (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL, build_id TEXT, interpreter INTEGER NOT NULL);
CREATE TABLE frame (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, module_id INTEGER, file_offset INTEGER NOT NULL);
CREATE TABLE symbol (
    frame_id INTEGER NOT NULL, depth INTEGER NOT NULL, name TEXT NOT NULL, file TEXT,
    line INTEGER, PRIMARY KEY (frame_id, depth)) WITHOUT ROWID;
CREATE TABLE stack (
    id INTEGER PRIMARY KEY, process_id INTEGER NOT NULL, frames BLOB NOT NULL,
    left_out INTEGER NOT NULL, walk_end TEXT NOT NULL, kind TEXT NOT NULL, context_id INTEGER);
CREATE TABLE snapshot (id INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL);
CREATE TABLE total (
    stack_id INTEGER NOT NULL, snapshot_id INTEGER NOT NULL,
    alloc_bytes INTEGER NOT NULL, alloc_objects INTEGER NOT NULL,
    freed_bytes INTEGER NOT NULL, freed_objects INTEGER NOT NULL,
    lost_bytes INTEGER NOT NULL, lost_objects INTEGER NOT NULL,
    PRIMARY KEY (stack_id, snapshot_id)) WITHOUT ROWID;
CREATE TABLE mapping_total (
    stack_id INTEGER NOT NULL, owner TEXT NOT NULL, snapshot_id INTEGER NOT NULL,
    inuse_bytes INTEGER NOT NULL, inuse_objects INTEGER NOT NULL,
    alloc_bytes INTEGER NOT NULL, alloc_objects INTEGER NOT NULL,
    PRIMARY KEY (owner, stack_id, snapshot_id)) WITHOUT ROWID;
CREATE TABLE counter (
    name TEXT NOT NULL, snapshot_id INTEGER NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (name, snapshot_id)) WITHOUT ROWID;
CREATE TABLE route (id INTEGER PRIMARY KEY, method TEXT, template TEXT);
CREATE TABLE window (
    id INTEGER PRIMARY KEY, process_id INTEGER NOT NULL, pid INTEGER NOT NULL,
    tid INTEGER NOT NULL, route_id INTEGER NOT NULL, status INTEGER, request_id TEXT,
    opened_ns INTEGER NOT NULL, closed_ns INTEGER NOT NULL, duration_ns INTEGER,
    rss_open_bytes INTEGER, rss_close_bytes INTEGER,
    alloc_bytes INTEGER NOT NULL, alloc_objects INTEGER NOT NULL,
    retained_bytes INTEGER NOT NULL, retained_objects INTEGER NOT NULL,
    confidence TEXT NOT NULL, candidates INTEGER, ended TEXT NOT NULL,
    survivor_bytes INTEGER, survivor_objects INTEGER);
CREATE TABLE left_behind (
    process_id INTEGER NOT NULL, route_id INTEGER NOT NULL, status INTEGER NOT NULL,
    stage TEXT NOT NULL, stack_id INTEGER NOT NULL,
    bytes INTEGER NOT NULL, objects INTEGER NOT NULL,
    PRIMARY KEY (stage, route_id, process_id, status, stack_id)) WITHOUT ROWID;
CREATE TABLE unbound (
    process_id INTEGER NOT NULL, snapshot_id INTEGER NOT NULL,
    background_alloc_bytes INTEGER NOT NULL, background_alloc_objects INTEGER NOT NULL,
    background_inuse_bytes INTEGER NOT NULL, background_inuse_objects INTEGER NOT NULL,
    ambiguous_alloc_bytes INTEGER NOT NULL, ambiguous_alloc_objects INTEGER NOT NULL,
    ambiguous_inuse_bytes INTEGER NOT NULL, ambiguous_inuse_objects INTEGER NOT NULL,
    PRIMARY KEY (process_id, snapshot_id)) WITHOUT ROWID;
CREATE TABLE memory (
    process_id INTEGER NOT NULL, at_ns INTEGER NOT NULL, unbound_bytes INTEGER,
    resident_bytes INTEGER, PRIMARY KEY (process_id, at_ns)) WITHOUT ROWID;
CREATE TABLE note (id INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, text TEXT NOT NULL);

CREATE VIEW latest_total AS
WITH RECURSIVE seen(id) AS (
    SELECT min(stack_id) FROM total
    UNION ALL
    SELECT (SELECT min(stack_id) FROM total WHERE stack_id > seen.id) FROM seen
    WHERE seen.id IS NOT NULL)
SELECT total.* FROM seen JOIN total ON stack_id = seen.id
    AND snapshot_id = (SELECT max(snapshot_id) FROM total WHERE stack_id = seen.id);

CREATE VIEW latest_mapping_total AS
WITH RECURSIVE owners(owner) AS (VALUES ('application'), ('allocator')),
seen(owner, id) AS (
    SELECT owner, (SELECT min(stack_id) FROM mapping_total m WHERE m.owner = owners.owner)
    FROM owners
    UNION ALL
    SELECT owner, (SELECT min(stack_id) FROM mapping_total m
                   WHERE m.owner = seen.owner AND m.stack_id > seen.id)
    FROM seen WHERE seen.id IS NOT NULL)
SELECT m.* FROM seen JOIN mapping_total m ON m.owner = seen.owner AND m.stack_id = seen.id
    AND m.snapshot_id = (SELECT max(snapshot_id) FROM mapping_total
                         WHERE owner = seen.owner AND stack_id = seen.id);

CREATE VIEW latest_counter AS
SELECT name, value, max(snapshot_id) AS snapshot_id FROM counter GROUP BY name;

CREATE VIEW latest_unbound AS
SELECT unbound.* FROM process JOIN unbound ON process_id = process.id
    AND snapshot_id = (SELECT max(snapshot_id) FROM unbound WHERE process_id = process.id);

CREATE VIEW request AS
SELECT window.*, CASE WHEN template IS NULL THEN 'other'
    ELSE coalesce(method || ' ', '') || template END AS route
FROM window JOIN route ON route.id = route_id;
";

/// The [`WalkEnd`] with this name in the column `walk_end`, if there is one.
pub(super) fn walk_end_from_name(name: &str) -> Option<WalkEnd> {
    WalkEnd::ALL.iter().copied().find(|end| end.name() == name)
}

/// Checks that `image` has the tables and views of this schema version, word for word, and nothing else: no
/// trigger, no generated column, and no view where a table should be.
pub(super) fn check(path: &Path, image: &Image, version: u32) -> Result<(), CaptureError> {
    let altered = |what: String| CaptureError::Altered {
        path: path.to_owned(),
        what,
    };
    let expected = statements(version);
    if expected.is_empty() {
        return Err(altered("its schema is of no residue".to_owned()));
    }
    match difference(image, &expected).map_err(|error| CaptureError::reading(path, error))? {
        None => Ok(()),
        Some(what) => Err(altered(what)),
    }
}

/// The statements that make the tables and views of this version, one by one.
fn statements(version: u32) -> Vec<&'static str> {
    let all = match version {
        2 => DDL_2,
        SCHEMA_VERSION => DDL,
        _ => "",
    };
    let statements = all.split(';').map(str::trim);
    statements
        .filter(|statement| !statement.is_empty())
        .collect()
}

/// The first difference from what is expected. Its name is the expected one.
fn difference(image: &Image, expected: &[&str]) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid";
    let mut statement = image.db().prepare(sql)?;
    let mut rows = statement.query([])?;
    for &sql in expected {
        let mut words = sql.split_whitespace().skip(1);
        let (kind, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let Some(row) = rows.next()? else {
            return Ok(Some(format!("it has no `{name}`")));
        };
        let is_as_written = row.get_ref(0)?.as_str()?.eq_ignore_ascii_case(kind)
            && row.get_ref(1)?.as_str()? == name
            && row.get_ref(2)?.as_str()? == name
            && row.get_ref(3)?.as_str()? == sql;
        if !is_as_written {
            return Ok(Some(format!("its `{name}` differs")));
        }
    }
    let more = rows.next()?.is_some();
    Ok(more.then(|| "it has more than residue's tables".to_owned()))
}
