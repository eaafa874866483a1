//! Files beside a capture: a transaction that was cut off, or a trap.

use std::collections::BTreeMap;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::capture::journal::{self, NamesAFile};

/// The id of a user who is not root; `nobody` on most systems.
const STRANGER: u32 = 65534;

fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-journal");
    name.into()
}

/// A journal that asks for an undo, and has SQLite delete `victim` afterwards: one segment without
/// records, and the name of a super-journal behind.
fn trap(capture: &[u8], victim: &Path) -> Vec<u8> {
    const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let name = victim.as_os_str().as_encoded_bytes();
    let page_bytes = u32::from(u16::from_be_bytes([capture[16], capture[17]]));
    let pages = &capture[28..32];
    let mut journal = MAGIC.to_vec();
    journal.extend([0, 0, 0, 0, 0, 0, 0x12, 0x34]);
    journal.extend(pages);
    journal.extend(512_u32.to_be_bytes());
    journal.extend(page_bytes.to_be_bytes());
    journal.resize(512, 0);
    journal.extend((0x4000_0000 / page_bytes + 1).to_be_bytes());
    journal.extend(name);
    journal.extend((name.len() as u32).to_be_bytes());
    let sum = name.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    journal.extend(sum.to_be_bytes());
    journal.extend(MAGIC);
    journal
}

/// Files, with the bytes of each.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What is in a directory.
fn listing(directory: &Path) -> Result<Files, Box<dyn Error>> {
    let mut found = Files::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        found.insert(path.clone(), fs::read(&path)?);
    }
    Ok(found)
}

#[test]
fn a_journal_that_names_a_file_is_refused_and_the_file_stays() -> TestResult {
    let (directory, path) = place()?;
    write_complete(&path)?;
    let victim = directory.path().join("victim");
    fs::write(&victim, "what somebody needs")?;
    fs::write(journal_of(&path), trap(&fs::read(&path)?, &victim))?;
    let before = listing(directory.path())?;
    let error = read(&path).unwrap_err();
    assert!(
        matches!(error, CaptureError::HostileJournal { .. }),
        "{error}"
    );
    assert_eq!(listing(directory.path())?, before);
    // The trap works: SQLite falls into it.
    rusqlite::Connection::open(&path)?.query_row("SELECT 1 FROM sqlite_schema", [], |_| Ok(()))?;
    assert!(!victim.exists());
    Ok(())
}

#[test]
fn reading_writes_nothing_whatever_lies_beside() -> TestResult {
    let (image, journal) = samples::cut_off()?;
    let (directory, path) = place()?;
    fs::write(&path, &image)?;
    for beside in [
        &journal[..],
        &journal[..3000],
        &image,
        b"",
        b"text",
        &[0; 600],
    ] {
        fs::write(journal_of(&path), beside)?;
        let before = listing(directory.path())?;
        let _ = read(&path);
        assert_eq!(listing(directory.path())?, before);
    }
    Ok(())
}

/// Needs root to give a file away.
#[test]
fn a_strangers_journal_is_not_believed() -> TestResult {
    let (image, journal) = samples::cut_off()?;
    let (_directory, path) = place()?;
    fs::write(&path, image)?;
    fs::write(journal_of(&path), journal)?;
    assert!(read(&path).is_ok());
    if chown(journal_of(&path), Some(STRANGER), None).is_err() {
        eprintln!("skipped: a file cannot be given away here, run as root");
        return Ok(());
    }
    let error = read(&path).unwrap_err();
    assert!(
        matches!(error, CaptureError::ForeignJournal { .. }),
        "{error}"
    );
    // If the capture is the stranger's as well, a reader loses nothing by believing both.
    chown(&path, Some(STRANGER), None)?;
    assert!(read(&path).is_ok());
    Ok(())
}

/// A whole journal undoes the whole transaction, and so does one that is cut where SQLite stops as well.
#[test]
fn undoing_leaves_what_sqlite_leaves_at_every_length() -> TestResult {
    let (image, journal) = samples::cut_off()?;
    let (_directory, path) = place()?;
    let mut lengths: Vec<_> = (0..journal.len()).step_by(1733).collect();
    lengths.extend([27, 28, 511, 512, 513, 1031, 1032, 1033, journal.len()]);
    for length in lengths {
        let mut ours = image.clone();
        assert_eq!(journal::undo(&mut ours, &journal[..length]), Ok(()));
        fs::write(&path, &image)?;
        fs::write(journal_of(&path), &journal[..length])?;
        let db = rusqlite::Connection::open(&path)?;
        // SQLite may find the file damaged: half a transaction is undone.
        let _ = db.query_row("SELECT 1 FROM sqlite_schema", [], |_| Ok(()));
        drop(db);
        assert!(ours == fs::read(&path)?, "cut at {length}");
    }
    Ok(())
}

#[test]
fn a_name_at_the_end_is_found_in_any_journal() {
    let mut journal = vec![0; 512];
    assert_eq!(journal::undo(&mut vec![1], &journal), Ok(()));
    journal.extend([0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    assert_eq!(journal::undo(&mut vec![1], &journal), Err(NamesAFile));
}

/// If SQLite opened the capture by its name, it would take any of these for its own.
#[test]
fn a_recorder_never_looks_at_what_is_put_in_its_journals_place() -> TestResult {
    let (directory, path) = place()?;
    let victim = directory.path().join("victim");
    fs::write(&victim, "what somebody needs")?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    for at_ns in 1..20 {
        let _ = fs::remove_file(journal_of(&path));
        fs::write(journal_of(&path), trap(&fs::read(&path)?, &victim))?;
        writer.write_interval(interval(at_ns))?;
        writer.note(at_ns, "a remark")?;
    }
    writer.finish(30)?;
    assert!(victim.exists());
    fs::remove_file(journal_of(&path))?;
    let capture = read(&path)?;
    assert_eq!((capture.ended_ns, capture.notes.len()), (Some(30), 19));
    Ok(())
}

#[test]
fn a_journal_that_exists_is_not_taken_over() -> TestResult {
    let (directory, path) = place()?;
    fs::write(journal_of(&path), "somebody's")?;
    let error = Writer::create(&path, &Meta::default()).unwrap_err();
    assert!(
        matches!(error, CaptureError::JournalInTheWay { .. }),
        "{error}"
    );
    assert_eq!(fs::read(journal_of(&path))?, b"somebody's");
    assert_eq!(fs::read_dir(directory.path())?.count(), 1);
    // An empty journal says nothing.
    fs::write(journal_of(&path), "")?;
    Writer::create(&path, &Meta::default())?;
    Ok(())
}

#[test]
fn the_journal_is_for_its_owner_only_and_goes_with_the_recorder() -> TestResult {
    let (_directory, path) = place()?;
    let writer = Writer::create(&path, &Meta::default())?;
    let attributes = fs::metadata(journal_of(&path))?;
    assert_eq!(attributes.permissions().mode() & 0o777, 0o600);
    drop(writer);
    assert!(!journal_of(&path).exists());
    Ok(())
}

/// The capture may belong to somebody else by then, who called sudo.
#[test]
fn a_trigger_that_is_put_into_a_recording_does_not_run() -> TestResult {
    let (_directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    writer.note(1, "a remark")?;
    let sql = "CREATE TRIGGER t AFTER INSERT ON note BEGIN DELETE FROM note; END";
    rusqlite::Connection::open(&path)?.execute_batch(sql)?;
    writer.note(2, "another")?;
    let db = rusqlite::Connection::open(&path)?;
    let notes: u32 = db.query_row("SELECT count(*) FROM note", [], |row| row.get(0))?;
    assert_eq!(notes, 2);
    Ok(())
}

/// Locks the capture in the middle of a recording, as `sqlite3` would.
#[test]
fn another_sqlite_reads_along_and_sees_each_interval() -> TestResult {
    let (_directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = rusqlite::Connection::open_with_flags(&path, flags)?;
    for at_ns in 1..10 {
        writer.write_interval(interval(at_ns))?;
        let sql = "SELECT alloc_bytes FROM latest_total";
        let bytes: u64 = db.query_row(sql, [], |row| row.get(0))?;
        assert_eq!(bytes, 100 * at_ns);
    }
    Ok(())
}

#[test]
fn a_recorder_waits_at_its_end_for_whoever_still_reads() -> TestResult {
    let (_directory, path) = place()?;
    let mut writer = Writer::create(&path, &Meta::default())?;
    writer.write_interval(interval(1))?;
    let db = rusqlite::Connection::open(&path)?;
    let reading = std::thread::spawn(move || -> rusqlite::Result<u64> {
        db.execute_batch("BEGIN; SELECT * FROM meta")?;
        std::thread::sleep(Duration::from_millis(300));
        let before = db.query_row("SELECT max(at_ns) FROM snapshot", [], |row| row.get(0))?;
        db.execute_batch("COMMIT")?;
        Ok(before)
    });
    std::thread::sleep(Duration::from_millis(100));
    writer.write_interval(interval(2))?;
    writer.finish(3)?;
    let seen = reading.join().map_err(|_| "the reader panicked")??;
    assert_eq!(seen, 1, "the reader sees one moment");
    let capture = read(&path)?;
    assert_eq!((capture.last_ns, capture.ended_ns), (2, Some(3)));
    assert_eq!(capture.totals, [(StackId(1), allocated(200))]);
    Ok(())
}

/// Where [`writes_until_it_is_killed`] writes.
const WRITE_TO: &str = "RESIDUE_TEST_WRITE_TO";
/// So many stacks that most of an interval is in the file before the commit.
const MANY_STACKS: u32 = 60_000;

/// Not a test: the process that the next one kills.
#[test]
#[ignore = "is run by a_recorder_killed_at_any_moment_loses_one_interval_at_most"]
fn writes_until_it_is_killed() -> TestResult {
    let Some(path) = std::env::var_os(WRITE_TO) else {
        return Ok(());
    };
    let mut writer = Writer::create(Path::new(&path), &Meta::default())?;
    for at_ns in 1.. {
        let totals = (0..MANY_STACKS)
            .map(|stack| (StackId(stack), allocated(at_ns)))
            .collect();
        writer.write_interval(Interval {
            totals,
            ..interval(at_ns)
        })?;
    }
    Ok(())
}

#[test]
fn a_recorder_killed_at_any_moment_loses_one_interval_at_most() -> TestResult {
    let (mut in_mid_write, mut whole) = (0, 0);
    for delay in (300..1500).step_by(170) {
        let (_directory, path) = place()?;
        let mut recorder = Command::new(std::env::current_exe()?)
            .args(["--ignored", "writes_until_it_is_killed"])
            .env(WRITE_TO, &path)
            .stdout(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(delay));
        recorder.kill()?;
        recorder.wait()?;
        in_mid_write +=
            u32::from(fs::metadata(journal_of(&path)).is_ok_and(|metadata| metadata.len() > 0));
        let capture = match read(&path) {
            Ok(capture) => capture,
            // The recorder had not written an interval yet.
            Err(CaptureError::Empty { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let Some(&last) = capture.snapshots.last() else {
            continue;
        };
        whole += 1;
        assert_eq!(capture.totals.len(), MANY_STACKS as usize);
        let of_last = |(_, totals): &(StackId, StackTotals)| totals.alloc_bytes == last;
        assert!(capture.totals.iter().all(of_last), "of interval {last}");
    }
    assert!(in_mid_write > 0, "no kill came in the middle");
    assert!(whole > 0, "no interval was written");
    Ok(())
}
