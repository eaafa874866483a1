//! Captures that the tests damage.

use rusqlite::Connection;

use super::windows::everything;
use super::*;
use crate::capture::schema::{APPLICATION_ID, DDL_2};

/// A capture with something in every table.
pub(super) fn write_everything(path: &Path) -> TestResult {
    let meta = Meta {
        options: vec![("max-live".into(), "10".into())],
        ..Meta::default()
    };
    let mut writer = Writer::create(path, &meta)?;
    writer.add_process(Process {
        number: ProcessNumber(3),
        pid: 7,
        comm: "app".into(),
        ..Process::default()
    })?;
    writer.write_interval(first_interval())?;
    writer.write_interval(everything(2))?;
    for at_ns in 3..30 {
        let totals = (1..=at_ns as u32)
            .map(|stack| (StackId(stack), allocated(at_ns)))
            .collect();
        writer.write_interval(Interval {
            totals,
            ..interval(at_ns)
        })?;
    }
    writer.end_process(ProcessNumber(3), 8, "killed by signal 9")?;
    writer.note(8, "the target was killed by signal 9")?;
    writer.finish(50)?;
    Ok(())
}

/// A capture as the schema before had it, with what that schema has in common with the tables of
/// today.
pub(super) fn write_version_2(path: &Path) -> TestResult {
    let today = path.with_extension("today");
    write_complete(&today)?;
    let db = Connection::open(path)?;
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    db.pragma_update(None, "user_version", 2)?;
    db.execute_batch(DDL_2)?;
    db.execute("ATTACH ? AS today", [today.to_str()])?;
    for table in [
        "meta",
        "process",
        "module",
        "frame",
        "symbol",
        "stack",
        "snapshot",
        "total",
        "mapping_total",
        "counter",
        "note",
    ] {
        db.execute_batch(&format!("INSERT INTO {table} SELECT * FROM today.{table}"))?;
    }
    Ok(())
}

/// The bytes of some captures: of both schemas, with pages of the usual size and with many small ones.
pub(super) fn all() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let (_directory, path) = place()?;
    write_everything(&path)?;
    let usual = fs::read(&path)?;
    Connection::open(&path)?.execute_batch("PRAGMA page_size = 512; VACUUM")?;
    let small = fs::read(&path)?;
    let old = path.with_extension("2");
    write_version_2(&old)?;
    Ok(vec![usual, small, fs::read(&old)?])
}

/// A capture in the middle of a transaction, and the journal that undoes it.
pub(super) fn cut_off() -> Result<(Vec<u8>, Vec<u8>), Box<dyn Error>> {
    let (directory, path) = place()?;
    write_everything(&path)?;
    let db = Connection::open(&path)?;
    // A small cache spills into the file before the commit, a few pages at a time.
    db.execute_batch(
        "PRAGMA page_size = 512; VACUUM; PRAGMA cache_size = 3; BEGIN IMMEDIATE;
         UPDATE total SET alloc_bytes = alloc_bytes + 1000000;
         DELETE FROM memory; UPDATE window SET tid = tid + 1;
         WITH RECURSIVE n(i) AS (VALUES (99) UNION ALL SELECT i + 1 FROM n WHERE i < 400)
         INSERT INTO total SELECT i, 2, 1, 1, 0, 0, 0, 0 FROM n",
    )?;
    let journal = fs::read(directory.path().join("out.residue-journal"))?;
    Ok((fs::read(&path)?, journal))
}
