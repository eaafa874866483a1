//! Captures written, cut, damaged and read again, without a target or privileges.

mod crafted;
mod fuzz;
mod journals;
mod places;
mod samples;
mod shared;
mod windows;

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use residue_ebpf::abi::counters::Counter;
use residue_ebpf::abi::event::WalkEnd;
use residue_ebpf::abi::heap::{StackKind, StackTotals};
use tempfile::TempDir;

use super::{
    CaptureError, Ended, Figures, Frame, FrameKind, Interval, MappingOwner, MappingTotals, Meta,
    Module, Process, SCHEMA_VERSION, Stack, Writer, read,
};
use crate::ids::{ProcessNumber, StackId, WindowNumber};
use crate::symbolize::Symbol;

type TestResult = Result<(), Box<dyn Error>>;

fn place() -> Result<(TempDir, PathBuf), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("out.residue");
    Ok((directory, path))
}

fn allocated(bytes: u64) -> StackTotals {
    StackTotals {
        alloc_bytes: bytes,
        alloc_objects: 1,
        ..StackTotals::default()
    }
}

fn interval(at_ns: u64) -> Interval {
    Interval {
        at_ns,
        totals: vec![(StackId(1), allocated(100 * at_ns))],
        ..Interval::default()
    }
}

fn first_interval() -> Interval {
    let symbol = Symbol {
        name: "keep".into(),
        file: Some("app.c".into()),
        line: Some(7),
    };
    Interval {
        at_ns: 1,
        modules: vec![Module {
            id: 0,
            path: "/usr/bin/app".into(),
            build_id: Some("c0ffee".into()),
            interpreter: true,
        }],
        frames: vec![
            Frame {
                id: 0,
                kind: FrameKind::Native,
                module: Some(0),
                offset: 0x1234,
                symbols: vec![symbol],
            },
            Frame {
                id: 1,
                kind: FrameKind::Python,
                module: None,
                offset: 0x7f00_0000_1000,
                symbols: vec![],
            },
        ],
        stacks: vec![Stack {
            id: StackId(1),
            process: ProcessNumber(3),
            frames: vec![0, 1],
            left_out: 7,
            end: WalkEnd::Unreadable,
            kind: StackKind::PythonPools,
            context: Some(StackId(2)),
        }],
        totals: vec![(StackId(1), allocated(100))],
        mappings: vec![MappingTotals {
            stack: StackId(1),
            owner: MappingOwner::Application,
            figures: Figures {
                inuse_bytes: 4096,
                inuse_objects: 1,
                alloc_bytes: 8192,
                alloc_objects: 2,
            },
        }],
        counters: vec![(Counter::MissedFree, 2), (Counter::FreeUnmatched, 0)],
        ..Interval::default()
    }
}

fn write_complete(path: &Path) -> Result<(), CaptureError> {
    let mut writer = Writer::create(path, &Meta::default())?;
    writer.write_interval(first_interval())?;
    for at_ns in 2..40 {
        writer.write_interval(interval(at_ns))?;
    }
    writer.finish(50)
}

#[test]
fn what_was_written_is_read_again() -> TestResult {
    let (_directory, path) = place()?;
    let meta = Meta {
        version: "0.1.0".into(),
        kernel: "6.18".into(),
        command: "residue record -p 7".into(),
        started_ns: 5,
        options: vec![("max-live".into(), "10".into())],
    };
    let process = Process {
        number: ProcessNumber(3),
        pid: 7,
        comm: "app".into(),
        ..Process::default()
    };
    let written = first_interval();

    let mut writer = Writer::create(&path, &meta)?;
    writer.add_process(process.clone())?;
    writer.write_interval(written.clone())?;
    writer.end_process(ProcessNumber(3), 8, "killed by signal 9")?;
    writer.note(8, "the target was killed by signal 9")?;
    writer.finish(9)?;

    let capture = read(&path)?;
    assert_eq!(capture.meta, meta);
    assert_eq!(capture.ended_ns, Some(9));
    let ended = Ended {
        at_ns: 8,
        reason: "killed by signal 9".into(),
    };
    assert_eq!(capture.processes, [(process, Some(ended))]);
    assert_eq!(capture.modules, written.modules);
    assert_eq!(capture.frames, written.frames);
    assert_eq!(capture.stacks, written.stacks);
    assert_eq!(capture.totals, written.totals);
    assert_eq!(capture.mappings, written.mappings);
    assert_eq!(capture.counters, [("missed_free".to_owned(), 2)]);
    assert_eq!(capture.notes[0].text, "the target was killed by signal 9");
    Ok(())
}

#[test]
fn the_file_is_for_its_owner_only_and_stands_alone() -> TestResult {
    let (directory, path) = place()?;
    write_complete(&path)?;
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path())?.count(), 1);
    Ok(())
}

#[test]
fn numbers_of_processes_are_32_bits_wide() -> TestResult {
    let (_directory, path) = place()?;
    let numbers = [0, 65_536, u32::MAX].map(ProcessNumber);
    let mut writer = Writer::create(&path, &Meta::default())?;
    for number in numbers {
        writer.add_process(Process {
            number,
            ..Process::default()
        })?;
    }
    writer.finish(1)?;
    let processes = read(&path)?.processes.into_iter();
    let read: Vec<_> = processes.map(|(process, _)| process.number).collect();
    assert_eq!(read, numbers);
    Ok(())
}

#[test]
fn the_last_value_of_each_stack_counts_and_unchanged_ones_are_not_written_again() -> TestResult {
    let (_directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    for (at_ns, second) in [(1, 10), (2, 20), (3, 20)] {
        let totals = vec![
            (StackId(0), allocated(5)),
            (StackId(9), allocated(second)),
            (StackId(4), StackTotals::default()),
        ];
        writer.write_interval(Interval {
            at_ns,
            totals,
            ..Interval::default()
        })?;
    }
    writer.finish(4)?;
    assert_eq!(
        read(&path)?.totals,
        [(StackId(0), allocated(5)), (StackId(9), allocated(20))]
    );
    let db = rusqlite::Connection::open(&path)?;
    let rows: u32 = db.query_row("SELECT count(*) FROM total", [], |row| row.get(0))?;
    assert_eq!(rows, 3);
    Ok(())
}

#[test]
fn a_frame_written_again_gets_its_new_symbols() -> TestResult {
    let (_directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    let mut frame = Frame {
        id: 4,
        kind: FrameKind::Native,
        module: None,
        offset: 1,
        symbols: vec![],
    };
    writer.write_interval(Interval {
        frames: vec![frame.clone()],
        ..Interval::default()
    })?;
    frame.symbols = vec![Symbol {
        name: "late".into(),
        file: None,
        line: None,
    }];
    writer.write_interval(Interval {
        frames: vec![frame.clone()],
        ..Interval::default()
    })?;
    writer.finish(1)?;
    assert_eq!(read(&path)?.frames, [frame]);
    Ok(())
}

#[test]
fn a_recorder_that_died_leaves_all_intervals_it_wrote() -> TestResult {
    let (_directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    writer.write_interval(interval(1))?;
    writer.write_interval(interval(2))?;
    drop(writer);
    let capture = read(&path)?;
    assert_eq!(capture.ended_ns, None);
    assert_eq!(capture.last_ns, 2);
    assert_eq!(capture.totals, [(StackId(1), allocated(200))]);
    Ok(())
}

/// Copies the file and its journal while a transaction is open and its pages are in the file. A
/// kill in the middle of an interval leaves the same behind.
#[test]
fn a_kill_in_mid_interval_loses_that_interval_only() -> TestResult {
    let (directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    writer.write_interval(interval(1))?;
    drop(writer);

    let db = rusqlite::Connection::open(&path)?;
    // A cache of ten pages spills into the file before the commit.
    db.execute_batch("PRAGMA cache_size = 10; BEGIN IMMEDIATE")?;
    db.execute_batch(
        "WITH RECURSIVE n(i) AS (VALUES (2) UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO total SELECT i, 2, 1, 1, 0, 0, 0, 0 FROM n",
    )?;
    let killed = directory.path().join("killed.residue");
    fs::copy(&path, &killed)?;
    let journal = directory.path().join("out.residue-journal");
    assert!(
        fs::metadata(&journal)?.len() > 0,
        "the transaction must have reached the file"
    );
    fs::copy(&journal, directory.path().join("killed.residue-journal"))?;

    assert_eq!(read(&killed)?.totals, [(StackId(1), allocated(100))]);
    let rolled_back = rusqlite::Connection::open(&killed)?;
    let rows: u32 = rolled_back.query_row("SELECT count(*) FROM total", [], |row| row.get(0))?;
    assert_eq!(rows, 1, "SQLite itself finds the same");
    Ok(())
}

#[test]
fn a_capture_can_be_read_while_it_is_written() -> TestResult {
    let (_directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    writer.write_interval(interval(1))?;
    assert_eq!(read(&path)?.last_ns, 1);
    writer.write_interval(interval(2))?;
    assert_eq!(read(&path)?.last_ns, 2);
    Ok(())
}

#[test]
fn a_newer_schema_is_refused_with_the_fix() -> TestResult {
    let (_directory, path) = place()?;
    write_complete(&path)?;
    rusqlite::Connection::open(&path)?.pragma_update(None, "user_version", SCHEMA_VERSION + 1)?;
    let error = read(&path).unwrap_err();
    assert!(
        matches!(error, CaptureError::NewerSchema { found, .. } if found == SCHEMA_VERSION + 1)
    );
    assert!(error.to_string().ends_with("upgrade residue"));
    Ok(())
}

#[test]
fn a_truncated_capture_is_refused_at_every_length() -> TestResult {
    let (_directory, path) = place()?;
    write_complete(&path)?;
    let whole = fs::metadata(&path)?.len();
    for length in [
        1,
        15,
        16,
        99,
        100,
        101,
        4095,
        4096,
        5000,
        whole / 2,
        whole - 4096,
        whole - 1,
    ] {
        let cut = path.with_extension("cut");
        fs::copy(&path, &cut)?;
        File::options().write(true).open(&cut)?.set_len(length)?;
        let error = read(&cut).unwrap_err();
        assert!(
            matches!(error, CaptureError::Truncated { .. }),
            "at {length}: {error}"
        );
    }
    File::options().write(true).open(&path)?.set_len(0)?;
    assert!(matches!(
        read(&path).unwrap_err(),
        CaptureError::Empty { .. }
    ));
    Ok(())
}

#[test]
fn a_damaged_capture_is_an_error_and_never_a_panic() -> TestResult {
    let (_directory, path) = place()?;
    write_complete(&path)?;
    let whole = fs::read(&path)?;
    let mut refused = 0;
    for page in 1..whole.len() / 4096 {
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0xa5);
        fs::write(&path, &damaged)?;
        match read(&path) {
            Ok(_) => {}
            Err(CaptureError::Damaged { .. }) => refused += 1,
            Err(other) => return Err(other.into()),
        }
    }
    assert!(refused >= 8, "only {refused} damages were seen");
    Ok(())
}

#[test]
fn values_that_cannot_be_are_refused() -> TestResult {
    for damage in [
        "UPDATE stack SET frames = x'010203'",
        "UPDATE stack SET walk_end = 'nowhere'",
        "UPDATE total SET alloc_bytes = -1",
        "UPDATE module SET path = x'ff'",
    ] {
        let (_directory, path) = place()?;
        write_complete(&path)?;
        rusqlite::Connection::open(&path)?.execute_batch(damage)?;
        let error = read(&path).unwrap_err();
        assert!(
            matches!(error, CaptureError::Damaged { .. }),
            "{damage}: {error}"
        );
    }
    Ok(())
}

#[test]
fn other_files_are_refused_and_left_alone() -> TestResult {
    let (directory, path) = place()?;
    assert!(matches!(
        read(&path).unwrap_err(),
        CaptureError::Missing { .. }
    ));
    fs::write(&path, "a text that somebody needs")?;
    assert!(matches!(
        read(&path).unwrap_err(),
        CaptureError::NotACapture { .. }
    ));
    let error = Writer::create(&path, &Meta::default()).unwrap_err();
    assert!(matches!(error, CaptureError::WouldOverwrite { .. }));
    assert_eq!(fs::read_to_string(&path)?, "a text that somebody needs");
    let nowhere = directory.path().join("missing/out.residue");
    let error = Writer::create(&nowhere, &Meta::default()).unwrap_err();
    assert!(matches!(error, CaptureError::NoDirectory { .. }));
    Ok(())
}

#[test]
fn an_old_capture_is_replaced_unless_it_is_being_written() -> TestResult {
    let (_directory, path) = place()?;
    write_complete(&path)?;
    let writer = Writer::create(&path, &Meta::default())?;
    assert!(read(&path)?.totals.is_empty());
    let error = Writer::create(&path, &Meta::default()).unwrap_err();
    assert!(matches!(error, CaptureError::InUse { .. }));
    drop(writer);
    Writer::create(&path, &Meta::default())?;
    Ok(())
}

/// Needs root to mount a tmpfs of 256 KiB; the error is the same on any file system.
#[test]
fn a_full_disk_is_named_and_earlier_intervals_stay() -> TestResult {
    let directory = tempfile::tempdir()?;
    let Some(disk) = SmallDisk::mount(directory.path()) else {
        eprintln!("skipped: a tmpfs cannot be mounted here, run as root");
        return Ok(());
    };
    let path = disk.0.join("out.residue");
    let mut writer = Writer::create(&path, &Meta::default())?;
    writer.write_interval(interval(1))?;
    let totals = (1..20_000)
        .map(|stack| (StackId(stack), allocated(7)))
        .collect();
    let error = writer
        .write_interval(Interval {
            totals,
            ..interval(2)
        })
        .unwrap_err();
    assert!(matches!(error, CaptureError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("out.residue"));
    assert!(error.to_string().contains("-o"));
    drop(writer);
    assert_eq!(read(&path)?.totals, [(StackId(1), allocated(100))]);
    Ok(())
}

struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        mount
            .is_ok_and(|status| status.success())
            .then_some(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Nothing can be done when this fails, and the next test has a directory of its own.
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}
