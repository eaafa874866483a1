//! Puts rows into the tables.

mod windows;

use residue_ebpf::abi::counters::Counter;
use residue_ebpf::abi::heap::StackTotals;
use rusqlite::{Transaction, params};

use crate::capture::kept::Row;
use crate::capture::{Figures, Frame, MappingOwner, Module, Process, Stack};
use crate::ids::StackId;

pub(super) use windows::{
    RouteIds, insert_left_behind, insert_memory, insert_routes, insert_survivors, insert_unbound,
    insert_windows,
};

/// Bytes of the longest text that the writer writes; it cuts a longer one. A row has at most four texts, that
/// of a process, and a reader accepts a mebibyte for a row.
pub(super) const MAX_TEXT_BYTES: usize = 128 << 10;

/// The text, or its first [`MAX_TEXT_BYTES`].
pub(super) fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

/// The value as a signed integer, as SQLite stores it. No real figure comes near the limit; a corrupt one must
/// not stop the recording.
pub(super) fn stored(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn insert_meta(
    transaction: &Transaction<'_>,
    key: &str,
    value: &str,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)")?
        .execute(params![bounded(key), bounded(value)])?;
    Ok(())
}

pub(super) fn insert_rows(transaction: &Transaction<'_>, rows: &[Row]) -> rusqlite::Result<()> {
    rows.iter().try_for_each(|row| match row {
        Row::Process(process) => insert_process(transaction, process),
        Row::End {
            process,
            at_ns,
            reason,
        } => {
            let mut end = transaction
                .prepare_cached("UPDATE process SET ended_ns = ?, end_reason = ? WHERE id = ?")?;
            end.execute(params![stored(*at_ns), bounded(reason), process.0])?;
            Ok(())
        }
        Row::Note { at_ns, text } => {
            let mut insert =
                transaction.prepare_cached("INSERT INTO note (at_ns, text) VALUES (?, ?)")?;
            insert.execute(params![stored(*at_ns), bounded(text)])?;
            Ok(())
        }
    })
}

fn insert_process(transaction: &Transaction<'_>, process: &Process) -> rusqlite::Result<()> {
    let Process {
        number,
        pid,
        comm,
        exe,
        cmdline,
        started_ns,
    } = process;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO process (id, pid, comm, exe, cmdline, started_ns) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    insert.execute(params![
        number.0,
        pid,
        bounded(comm),
        bounded(exe),
        bounded(cmdline),
        stored(*started_ns)
    ])?;
    Ok(())
}

pub(super) fn insert_modules(
    transaction: &Transaction<'_>,
    modules: &[Module],
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT OR REPLACE INTO module (id, path, build_id, interpreter) VALUES (?, ?, ?, ?)",
    )?;
    for Module {
        id,
        path,
        build_id,
        interpreter,
    } in modules
    {
        let build_id = build_id.as_deref().map(bounded);
        insert.execute(params![id, bounded(path), build_id, interpreter])?;
    }
    Ok(())
}

pub(super) fn insert_frames(
    transaction: &Transaction<'_>,
    frames: &[Frame],
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT OR REPLACE INTO frame (id, kind, module_id, file_offset) VALUES (?, ?, ?, ?)",
    )?;
    let mut forget = transaction.prepare_cached("DELETE FROM symbol WHERE frame_id = ?")?;
    let mut name = transaction.prepare_cached(
        "INSERT INTO symbol (frame_id, depth, name, file, line) VALUES (?, ?, ?, ?, ?)",
    )?;
    for Frame {
        id,
        kind,
        module,
        offset,
        symbols,
    } in frames
    {
        insert.execute(params![id, kind.name(), module, stored(*offset)])?;
        forget.execute(params![id])?;
        for (depth, symbol) in symbols.iter().enumerate() {
            let file = symbol.file.as_deref().map(bounded);
            name.execute(params![id, depth, bounded(&symbol.name), file, symbol.line])?;
        }
    }
    Ok(())
}

pub(super) fn insert_stacks(
    transaction: &Transaction<'_>,
    stacks: &[Stack],
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT OR REPLACE INTO stack (id, process_id, frames, left_out, walk_end, kind, context_id)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    for Stack {
        id,
        process,
        frames,
        left_out,
        end,
        kind,
        context,
    } in stacks
    {
        let frames = frames.iter().flat_map(|frame| frame.to_le_bytes());
        insert.execute(params![
            id.0,
            process.0,
            frames.collect::<Vec<u8>>(),
            left_out,
            end.name(),
            kind.name(),
            context.map(|context| context.0),
        ])?;
    }
    Ok(())
}

pub(super) fn insert_totals(
    transaction: &Transaction<'_>,
    snapshot: i64,
    totals: &[(StackId, StackTotals)],
) -> rusqlite::Result<()> {
    let mut insert =
        transaction.prepare_cached("INSERT INTO total VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?;
    for (stack, totals) in totals {
        insert.execute(params![
            stack.0,
            snapshot,
            stored(totals.alloc_bytes),
            stored(totals.alloc_objects),
            stored(totals.freed_bytes),
            stored(totals.freed_objects),
            stored(totals.lost_bytes),
            stored(totals.lost_objects),
        ])?;
    }
    Ok(())
}

pub(super) fn insert_mappings(
    transaction: &Transaction<'_>,
    snapshot: i64,
    mappings: &[((MappingOwner, StackId), Figures)],
) -> rusqlite::Result<()> {
    let mut insert =
        transaction.prepare_cached("INSERT INTO mapping_total VALUES (?, ?, ?, ?, ?, ?, ?)")?;
    for ((owner, stack), figures) in mappings {
        insert.execute(params![
            stack.0,
            owner.name(),
            snapshot,
            stored(figures.inuse_bytes),
            stored(figures.inuse_objects),
            stored(figures.alloc_bytes),
            stored(figures.alloc_objects),
        ])?;
    }
    Ok(())
}

pub(super) fn insert_counters(
    transaction: &Transaction<'_>,
    snapshot: i64,
    counters: &[(Counter, u64)],
) -> rusqlite::Result<()> {
    let mut insert = transaction
        .prepare_cached("INSERT INTO counter (name, snapshot_id, value) VALUES (?, ?, ?)")?;
    for (counter, value) in counters {
        insert.execute(params![counter.name(), snapshot, stored(*value)])?;
    }
    Ok(())
}
