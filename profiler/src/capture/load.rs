//! Takes rows out of the tables, and checks what SQLite does not. Residue reads every table by a query of
//! its own: the views are for people.

mod windows;

use std::collections::BTreeMap;

use residue_ebpf::abi::heap::{StackKind, StackTotals};
use rusqlite::Row;

use crate::capture::schema::walk_end_from_name;
use crate::capture::tables::Tables;
use crate::capture::{
    Capture, Ended, Figures, Frame, FrameKind, MappingOwner, MappingTotals, Meta, Module, Note,
    Process, Stack,
};
use crate::ids::{ProcessNumber, StackId};
use crate::symbolize::Symbol;

/// The prefix of options in the table `meta`.
const OPTION: &str = "option.";

/// Everything, with each figure's latest value, from a capture of this schema version.
pub(super) fn load(tables: &Tables<'_>, version: u32) -> rusqlite::Result<Capture> {
    let mut known = meta(tables)?;
    let started_ns = ns(&known, "started_ns")?.unwrap_or(0);
    let ended_ns = ns(&known, "ended_ns")?;
    let snapshots = snapshots(tables)?;
    Ok(Capture {
        ended_ns,
        last_ns: snapshots.values().copied().max().unwrap_or(started_ns),
        processes: processes(tables)?,
        modules: modules(tables)?,
        frames: frames(tables)?,
        stacks: stacks(tables)?,
        totals: totals(tables)?,
        mappings: mappings(tables)?,
        counters: counters(tables)?,
        notes: notes(tables)?,
        windows: windows::load(tables, &snapshots, version)?,
        snapshots: snapshots.into_values().collect(),
        meta: Meta {
            started_ns,
            options: options(&known),
            version: known.remove("residue_version").unwrap_or_default(),
            kernel: known.remove("kernel").unwrap_or_default(),
            command: known.remove("command").unwrap_or_default(),
        },
    })
}

/// The time of each snapshot, nanoseconds since 1970 UTC.
fn snapshots(tables: &Tables<'_>) -> rusqlite::Result<BTreeMap<i64, u64>> {
    let rows = tables.all("SELECT id, at_ns FROM snapshot ORDER BY id", |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(rows.into_iter().collect())
}

fn meta(tables: &Tables<'_>) -> rusqlite::Result<BTreeMap<String, String>> {
    let rows = tables.all("SELECT key, value FROM meta ORDER BY key", |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(rows.into_iter().collect())
}

fn ns(meta: &BTreeMap<String, String>, key: &str) -> rusqlite::Result<Option<u64>> {
    let parse = |text: &String| {
        let number = text.parse();
        number.map_err(|_| contradiction(1, format!("`{key}` is `{text}`")))
    };
    meta.get(key).map(parse).transpose()
}

fn options(meta: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let option = |(key, value): (&String, &String)| {
        let name = key.strip_prefix(OPTION)?;
        Some((name.to_owned(), value.clone()))
    };
    meta.iter().filter_map(option).collect()
}

/// Each stack's latest totals. Goes from stack to stack by the key, so that the cost does not grow with the
/// length of a recording.
fn totals(tables: &Tables<'_>) -> rusqlite::Result<Vec<(StackId, StackTotals)>> {
    let mut next = tables.prepare(
        "SELECT stack_id, alloc_bytes, alloc_objects, freed_bytes, freed_objects, lost_bytes,
         lost_objects FROM total
         WHERE stack_id = (SELECT min(stack_id) FROM total WHERE stack_id > ?1)
         ORDER BY snapshot_id DESC LIMIT 1",
    )?;
    let mut found = Vec::new();
    let mut before = -1;
    while let Some((stack, totals)) = tables.first(&mut next, [before], total)? {
        before = ascending(before, stack)?;
        found.push((stack, totals));
    }
    Ok(found)
}

/// As [`totals`], owner by owner.
fn mappings(tables: &Tables<'_>) -> rusqlite::Result<Vec<MappingTotals>> {
    let mut next = tables.prepare(
        "SELECT stack_id, inuse_bytes, inuse_objects, alloc_bytes, alloc_objects FROM mapping_total
         WHERE owner = ?1
         AND stack_id = (SELECT min(stack_id) FROM mapping_total WHERE owner = ?1 AND stack_id > ?2)
         ORDER BY snapshot_id DESC LIMIT 1",
    )?;
    let mut found = Vec::new();
    for owner in MappingOwner::ALL {
        let mut before = -1;
        let read = |row: &Row<'_>| mapping(row, owner);
        while let Some(totals) = tables.first(&mut next, (owner.name(), before), read)? {
            before = ascending(before, totals.stack)?;
            found.push(totals);
        }
    }
    Ok(found)
}

/// The key, if it comes after the one before: in a damaged table, SQLite's next key may come before.
fn ascending(before: i64, stack: StackId) -> rusqlite::Result<i64> {
    match i64::from(stack.0) {
        stack if stack > before => Ok(stack),
        _ => Err(contradiction(0, "stacks are out of order".to_owned())),
    }
}

/// The last value of each counter.
fn counters(tables: &Tables<'_>) -> rusqlite::Result<Vec<(String, u64)>> {
    let mut found: Vec<(String, u64)> = Vec::new();
    let sql = "SELECT name, value FROM counter ORDER BY name, snapshot_id";
    tables.each(sql, |row| {
        let (name, value) = (row.get_ref(0)?.as_str()?, row.get(1)?);
        match found.last_mut() {
            Some(last) if last.0 == name => last.1 = value,
            _ => found.push((name.to_owned(), value)),
        }
        Ok(())
    })?;
    Ok(found)
}

/// Frames with their symbols, merged from two tables, both in the order of frame ids.
fn frames(tables: &Tables<'_>) -> rusqlite::Result<Vec<Frame>> {
    let mut frames = tables.all(
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
    add_symbols(tables, &mut frames)?;
    Ok(frames)
}

fn add_symbols(tables: &Tables<'_>, frames: &mut [Frame]) -> rusqlite::Result<()> {
    let mut at = 0;
    let sql = "SELECT frame_id, name, file, line FROM symbol ORDER BY frame_id, depth";
    tables.each(sql, |row| {
        let id: u32 = row.get(0)?;
        while frames.get(at).is_some_and(|frame| frame.id < id) {
            at += 1;
        }
        if let Some(frame) = frames.get_mut(at).filter(|frame| frame.id == id) {
            let (name, file, line) = (row.get(1)?, row.get(2)?, row.get(3)?);
            frame.symbols.push(Symbol { name, file, line });
        }
        Ok(())
    })
}

fn modules(tables: &Tables<'_>) -> rusqlite::Result<Vec<Module>> {
    let sql = "SELECT id, path, build_id, interpreter FROM module ORDER BY id";
    tables.all(sql, |row| {
        Ok(Module {
            id: row.get(0)?,
            path: row.get(1)?,
            build_id: row.get(2)?,
            interpreter: row.get(3)?,
        })
    })
}

fn notes(tables: &Tables<'_>) -> rusqlite::Result<Vec<Note>> {
    tables.all("SELECT at_ns, text FROM note ORDER BY id", |row| {
        Ok(Note {
            at_ns: row.get(0)?,
            text: row.get(1)?,
        })
    })
}

/// Every process, with its end if it ended.
fn processes(tables: &Tables<'_>) -> rusqlite::Result<Vec<(Process, Option<Ended>)>> {
    tables.all(
        "SELECT id, pid, comm, exe, cmdline, started_ns, ended_ns, end_reason FROM process
         ORDER BY id",
        process,
    )
}

fn process(row: &Row<'_>) -> rusqlite::Result<(Process, Option<Ended>)> {
    let process = Process {
        number: ProcessNumber(row.get(0)?),
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

fn stacks(tables: &Tables<'_>) -> rusqlite::Result<Vec<Stack>> {
    tables.all(
        "SELECT id, process_id, frames, left_out, walk_end, kind, context_id FROM stack
         ORDER BY id",
        stack,
    )
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
    let context = row.get::<_, Option<u32>>(6)?.map(StackId);
    Ok(Stack {
        id: StackId(row.get(0)?),
        process: ProcessNumber(row.get(1)?),
        frames: frames
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes))
            .collect(),
        left_out: row.get(3)?,
        end: walk_end_from_name(&end)
            .ok_or_else(|| contradiction(4, format!("a stack's walk ended as `{end}`")))?,
        kind: StackKind::from_name(&kind)
            .ok_or_else(|| contradiction(5, format!("a stack is of kind `{kind}`")))?,
        context: context.filter(|context| *context != StackId::UNKNOWN),
    })
}

fn total(row: &Row<'_>) -> rusqlite::Result<(StackId, StackTotals)> {
    let totals = StackTotals {
        alloc_bytes: row.get(1)?,
        alloc_objects: row.get(2)?,
        freed_bytes: row.get(3)?,
        freed_objects: row.get(4)?,
        lost_bytes: row.get(5)?,
        lost_objects: row.get(6)?,
        ..StackTotals::default()
    };
    Ok((StackId(row.get(0)?), totals))
}

fn mapping(row: &Row<'_>, owner: MappingOwner) -> rusqlite::Result<MappingTotals> {
    Ok(MappingTotals {
        stack: StackId(row.get(0)?),
        owner,
        figures: Figures {
            inuse_bytes: row.get(1)?,
            inuse_objects: row.get(2)?,
            alloc_bytes: row.get(3)?,
            alloc_objects: row.get(4)?,
        },
    })
}

/// The error for a value of the right type that cannot be true.
pub(super) fn contradiction(column: usize, what: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
}
