//! What a path may lead to that is no capture.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::capture::check_output;

/// Each thing that is no regular file, and what it is called.
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
    // A journal is opened as carefully as its capture.
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

/// A command line may be of megabytes, and a reader takes no row that long.
#[test]
fn texts_are_cut_before_they_are_too_long_to_be_read() -> TestResult {
    let (_directory, path) = place()?;
    let long = "é".repeat(1 << 20);
    let meta = Meta {
        command: long.clone(),
        ..Meta::default()
    };
    let process = Process {
        comm: long.clone(),
        exe: long.clone(),
        cmdline: long.clone(),
        ..Process::default()
    };
    let mut writer = Writer::create(&path, &meta)?;
    writer.add_process(&process)?;
    writer.note(1, &long)?;
    writer.finish(2)?;
    let capture = read(&path)?;
    assert_eq!(capture.meta.command.len(), 256 << 10);
    assert_eq!(capture.notes[0].text.len(), 256 << 10);
    Ok(())
}
