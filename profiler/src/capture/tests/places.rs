//! Paths that lead to something other than a capture.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::*;
use crate::capture::check_output;
use crate::capture::place::Place;
use crate::capture::rows::MAX_TEXT_BYTES;

/// Each kind of thing that is no regular file, and its name in errors.
fn oddities(directory: &Path) -> Result<Vec<(PathBuf, &'static str)>, Box<dyn Error>> {
    let at = |name: &str| directory.join(name);
    assert!(Command::new("mkfifo").arg(at("fifo")).status()?.success());
    UnixListener::bind(at("socket"))?;
    fs::create_dir(at("directory"))?;
    symlink("nowhere", at("dangling"))?;
    symlink("sound.residue", at("link"))?;
    Ok(vec![
        (at("fifo"), "a FIFO"),
        (at("socket"), "a socket"),
        (at("directory"), "a directory"),
        (at("dangling"), "a symbolic link"),
        (at("link"), "a symbolic link"),
        ("/dev/null".into(), "a device"),
        ("/dev/zero".into(), "a device"),
    ])
}

#[test]
fn what_is_no_file_is_refused_by_its_kind_and_at_once() -> TestResult {
    let (directory, path) = place()?;
    write_complete(&directory.path().join("sound.residue"))?;
    let sound = fs::read(directory.path().join("sound.residue"))?;
    let began = Instant::now();
    for (odd, kind) in oddities(directory.path())? {
        let error = read(&odd).unwrap_err().to_string();
        assert!(
            error.contains(&format!("is {kind}, not a capture")),
            "{error}"
        );
        let error = Writer::create(&odd, &Meta::default())
            .unwrap_err()
            .to_string();
        assert_eq!(check_output(&odd).unwrap_err().to_string(), error);
        let said = error.contains(&format!("is {kind}, which is left alone"));
        assert!(said && error.ends_with("choose another -o"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(!directory.path().join("nowhere").exists());
    assert_eq!(fs::read(directory.path().join("sound.residue"))?, sound);
    for unnamed in ["/", ".."] {
        let error = Writer::create(Path::new(unnamed), &Meta::default()).unwrap_err();
        assert!(matches!(error, CaptureError::InTheWay { .. }), "{error}");
    }
    // A reader opens a journal as carefully as its capture.
    write_complete(&path)?;
    let journal = directory.path().join("out.residue-journal");
    assert!(Command::new("mkfifo").arg(&journal).status()?.success());
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("out.residue-journal is a FIFO"), "{error}");
    Ok(())
}

#[test]
fn a_file_that_was_never_written_takes_no_memory() -> TestResult {
    let (_directory, path) = place()?;
    write_complete(&path)?;
    let file = File::options().write(true).open(&path)?;
    file.set_len(3 << 30)?;
    assert!(matches!(
        read(&path).unwrap_err(),
        CaptureError::Damaged { .. }
    ));
    file.set_len(5 << 30)?;
    assert!(matches!(
        read(&path).unwrap_err(),
        CaptureError::TooLarge { .. }
    ));
    Ok(())
}

#[test]
fn checking_an_output_changes_nothing() -> TestResult {
    let (directory, path) = place()?;
    check_output(&path)?;
    assert!(!path.exists());
    write_complete(&path)?;
    check_output(&path)?;
    assert!(read(&path).is_ok());
    let error = check_output(&directory.path().join("missing/x")).unwrap_err();
    assert!(matches!(error, CaptureError::NoDirectory { .. }), "{error}");
    Ok(())
}

/// A command line may have megabytes, and a reader accepts no row that long.
#[test]
fn texts_are_cut_before_they_are_too_long_to_be_read() -> TestResult {
    let (_directory, path) = place()?;
    let long = "é".repeat(1 << 20);
    let meta = Meta {
        command: long.clone(),
        options: vec![(long.clone(), long.clone())],
        ..Meta::default()
    };
    let process = Process {
        comm: long.clone(),
        exe: long.clone(),
        cmdline: long.clone(),
        ..Process::default()
    };
    let symbol = Symbol {
        name: long.clone(),
        file: Some(long.clone()),
        line: None,
    };
    let mut longest = first_interval();
    longest.modules[0].path = long.clone();
    longest.modules[0].build_id = Some(long.clone());
    longest.frames[0].symbols = vec![symbol; 3];
    let mut writer = Writer::create(&path, &meta)?;
    writer.add_process(process)?;
    writer.write_interval(longest)?;
    writer.end_process(ProcessNumber(0), 1, &long)?;
    writer.note(1, &long)?;
    writer.finish(2)?;
    let capture = read(&path)?;
    assert_eq!(capture.meta.command.len(), MAX_TEXT_BYTES);
    assert_eq!(capture.notes[0].text.len(), MAX_TEXT_BYTES);
    let ended = capture.processes[0].1.as_ref().ok_or("it has ended")?;
    assert_eq!(ended.reason.len(), MAX_TEXT_BYTES);
    let build_id = capture.modules[0].build_id.as_ref().ok_or("it has one")?;
    assert_eq!(build_id.len(), MAX_TEXT_BYTES);
    assert_eq!(capture.frames[0].symbols[2].name.len(), MAX_TEXT_BYTES);
    Ok(())
}

/// Files under the journal's name, beside a capture that the recording is to replace.
#[test]
fn only_a_journal_is_removed_with_the_capture_that_it_belongs_to() -> TestResult {
    let (directory, path) = place()?;
    let beside = directory.path().join("out.residue-journal");
    write_complete(&path)?;
    let old = fs::read(&path)?;
    fs::write(&beside, "what somebody needs")?;
    let error = Writer::create(&path, &Meta::default()).unwrap_err();
    assert!(
        matches!(error, CaptureError::JournalInTheWay { .. }),
        "{error}"
    );
    assert_eq!(fs::read(&beside)?, b"what somebody needs");
    assert_eq!(fs::read(&path)?, old, "the capture stays as well");
    fs::write(&beside, b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7 and more")?;
    drop(Writer::create(&path, &Meta::default())?);
    assert!(!beside.exists());
    Ok(())
}

/// If a recorder succeeds, its file is there and holds its interval.
#[test]
fn of_recorders_that_begin_at_once_one_has_the_file() -> TestResult {
    let (_directory, path) = place()?;
    for _ in 0..300 {
        let (start, begun) = (Barrier::new(4), Barrier::new(4));
        let record = || {
            start.wait();
            let mut writer = Writer::create(&path, &Meta::default()).ok();
            begun.wait();
            let written = writer
                .as_mut()
                .map(|writer| writer.write_interval(interval(7)));
            written
                .map(|written| written.is_ok() && read(&path).is_ok_and(|read| read.last_ns == 7))
        };
        let recorded: Vec<bool> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(record)).collect();
            all.into_iter()
                .filter_map(|thread| thread.join().ok()?)
                .collect()
        });
        assert_eq!(recorded, [true], "one records, and its file is there");
    }
    Ok(())
}

#[test]
fn a_directory_that_goes_away_is_not_a_missing_capture() -> TestResult {
    let (directory, _path) = place()?;
    let below = directory.path().join("below");
    fs::create_dir(&below)?;
    let place = Place::open(&below.join("out.residue"))?;
    fs::remove_dir(&below)?;
    let error = place.make_capture().unwrap_err();
    assert!(matches!(error, CaptureError::NoDirectory { .. }), "{error}");
    Ok(())
}
