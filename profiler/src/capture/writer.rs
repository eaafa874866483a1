//! Writes a capture while the recording goes on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use residue_ebpf::abi::counters::Counter;
use residue_ebpf::abi::heap::StackTotals;
use rusqlite::{Transaction, params};

use crate::capture::lock::Locked;
use crate::capture::place::Place;
use crate::capture::rows::{self, RouteIds, bounded, stored};
use crate::capture::schema::{APPLICATION_ID, DDL, SCHEMA_VERSION};
use crate::capture::vfs::Database;
use crate::capture::{CaptureError, Figures, Interval, MappingOwner, MappingTotals, Meta, Process};
use crate::window::record::{ProcessUnbound, Unbound};

/// How long to wait for somebody who reads the capture while it is written. Readers are short;
/// whoever holds the file longer than this ends the recording with an error rather than stalling it.
const READER_PATIENCE: Duration = Duration::from_secs(5);

/// Writes one capture. Dropping it without [`Writer::finish`] leaves a capture that reads as cut
/// off.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    db: Database,
    snapshot: i64,
    totals: HashMap<u32, StackTotals>,
    mappings: HashMap<(MappingOwner, u32), Figures>,
    counters: HashMap<Counter, u64>,
    routes: RouteIds,
    unbound: HashMap<u16, (Unbound, Unbound)>,
}

impl Writer {
    /// Begins a capture at `path`, readable by its owner only. An older capture there is replaced.
    ///
    /// # Errors
    ///
    /// [`CaptureError::WouldOverwrite`] or [`CaptureError::InTheWay`] when something else is there,
    /// [`CaptureError::JournalInTheWay`] when a journal is, [`CaptureError::InUse`] when another recorder
    /// writes there.
    pub fn create(path: &Path, meta: &Meta) -> Result<Self, CaptureError> {
        let place = Place::open(path)?;
        place.clear()?;
        let journal = place.make_journal()?;
        let capture = Locked::new(place.make_capture()?);
        let db =
            Database::open(capture, journal).map_err(|error| CaptureError::sqlite(path, error))?;
        let mut writer = Self {
            path: path.to_owned(),
            db,
            snapshot: 0,
            totals: HashMap::new(),
            mappings: HashMap::new(),
            counters: HashMap::new(),
            routes: RouteIds::default(),
            unbound: HashMap::new(),
        };
        writer.begin(meta)?;
        Ok(writer)
    }

    /// Adds a process that is recorded from now on.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, as for every method here.
    pub fn add_process(&mut self, process: &Process) -> Result<(), CaptureError> {
        let Process {
            slot,
            pid,
            comm,
            exe,
            cmdline,
            started_ns,
        } = process;
        self.in_transaction(|transaction| {
            transaction.execute(
                "INSERT INTO process (id, pid, comm, exe, cmdline, started_ns)
                 VALUES (?, ?, ?, ?, ?, ?)",
                params![
                    slot,
                    pid,
                    bounded(comm),
                    bounded(exe),
                    bounded(cmdline),
                    stored(*started_ns)
                ],
            )?;
            Ok(())
        })
    }

    /// Marks the process in `slot` as ended, with a reason for a person ("exited", "killed by
    /// signal 9").
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn end_process(&mut self, slot: u16, at_ns: u64, reason: &str) -> Result<(), CaptureError> {
        self.in_transaction(|transaction| {
            transaction.execute(
                "UPDATE process SET ended_ns = ?, end_reason = ? WHERE id = ?",
                params![stored(at_ns), bounded(reason), slot],
            )?;
            Ok(())
        })
    }

    /// Adds a remark for the reader of the report.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn note(&mut self, at_ns: u64, text: &str) -> Result<(), CaptureError> {
        self.in_transaction(|transaction| {
            transaction.execute(
                "INSERT INTO note (at_ns, text) VALUES (?, ?)",
                params![stored(at_ns), bounded(text)],
            )?;
            Ok(())
        })
    }

    /// Writes an interval as one transaction: after an error, or a kill, none of it is there.
    ///
    /// # Errors
    ///
    /// [`CaptureError::DiskFull`] when there is no room; the intervals before are safe.
    pub fn write_interval(&mut self, interval: &Interval) -> Result<(), CaptureError> {
        let Interval {
            at_ns,
            modules,
            frames,
            stacks,
            totals,
            mappings,
            counters,
            windows,
            survivors,
            left_behind,
            unbound,
            memory,
        } = interval;
        let totals = changed(totals.iter().copied(), &self.totals);
        let mappings = changed(mappings.iter().map(mapping_entry), &self.mappings);
        let counters = changed(counters.iter().copied(), &self.counters);
        let unbound = changed(unbound.iter().map(unbound_entry), &self.unbound);
        let mut routes = self.routes.clone();
        let of_windows = windows.iter().map(|it| &it.route);
        let new_routes = routes.add(of_windows.chain(left_behind.iter().map(|it| &it.route)));
        let snapshot = self.snapshot + 1;
        self.in_transaction(|transaction| {
            transaction.execute(
                "INSERT INTO snapshot (id, at_ns) VALUES (?, ?)",
                params![snapshot, stored(*at_ns)],
            )?;
            rows::insert_modules(transaction, modules)?;
            rows::insert_frames(transaction, frames)?;
            rows::insert_stacks(transaction, stacks)?;
            rows::insert_totals(transaction, snapshot, &totals)?;
            rows::insert_mappings(transaction, snapshot, &mappings)?;
            rows::insert_counters(transaction, snapshot, &counters)?;
            rows::insert_routes(transaction, &new_routes)?;
            rows::insert_windows(transaction, &routes, windows)?;
            rows::insert_survivors(transaction, survivors)?;
            rows::insert_left_behind(transaction, &routes, left_behind)?;
            rows::insert_unbound(transaction, snapshot, &unbound)?;
            rows::insert_memory(transaction, memory)
        })?;
        self.snapshot = snapshot;
        self.totals.extend(totals);
        self.mappings.extend(mappings);
        self.counters.extend(counters);
        self.routes = routes;
        self.unbound.extend(unbound);
        Ok(())
    }

    /// Marks the capture as complete and closes it.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; it then reads as cut off.
    pub fn finish(mut self, ended_ns: u64) -> Result<(), CaptureError> {
        self.in_transaction(|transaction| {
            rows::insert_meta(transaction, "ended_ns", &ended_ns.to_string())
        })
    }

    fn begin(&mut self, meta: &Meta) -> Result<(), CaptureError> {
        self.db
            .connection()
            .busy_timeout(READER_PATIENCE)
            .map_err(|error| CaptureError::sqlite(&self.path, error))?;
        self.in_transaction(|transaction| {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.execute_batch(DDL)?;
            let Meta {
                version,
                kernel,
                command,
                started_ns,
                options,
            } = meta;
            rows::insert_meta(transaction, "residue_version", version)?;
            rows::insert_meta(transaction, "kernel", kernel)?;
            rows::insert_meta(transaction, "command", command)?;
            rows::insert_meta(transaction, "started_ns", &started_ns.to_string())?;
            options.iter().try_for_each(|(key, value)| {
                rows::insert_meta(transaction, &format!("option.{key}"), value)
            })
        })
    }

    fn in_transaction(
        &mut self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), CaptureError> {
        let transaction = self.db.connection().transaction();
        transaction
            .and_then(|transaction| {
                write(&transaction)?;
                transaction.commit()
            })
            .map_err(|error| CaptureError::sqlite(&self.path, error))
    }
}

fn mapping_entry(totals: &MappingTotals) -> ((MappingOwner, u32), Figures) {
    let MappingTotals {
        stack,
        owner,
        figures,
    } = *totals;
    ((owner, stack), figures)
}

fn unbound_entry(it: &ProcessUnbound) -> (u16, (Unbound, Unbound)) {
    let ProcessUnbound {
        process,
        background,
        ambiguous,
    } = *it;
    (process, (background, ambiguous))
}

/// The entries that are not as they were last written. What was never written counts as all zero.
fn changed<K, V>(now: impl Iterator<Item = (K, V)>, written: &HashMap<K, V>) -> Vec<(K, V)>
where
    K: Eq + std::hash::Hash,
    V: Default + PartialEq,
{
    let zero = V::default();
    now.filter(|(key, value)| written.get(key).unwrap_or(&zero) != value)
        .collect()
}
