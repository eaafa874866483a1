//! Puts rows of request windows into their tables.

use std::collections::HashMap;

use rusqlite::{Statement, Transaction, params};

use super::{bounded, stored};
use crate::ids::ProcessNumber;
use crate::requests::record::{
    Amount, LeftBehind, MemoryAt, RssPair, Survived, Unbound, WindowRecord,
};
use crate::requests::route::Route;

/// The numbers of all routes that the writer has written. The session bounds how many there are.
#[derive(Clone, Debug, Default)]
pub(in crate::capture) struct RouteIds(HashMap<Route, i64>);

impl RouteIds {
    /// Gives a number to each route that has none, and returns those routes.
    pub(in crate::capture) fn add<'a>(
        &mut self,
        routes: impl Iterator<Item = &'a Route>,
    ) -> Vec<(i64, Route)> {
        let mut new = Vec::new();
        for route in routes {
            if !self.0.contains_key(route) {
                let id = self.0.len() as i64;
                self.0.insert(route.clone(), id);
                new.push((id, route.clone()));
            }
        }
        new
    }

    fn of(&self, route: &Route) -> i64 {
        *self.0.get(route).expect("all routes were added before")
    }
}

pub(in crate::capture) fn insert_routes(
    transaction: &Transaction<'_>,
    routes: &[(i64, Route)],
) -> rusqlite::Result<()> {
    let mut insert = transaction
        .prepare_cached("INSERT OR REPLACE INTO route (id, method, template) VALUES (?, ?, ?)")?;
    for (id, route) in routes {
        let (method, template) = route.to_stored();
        insert.execute(params![
            id,
            method.map(|method| method.name()),
            template.map(bounded)
        ])?;
    }
    Ok(())
}

pub(in crate::capture) fn insert_windows(
    transaction: &Transaction<'_>,
    routes: &RouteIds,
    windows: &[WindowRecord],
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT OR REPLACE INTO window (id, process_id, pid, tid, route_id, status, request_id,
         opened_ns, closed_ns, duration_ns, rss_open_bytes, rss_close_bytes, alloc_bytes,
         alloc_objects, retained_bytes, retained_objects, confidence, candidates, ended)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut windows = windows.iter();
    windows.try_for_each(|window| insert_window(&mut insert, routes, window))
}

fn insert_window(
    insert: &mut Statement<'_>,
    routes: &RouteIds,
    record: &WindowRecord,
) -> rusqlite::Result<()> {
    let WindowRecord {
        window,
        process,
        pid,
        tid,
        opened_ns,
        closed_ns,
        duration_ns,
        route,
        status,
        request_id,
        rss,
        allocated,
        retained,
        binding,
        end,
    } = record;
    let [open, close] = match *rss {
        Some(RssPair { open, close }) => [open, close].map(|bytes| Some(stored(bytes))),
        None => [None; 2],
    };
    insert.execute(params![
        stored(window.0),
        process.0,
        pid,
        tid,
        routes.of(route),
        status,
        request_id.as_deref().map(bounded),
        stored(*opened_ns),
        stored(*closed_ns),
        duration_ns.map(stored),
        open,
        close,
        stored(allocated.bytes),
        stored(allocated.objects),
        stored(retained.bytes),
        stored(retained.objects),
        binding.name(),
        binding.candidates(),
        end.name(),
    ])?;
    Ok(())
}

/// Fills in what survived. A window without a row has nothing to fill in.
pub(in crate::capture) fn insert_survivors(
    transaction: &Transaction<'_>,
    survivors: &[Survived],
) -> rusqlite::Result<()> {
    let mut fill_in = transaction.prepare_cached(
        "UPDATE window SET survivor_bytes = ?, survivor_objects = ? WHERE id = ?",
    )?;
    for Survived { window, amount, .. } in survivors {
        let Amount { bytes, objects } = amount;
        fill_in.execute(params![stored(*bytes), stored(*objects), stored(window.0)])?;
    }
    Ok(())
}

/// Adds up what windows left behind. SQLite turns a sum beyond its integers into a real number, so
/// sums stop before.
pub(in crate::capture) fn insert_left_behind(
    transaction: &Transaction<'_>,
    routes: &RouteIds,
    left_behind: &[LeftBehind],
) -> rusqlite::Result<()> {
    let mut add = transaction.prepare_cached(
        "INSERT INTO left_behind (process_id, route_id, status, stage, stack_id, bytes, objects)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET
             bytes = min(bytes + excluded.bytes, 9223372036854775807),
             objects = min(objects + excluded.objects, 9223372036854775807)",
    )?;
    for LeftBehind {
        process,
        route,
        status,
        stage,
        stack,
        amount,
    } in left_behind
    {
        add.execute(params![
            process.0,
            routes.of(route),
            status.unwrap_or(0),
            stage.name(),
            stack.0,
            stored(amount.bytes),
            stored(amount.objects),
        ])?;
    }
    Ok(())
}

pub(in crate::capture) fn insert_unbound(
    transaction: &Transaction<'_>,
    snapshot: i64,
    unbound: &[(ProcessNumber, (Unbound, Unbound))],
) -> rusqlite::Result<()> {
    let mut insert =
        transaction.prepare_cached("INSERT INTO unbound VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    for (process, (background, ambiguous)) in unbound {
        insert.execute(params![
            process.0,
            snapshot,
            stored(background.allocated.bytes),
            stored(background.allocated.objects),
            stored(background.outstanding.bytes),
            stored(background.outstanding.objects),
            stored(ambiguous.allocated.bytes),
            stored(ambiguous.allocated.objects),
            stored(ambiguous.outstanding.bytes),
            stored(ambiguous.outstanding.objects),
        ])?;
    }
    Ok(())
}

pub(in crate::capture) fn insert_memory(
    transaction: &Transaction<'_>,
    memory: &[MemoryAt],
) -> rusqlite::Result<()> {
    let mut insert =
        transaction.prepare_cached("INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?)")?;
    for MemoryAt {
        process,
        at_ns,
        unbound_bytes,
        resident_bytes,
    } in memory
    {
        insert.execute(params![
            process.0,
            stored(*at_ns),
            unbound_bytes.map(stored),
            resident_bytes.map(stored),
        ])?;
    }
    Ok(())
}
