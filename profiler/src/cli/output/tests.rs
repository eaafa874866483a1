//! Every kind of thing that `-o` can name.

use std::{
    fs::{Permissions, create_dir, set_permissions, write},
    os::unix::{fs::PermissionsExt as _, fs::symlink, net::UnixListener},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn refusal(path: &Path) -> String {
    Output::open(path).map_or_else(
        |error| error.to_string(),
        |output| format!("{output:?} was accepted"),
    )
}

#[test]
fn what_is_no_file_is_refused_by_what_it_is() -> TestResult {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    create_dir(at("directory"))?;
    symlink(at("directory"), at("link"))?;
    let _socket = UnixListener::bind(at("socket"))?;
    for (path, words) in [
        (at("directory"), "is a directory"),
        (at("link"), "is a directory"),
        (at("socket"), "is a socket"),
        (at("none/report"), "there is no directory"),
        (at("socket/report"), "there is no directory"),
        (PathBuf::from("/"), "names no file"),
        (PathBuf::from(".."), "names no file"),
    ] {
        assert!(refusal(&path).contains(words), "{}", refusal(&path));
        assert!(refusal(&path).contains("-o"), "{}", refusal(&path));
    }
    Ok(())
}

#[test]
fn devices_and_fifos_are_written_to() -> TestResult {
    let null = Output::open(Path::new("/dev/null"))?;
    assert!(matches!(null, Output::Stream(..)));
    let mut full = Output::open(Path::new("/dev/full"))?;
    let error = full.write_all(b"report").expect_err("it is full");
    assert!(full.error(error).to_string().contains("the disk is full"));
    let directory = tempfile::tempdir()?;
    let fifo = directory.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo)
    });
    let mut output = Output::open(&fifo)?;
    output.write_all(b"report")?;
    output.complete()?;
    assert_eq!(reader.join().expect("it does not panic")?, b"report");
    Ok(())
}

#[test]
fn a_link_is_followed_only_where_nobody_could_have_put_it() -> TestResult {
    let directory = tempfile::tempdir()?;
    let [victim, link] = ["victim", "link"].map(|name| directory.path().join(name));
    write(&victim, "precious")?;
    let open = File::open(&victim)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&open);
    let refused = refusal(Path::new(&format!("/proc/self/fd/{number}")));
    assert!(refused.contains("a link to an open file"), "{refused}");
    symlink("/dev/null", &link)?;
    let mut output = Output::open(&link)?;
    output.write_all(b"report")?;
    output.complete()?;
    assert_eq!(fs::read(&link)?, b"report");
    Ok(())
}

/// Runs as root, whom no mode stops; the kernel decides by the same owners.
#[test]
fn the_fifo_of_another_user_is_not_written_to() -> TestResult {
    if !geteuid().is_root() {
        crate::machine::skipped("the_fifo_of_another_user_is_not_written_to", "root");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    set_permissions(directory.path(), Permissions::from_mode(0o1777))?;
    let fifo = directory.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    std::os::unix::fs::chown(&fifo, Some(65534), None)?;
    assert!(refusal(&fifo).contains("belongs to another user"));
    Ok(())
}

/// Somebody who may write into the directory puts a file where the FIFO was.
#[test]
fn what_is_opened_is_what_was_looked_at() -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let mut reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)?;
    let There::Stream(place) = what_is_there(&path)? else {
        return Err("a FIFO is written to".into());
    };
    fs::remove_file(&path)?;
    write(&path, "precious")?;
    reopen(&place)?.write_all(b"report")?;
    assert_eq!(io::read_to_string(&mut reader)?, "report");
    assert_eq!(fs::read(&path)?, b"precious");
    Ok(())
}
