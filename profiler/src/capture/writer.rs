//! Writes a capture while the recording goes on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use residue_ebpf::abi::counters::Counter;
use residue_ebpf::abi::heap::StackTotals;
use rusqlite::{Transaction, params};

use crate::capture::kept::{Kept, Row};
use crate::capture::lock::Locked;
use crate::capture::place::Place;
use crate::capture::rows::{self, RouteIds, stored};
use crate::capture::schema::{APPLICATION_ID, DDL, SCHEMA_VERSION};
use crate::capture::vfs::Database;
use crate::capture::{CaptureError, Figures, Interval, MappingOwner, MappingTotals, Meta, Process};
use crate::ids::{ProcessNumber, StackId};
use crate::private_file::Given;
use crate::requests::record::{ProcessUnbound, Unbound};
use crate::requests::route::Route;

/// How long the writer waits for somebody who reads the capture. What it cannot write by then it keeps, and
/// writes later: a recorder has other things to do.
const PATIENCE: Duration = Duration::from_millis(50);
/// The same at the end, where no later write follows.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Writes one capture. Dropping it without [`Writer::finish`] leaves a capture that reads as cut
/// off.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    db: Database,
    written: Written,
    kept: Kept,
    given: Given,
}

/// What the file has. Figures that did not change since are not written again.
#[derive(Debug, Default)]
struct Written {
    /// The last snapshot.
    snapshot: i64,
    totals: HashMap<StackId, StackTotals>,
    mappings: HashMap<(MappingOwner, StackId), Figures>,
    counters: HashMap<Counter, u64>,
    routes: RouteIds,
    unbound: HashMap<ProcessNumber, (Unbound, Unbound)>,
}

/// What an interval changes in the file, beside the rows that it only adds.
struct Changes {
    snapshot: i64,
    totals: Vec<(StackId, StackTotals)>,
    mappings: Vec<((MappingOwner, StackId), Figures)>,
    counters: Vec<(Counter, u64)>,
    new_routes: Vec<(i64, Route)>,
    /// All routes, with the new ones.
    routes: RouteIds,
    unbound: Vec<(ProcessNumber, (Unbound, Unbound))>,
}

impl Writer {
    /// Begins a capture at `path`, readable by its owner only. Replaces an older capture there.
    ///
    /// # Errors
    ///
    /// [`CaptureError::WouldOverwrite`] or [`CaptureError::InTheWay`] when something else is there,
    /// [`CaptureError::JournalInTheWay`] when a journal is, [`CaptureError::InUse`] when another recorder
    /// writes there.
    pub fn create(path: &Path, meta: &Meta) -> Result<Self, CaptureError> {
        let place = Place::open(path)?;
        place.clear()?;
        let capture = place.make_capture()?;
        let given = capture.given;
        let journal = place.make_journal(&capture)?;
        let capture = Locked::new(capture.keep());
        let db =
            Database::open(capture, journal).map_err(|error| CaptureError::sqlite(path, error))?;
        let mut writer = Self {
            path: path.to_owned(),
            db,
            written: Written::default(),
            kept: Kept::default(),
            given,
        };
        writer.begin(meta)?;
        Ok(writer)
    }

    /// Whether the file belongs to the user who called sudo, if somebody did.
    #[must_use]
    pub fn given(&self) -> Given {
        self.given
    }

    /// Adds a process whose recording begins.
    ///
    /// # Errors
    ///
    /// When the writer cannot write the file, as for every method here. While somebody reads the file, the
    /// writer keeps the rows, which is no error for a minute.
    pub fn add_process(&mut self, process: Process) -> Result<(), CaptureError> {
        self.write_row(Row::Process(process))
    }

    /// Marks a process as ended, with a reason for a person ("exited", "killed by
    /// signal 9").
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn end_process(
        &mut self,
        process: ProcessNumber,
        at_ns: u64,
        reason: &str,
    ) -> Result<(), CaptureError> {
        let reason = reason.to_owned();
        self.write_row(Row::End {
            process,
            at_ns,
            reason,
        })
    }

    /// Adds a remark for the reader of the report.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn note(&mut self, at_ns: u64, text: &str) -> Result<(), CaptureError> {
        let text = text.to_owned();
        self.write_row(Row::Note { at_ns, text })
    }

    /// Writes an interval as one transaction: after an error, or a kill, nothing of it is in the file.
    ///
    /// # Errors
    ///
    /// [`CaptureError::DiskFull`] when there is no room; the intervals before are safe.
    pub fn write_interval(&mut self, interval: Interval) -> Result<(), CaptureError> {
        self.kept.add(interval);
        self.write_if_free()
    }

    /// Marks the capture as complete and closes it.
    ///
    /// # Errors
    ///
    /// When the writer cannot write the file; the capture then reads as cut off.
    pub fn finish(mut self, ended_ns: u64) -> Result<(), CaptureError> {
        self.wait_for_readers(LAST_PATIENCE)?;
        self.write_kept()?;
        in_transaction(&mut self.db, &self.path, |transaction| {
            rows::insert_meta(transaction, "ended_ns", &ended_ns.to_string())
        })
    }

    /// Writes what has waited elsewhere.
    pub(super) fn write_all(&mut self, kept: Kept) -> Result<(), CaptureError> {
        self.kept.append(kept);
        self.write_if_free()
    }

    fn write_row(&mut self, row: Row) -> Result<(), CaptureError> {
        self.kept.rows.push(row);
        self.write_if_free()
    }

    fn write_if_free(&mut self) -> Result<(), CaptureError> {
        match self.write_kept() {
            Err(CaptureError::Held { .. }) if self.kept.may_wait() => Ok(()),
            written => written,
        }
    }

    /// Writes all that the writer keeps, or nothing.
    fn write_kept(&mut self) -> Result<(), CaptureError> {
        let Kept { rows, interval, .. } = &self.kept;
        let interval = interval.as_ref();
        let news = interval.map(|interval| (interval, self.written.changes(interval)));
        in_transaction(&mut self.db, &self.path, |transaction| {
            rows::insert_rows(transaction, rows)?;
            news.iter()
                .try_for_each(|(interval, changes)| changes.write(transaction, interval))
        })?;
        if let Some((_, changes)) = news {
            self.written.add(changes);
        }
        self.kept = Kept::default();
        Ok(())
    }

    fn wait_for_readers(&mut self, patience: Duration) -> Result<(), CaptureError> {
        let set = self.db.connection().busy_timeout(patience);
        set.map_err(|error| CaptureError::sqlite(&self.path, error))
    }

    fn begin(&mut self, meta: &Meta) -> Result<(), CaptureError> {
        self.wait_for_readers(PATIENCE)?;
        in_transaction(&mut self.db, &self.path, |transaction| {
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
}

impl Written {
    fn changes(&self, interval: &Interval) -> Changes {
        let mut routes = self.routes.clone();
        let of_windows = interval.windows.iter().map(|window| &window.route);
        let left_behind = interval.left_behind.iter().map(|left| &left.route);
        let mappings = interval.mappings.iter().map(mapping_entry);
        let unbound = interval.unbound.iter().map(unbound_entry);
        Changes {
            snapshot: self.snapshot + 1,
            totals: changed(interval.totals.iter().copied(), &self.totals),
            mappings: changed(mappings, &self.mappings),
            counters: changed(interval.counters.iter().copied(), &self.counters),
            new_routes: routes.add(of_windows.chain(left_behind)),
            routes,
            unbound: changed(unbound, &self.unbound),
        }
    }

    fn add(&mut self, changes: Changes) {
        self.snapshot = changes.snapshot;
        self.totals.extend(changes.totals);
        self.mappings.extend(changes.mappings);
        self.counters.extend(changes.counters);
        self.routes = changes.routes;
        self.unbound.extend(changes.unbound);
    }
}

impl Changes {
    /// Writes the changes, and the rows that `interval` adds.
    fn write(&self, transaction: &Transaction<'_>, interval: &Interval) -> rusqlite::Result<()> {
        let Interval {
            at_ns,
            modules,
            frames,
            stacks,
            windows,
            survivors,
            left_behind,
            memory,
            // The changes of these are in `self`.
            totals: _,
            mappings: _,
            counters: _,
            unbound: _,
        } = interval;
        let (snapshot, routes) = (self.snapshot, &self.routes);
        transaction.execute(
            "INSERT INTO snapshot (id, at_ns) VALUES (?, ?)",
            params![snapshot, stored(*at_ns)],
        )?;
        rows::insert_modules(transaction, modules)?;
        rows::insert_frames(transaction, frames)?;
        rows::insert_stacks(transaction, stacks)?;
        rows::insert_totals(transaction, snapshot, &self.totals)?;
        rows::insert_mappings(transaction, snapshot, &self.mappings)?;
        rows::insert_counters(transaction, snapshot, &self.counters)?;
        rows::insert_routes(transaction, &self.new_routes)?;
        rows::insert_windows(transaction, routes, windows)?;
        rows::insert_survivors(transaction, survivors)?;
        rows::insert_left_behind(transaction, routes, left_behind)?;
        rows::insert_unbound(transaction, snapshot, &self.unbound)?;
        rows::insert_memory(transaction, memory)
    }
}

fn in_transaction(
    db: &mut Database,
    path: &Path,
    write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
) -> Result<(), CaptureError> {
    let transaction = db.connection().transaction();
    transaction
        .and_then(|transaction| {
            write(&transaction)?;
            transaction.commit()
        })
        .map_err(|error| CaptureError::sqlite(path, error))
}

fn mapping_entry(totals: &MappingTotals) -> ((MappingOwner, StackId), Figures) {
    let MappingTotals {
        stack,
        owner,
        figures,
    } = *totals;
    ((owner, stack), figures)
}

fn unbound_entry(it: &ProcessUnbound) -> (ProcessNumber, (Unbound, Unbound)) {
    let ProcessUnbound {
        process,
        background,
        ambiguous,
    } = *it;
    (process, (background, ambiguous))
}

/// The entries that differ from what the writer last wrote. An entry that was never written counts as all
/// zero.
fn changed<K, V>(now: impl Iterator<Item = (K, V)>, written: &HashMap<K, V>) -> Vec<(K, V)>
where
    K: Eq + std::hash::Hash,
    V: Default + PartialEq,
{
    let zero = V::default();
    now.filter(|(key, value)| written.get(key).unwrap_or(&zero) != value)
        .collect()
}
