//! Takes rows of request windows out of their tables.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Row;

use super::contradiction;
use crate::capture::schema::WITH_WINDOWS;
use crate::capture::tables::Tables;
use crate::capture::{UnboundAt, Windows};
use crate::ids::{ProcessNumber, StackId, WindowNumber};
use crate::requests::head::Method;
use crate::requests::record::{
    Amount, Binding, LeftBehind, MemoryAt, ProcessUnbound, RssPair, Stage, Unbound, WindowEnd,
    WindowRecord,
};
use crate::requests::route::Route;

type Routes = HashMap<i64, Route>;

/// Everything about windows; nothing from a capture older than windows. `snapshots` has the time of each
/// snapshot, in nanoseconds since 1970 UTC.
pub(super) fn load(
    tables: &Tables<'_>,
    snapshots: &BTreeMap<i64, u64>,
    version: u32,
) -> rusqlite::Result<Windows> {
    if version < WITH_WINDOWS {
        return Ok(Windows::default());
    }
    let routes = tables.all("SELECT id, method, template FROM route", |row| {
        Ok((row.get(0)?, route(row)?))
    })?;
    let routes: Routes = routes.into_iter().collect();
    Ok(Windows {
        records: tables.all(
            "SELECT route_id, id, process_id, pid, tid, opened_ns, closed_ns, duration_ns, status,
             request_id, rss_open_bytes, rss_close_bytes, alloc_bytes, alloc_objects,
             retained_bytes, retained_objects, confidence, candidates, ended, survivor_bytes,
             survivor_objects FROM window ORDER BY id",
            |row| Ok((record(row, &routes)?, optional_amount(row, 19)?)),
        )?,
        left_behind: all_left_behind(tables, &routes)?,
        unbound: all_unbound(tables, snapshots)?,
        memory: memory(tables)?,
    })
}

/// Sorted here, because SQLite does not store these rows in the wanted order, and would need room to
/// sort them.
fn all_left_behind(tables: &Tables<'_>, routes: &Routes) -> rusqlite::Result<Vec<LeftBehind>> {
    let mut found = tables.all(
        "SELECT route_id, process_id, status, stage, stack_id, bytes, objects FROM left_behind",
        |row| Ok((row.get(0)?, left_behind(row, routes)?)),
    )?;
    found.sort_by_key(|(route, left): &(i64, LeftBehind)| {
        (
            left.process,
            *route,
            left.status,
            left.stage.name(),
            left.stack,
        )
    });
    Ok(found.into_iter().map(|(_, left)| left).collect())
}

fn all_unbound(
    tables: &Tables<'_>,
    snapshots: &BTreeMap<i64, u64>,
) -> rusqlite::Result<Vec<UnboundAt>> {
    let mut found = tables.all(
        "SELECT snapshot_id, process_id, background_alloc_bytes, background_alloc_objects,
         background_inuse_bytes, background_inuse_objects, ambiguous_alloc_bytes,
         ambiguous_alloc_objects, ambiguous_inuse_bytes, ambiguous_inuse_objects FROM unbound",
        |row| Ok((row.get(0)?, unbound(row)?)),
    )?;
    found.sort_by_key(|(snapshot, unbound): &(i64, ProcessUnbound)| (*snapshot, unbound.process));
    let dated = |(snapshot, unbound)| {
        let at_ns = *snapshots.get(&snapshot)?;
        Some(UnboundAt { at_ns, unbound })
    };
    Ok(found.into_iter().filter_map(dated).collect())
}

fn memory(tables: &Tables<'_>) -> rusqlite::Result<Vec<MemoryAt>> {
    let sql = "SELECT process_id, at_ns, unbound_bytes, resident_bytes FROM memory";
    let mut found = tables.all(sql, |row| {
        Ok(MemoryAt {
            process: ProcessNumber(row.get(0)?),
            at_ns: row.get(1)?,
            unbound_bytes: row.get(2)?,
            resident_bytes: row.get(3)?,
        })
    })?;
    found.sort_by_key(|memory: &MemoryAt| (memory.at_ns, memory.process));
    Ok(found)
}

fn route(row: &Row<'_>) -> rusqlite::Result<Route> {
    let method: Option<String> = row.get(1)?;
    let template: Option<String> = row.get(2)?;
    let method = method.as_deref().map(Method::of);
    Ok(Route::stored(method, template.as_deref()))
}

/// The route whose number is in the first column.
fn route_of(row: &Row<'_>, routes: &Routes) -> rusqlite::Result<Route> {
    let id: i64 = row.get(0)?;
    let route = routes.get(&id).cloned();
    route.ok_or_else(|| contradiction(0, format!("there is no route {id}")))
}

fn record(row: &Row<'_>, routes: &Routes) -> rusqlite::Result<WindowRecord> {
    let (open, close): (Option<u64>, Option<u64>) = (row.get(10)?, row.get(11)?);
    let (confidence, ended) = (row.get_ref(16)?.as_str()?, row.get_ref(18)?.as_str()?);
    let binding = Binding::from_name(confidence, row.get(17)?);
    let end = WindowEnd::from_name(ended);
    Ok(WindowRecord {
        window: WindowNumber(row.get(1)?),
        process: ProcessNumber(row.get(2)?),
        pid: row.get(3)?,
        tid: row.get(4)?,
        opened_ns: row.get(5)?,
        closed_ns: row.get(6)?,
        duration_ns: row.get(7)?,
        route: route_of(row, routes)?,
        // Zero is no status, whatever a server says: in `left_behind` it stands for no status.
        status: row.get::<_, Option<u16>>(8)?.filter(|status| *status != 0),
        request_id: row.get(9)?,
        rss: (open.zip(close)).map(|(open, close)| RssPair { open, close }),
        allocated: amount(row, 12)?,
        retained: amount(row, 14)?,
        binding: binding
            .ok_or_else(|| contradiction(16, format!("a window was bound as `{confidence}`")))?,
        end: end.ok_or_else(|| contradiction(18, format!("a window ended as `{ended}`")))?,
    })
}

fn left_behind(row: &Row<'_>, routes: &Routes) -> rusqlite::Result<LeftBehind> {
    let status: u16 = row.get(2)?;
    let stage = row.get_ref(3)?.as_str()?;
    Ok(LeftBehind {
        process: ProcessNumber(row.get(1)?),
        route: route_of(row, routes)?,
        status: (status != 0).then_some(status),
        stage: Stage::from_name(stage)
            .ok_or_else(|| contradiction(3, format!("memory was left behind at `{stage}`")))?,
        stack: StackId(row.get(4)?),
        amount: amount(row, 5)?,
    })
}

fn unbound(row: &Row<'_>) -> rusqlite::Result<ProcessUnbound> {
    let pair = |at| -> rusqlite::Result<Unbound> {
        Ok(Unbound {
            allocated: amount(row, at)?,
            outstanding: amount(row, at + 2)?,
        })
    };
    Ok(ProcessUnbound {
        process: ProcessNumber(row.get(1)?),
        background: pair(2)?,
        ambiguous: pair(6)?,
    })
}

/// The amount in this column and the next.
fn amount(row: &Row<'_>, at: usize) -> rusqlite::Result<Amount> {
    Ok(Amount {
        bytes: row.get(at)?,
        objects: row.get(at + 1)?,
    })
}

fn optional_amount(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Amount>> {
    let (bytes, objects): (Option<u64>, Option<u64>) = (row.get(at)?, row.get(at + 1)?);
    Ok((bytes.zip(objects)).map(|(bytes, objects)| Amount { bytes, objects }))
}
