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
