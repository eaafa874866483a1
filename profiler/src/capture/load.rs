//! Takes rows out of the tables, checking what SQLite does not.

mod windows;

use residue_ebpf::abi::heap::{StackKind, StackTotals};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::capture::schema::walk_end_from_name;
use crate::capture::{
    Capture, Ended, Figures, Frame, FrameKind, MappingOwner, MappingTotals, Meta, Module, Note,
    Process, Stack,
};
use crate::symbolize::Symbol;

/// As the view `latest_mapping_total`, of every owner: the view, which the schema spells out, knows only
/// those of the first residue.
const LATEST_MAPPINGS: &str = "
WITH RECURSIVE owners(owner) AS (
    SELECT min(owner) FROM mapping_total
    UNION ALL
    SELECT (SELECT min(owner) FROM mapping_total m WHERE m.owner > owners.owner) FROM owners
    WHERE owners.owner IS NOT NULL),
seen(owner, id) AS (
    SELECT owner, (SELECT min(stack_id) FROM mapping_total m WHERE m.owner = owners.owner)
    FROM owners WHERE owner IS NOT NULL
    UNION ALL
    SELECT owner, (SELECT min(stack_id) FROM mapping_total m
                   WHERE m.owner = seen.owner AND m.stack_id > seen.id)
    FROM seen WHERE seen.id IS NOT NULL)
SELECT m.stack_id, m.owner, inuse_bytes, inuse_objects, alloc_bytes, alloc_objects
FROM seen JOIN mapping_total m ON m.owner = seen.owner AND m.stack_id = seen.id
    AND m.snapshot_id = (SELECT max(snapshot_id) FROM mapping_total
                         WHERE owner = seen.owner AND stack_id = seen.id)
ORDER BY m.owner, m.stack_id";

/// Everything, with each figure's latest value, from a capture of this schema version.
pub(super) fn load(db: &Connection, version: u32) -> rusqlite::Result<Capture> {
    let started_ns = meta_ns(db, "started_ns")?.unwrap_or(0);
    let last_ns: Option<u64> =
        db.query_row("SELECT max(at_ns) FROM snapshot", [], |row| row.get(0))?;
    Ok(Capture {
        meta: Meta {
            version: meta(db, "residue_version")?.unwrap_or_default(),
            kernel: meta(db, "kernel")?.unwrap_or_default(),
            command: meta(db, "command")?.unwrap_or_default(),
            started_ns,
            options: all(
                db,
                "SELECT substr(key, 8), value FROM meta WHERE key GLOB 'option.*' ORDER BY key",
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?,
        },
        ended_ns: meta_ns(db, "ended_ns")?,
        last_ns: last_ns.unwrap_or(started_ns),
        processes: all(
            db,
            "SELECT id, pid, comm, exe, cmdline, started_ns, ended_ns, end_reason FROM process
             ORDER BY id",
            process,
        )?,
        modules: all(
            db,
            "SELECT id, path, build_id, interpreter FROM module ORDER BY id",
            |row| {
                Ok(Module {
                    id: row.get(0)?,
                    path: row.get(1)?,
                    build_id: row.get(2)?,
                    interpreter: row.get(3)?,
                })
            },
        )?,
        frames: frames(db)?,
        stacks: all(
            db,
            "SELECT id, process_id, frames, left_out, walk_end, kind, context_id FROM stack ORDER BY id",
            stack,
        )?,
        totals: all(
            db,
            "SELECT stack_id, alloc_bytes, alloc_objects, freed_bytes, freed_objects, lost_bytes,
             lost_objects FROM latest_total ORDER BY stack_id",
            total,
        )?,
        mappings: all(db, LATEST_MAPPINGS, mapping)?,
        counters: all(
            db,
            "SELECT name, value FROM latest_counter ORDER BY name",
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?,
        notes: all(db, "SELECT at_ns, text FROM note ORDER BY id", |row| {
            Ok(Note {
                at_ns: row.get(0)?,
                text: row.get(1)?,
            })
        })?,
        snapshots: all(db, "SELECT at_ns FROM snapshot ORDER BY id", |row| {
            row.get(0)
        })?,
        windows: windows::load(db, version)?,
    })
}

fn all<T>(
    db: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    db.prepare(sql)?.query_map([], read)?.collect()
}

fn meta(db: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| {
        row.get(0)
    })
    .optional()
}

fn meta_ns(db: &Connection, key: &str) -> rusqlite::Result<Option<u64>> {
    db.query_row(
        "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?",
        [key],
        |row| row.get(0),
    )
    .optional()
}

/// Frames with their symbols, merged from two tables that are both in the order of frame ids.
fn frames(db: &Connection) -> rusqlite::Result<Vec<Frame>> {
    let mut frames = all(
        db,
        "SELECT id, module_id, file_offset, kind FROM frame ORDER BY id",
        |row| {
            let (id, module, offset) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let kind: String = row.get(3)?;
            Ok(Frame {
                id,
                kind: FrameKind::from_name(&kind)
                    .ok_or_else(|| contradiction(3, format!("a frame is of kind `{kind}`")))?,
                module,
                offset,
                symbols: Vec::new(),
            })
        },
    )?;
    let sql = "SELECT frame_id, name, file, line FROM symbol ORDER BY frame_id, depth";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut at = 0;
    while let Some(row) = rows.next()? {
        let id: u32 = row.get(0)?;
        while frames.get(at).is_some_and(|frame| frame.id < id) {
            at += 1;
        }
        if let Some(frame) = frames.get_mut(at).filter(|frame| frame.id == id) {
            let (name, file, line) = (row.get(1)?, row.get(2)?, row.get(3)?);
            frame.symbols.push(Symbol { name, file, line });
        }
    }
    Ok(frames)
}

fn process(row: &Row<'_>) -> rusqlite::Result<(Process, Option<Ended>)> {
    let process = Process {
        slot: row.get(0)?,
        pid: row.get(1)?,
        comm: row.get(2)?,
        exe: row.get(3)?,
        cmdline: row.get(4)?,
        started_ns: row.get(5)?,
    };
    let ended = match row.get(6)? {
        Some(at_ns) => Some(Ended {
            at_ns,
            reason: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
        }),
        None => None,
    };
    Ok((process, ended))
}

fn stack(row: &Row<'_>) -> rusqlite::Result<Stack> {
    let blob = row.get_ref(2)?.as_blob()?;
    let (frames, rest) = blob.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(contradiction(
            2,
            format!("a stack's frames take {} bytes", blob.len()),
        ));
    }
    let end: String = row.get(4)?;
    let kind: String = row.get(5)?;
    let context: Option<u32> = row.get(6)?;
    Ok(Stack {
        id: row.get(0)?,
        process: row.get(1)?,
        frames: frames
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes))
            .collect(),
        left_out: row.get(3)?,
        end: walk_end_from_name(&end)
            .ok_or_else(|| contradiction(4, format!("a stack's walk ended as `{end}`")))?,
        kind: StackKind::from_name(&kind)
            .ok_or_else(|| contradiction(5, format!("a stack is of kind `{kind}`")))?,
        context: context.unwrap_or(0),
    })
}

fn total(row: &Row<'_>) -> rusqlite::Result<(u32, StackTotals)> {
    let totals = StackTotals {
        alloc_bytes: row.get(1)?,
        alloc_objects: row.get(2)?,
        freed_bytes: row.get(3)?,
        freed_objects: row.get(4)?,
        lost_bytes: row.get(5)?,
        lost_objects: row.get(6)?,
        ..StackTotals::default()
    };
    Ok((row.get(0)?, totals))
}

fn mapping(row: &Row<'_>) -> rusqlite::Result<MappingTotals> {
    let owner: String = row.get(1)?;
    Ok(MappingTotals {
        stack: row.get(0)?,
        owner: MappingOwner::from_name(&owner)
            .ok_or_else(|| contradiction(1, format!("a mapping's owner is `{owner}`")))?,
        figures: Figures {
            inuse_bytes: row.get(2)?,
            inuse_objects: row.get(3)?,
            alloc_bytes: row.get(4)?,
            alloc_objects: row.get(5)?,
        },
    })
}

/// A value of the right type that cannot be.
fn contradiction(column: usize, what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
}
