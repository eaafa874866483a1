//! Several listen to one recording: a capture, lines of requests, and a person. One that is slow or fails disturbs no
//! other, and what is missing is said.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use residue_tests::{
    disk::SmallDisk,
    http::{Connection, Request},
    lines::Lines,
    machine::{self, PATIENCE, wait_until},
    recorder::{REFUSED, report, residue},
    report::Report,
    servers::Server,
    windows::Window,
};
use rustix::process::{Pid, Signal, kill_process};

/// How many requests a test makes.
const REQUESTS: usize = 100;

/// A recording with a capture and with lines.
struct Both {
    child: std::process::Child,
    stderr: Lines,
}

impl Both {
    fn start(server: &Server, arguments: &[&str], capture: &Path, lines: Stdio) -> Result<Self> {
        let mut command = Command::new(residue()?);
        command
            .args(arguments)
            .args(["--max-slowdown", "off", "-p", &server.pid.to_string(), "-o"])
            .arg(capture)
            .stdout(lines)
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("failed to start residue")?;
        let stderr = Lines::of(child.stderr.take().context("a piped stderr")?);
        stderr.next_starting("recording", PATIENCE)?;
        Ok(Self { child, stderr })
    }

    /// Ends the recording. Returns the exit code, and what was said.
    fn stop(mut self) -> Result<(Option<i32>, String)> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let has_ended = wait_until(PATIENCE, || matches!(self.child.try_wait(), Ok(Some(_))));
        assert!(has_ended, "{}", self.stderr.all());
        self.stderr.wait_for_end(PATIENCE)?;
        Ok((self.child.wait()?.code(), self.stderr.all()))
    }
}

/// Waits until residue has said this.
fn await_said(both: &Both, text: &str) {
    let is_said = || both.stderr.all().contains(text);
    assert!(wait_until(PATIENCE, is_said), "{}", both.stderr.all());
}

fn ask(server: &Server, requests: usize) -> Result<()> {
    let mut connection = Connection::open(server.port)?;
    for number in 0..requests {
        connection.ask(&Request::get("/thousand", &number.to_string()))?;
    }
    connection.close()
}

fn read(capture: &Path) -> Result<Report> {
    let json = report(capture, "json")?.stdout;
    serde_json::from_slice(&json).context("the report is JSON")
}

/// How many requests the report of a capture has.
fn requests(report: &Report) -> Result<u64> {
    Ok(report.route("GET /thousand").context("the route")?.requests)
}

#[test]
fn a_watch_keeps_a_capture_and_both_have_every_request() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let directory = tempfile::tempdir()?;
    let capture = directory.path().join("watch.residue");
    let mut both = Both::start(&server, &["watch", "--json"], &capture, Stdio::piped())?;
    let lines = Lines::of(both.child.stdout.take().context("a piped stdout")?);
    ask(&server, REQUESTS)?;
    let all = || lines.all().lines().count() >= REQUESTS;
    assert!(wait_until(PATIENCE, all), "{}", lines.all());
    let (code, said) = both.stop()?;
    assert_eq!(code, Some(0), "{said}");
    lines.wait_for_end(PATIENCE)?;
    let windows: Vec<Window> = lines
        .all()
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let report = read(&capture)?;
    assert_eq!(windows.len(), REQUESTS);
    assert_eq!(requests(&report)?, REQUESTS as u64);
    let retained: u64 = windows.iter().filter_map(|it| it.retained_bytes).sum();
    let route = report.route("GET /thousand").context("the route")?;
    let by_report = route.retained_bytes_per_request.context("it is known")?;
    assert_eq!(retained as f64, by_report * REQUESTS as f64);
    assert!(said.contains("REQUESTS BY ROUTE"), "{said}");
    assert!(said.contains("next: residue report"), "{said}");
    Ok(())
}

#[test]
fn lines_go_on_when_the_disk_of_the_capture_is_full() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let disk = SmallDisk::mount("1m")?;
    let directory = disk.directory()?;
    let capture = directory.path().join("full.residue");
    let mut both = Both::start(&server, &["record", "--lines"], &capture, Stdio::piped())?;
    let lines = Lines::of(both.child.stdout.take().context("a piped stdout")?);
    fs::write(directory.path().join("filler"), vec![0; 1 << 20]).expect_err("the disk is small");
    ask(&server, REQUESTS)?;
    await_said(&both, "no more is written to");
    ask(&server, REQUESTS)?;
    let all = || lines.all().lines().count() >= 2 * REQUESTS;
    assert!(wait_until(PATIENCE, all), "{}", lines.all());
    let (code, said) = both.stop()?;
    assert_eq!(code, Some(REFUSED), "{said}");
    assert!(said.contains("the disk is full"), "{said}");
    assert!(said.contains("intervals are missing in"), "{said}");
    assert!(!said.contains("next: residue report"), "{said}");
    Ok(())
}

#[test]
fn a_capture_goes_on_when_nobody_reads_the_lines_any_more() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let directory = tempfile::tempdir()?;
    let capture = directory.path().join("closed.residue");
    let mut both = Both::start(&server, &["watch"], &capture, Stdio::piped())?;
    drop(both.child.stdout.take());
    ask(&server, REQUESTS)?;
    await_said(&both, "no more is written to");
    ask(&server, REQUESTS)?;
    let (code, said) = both.stop()?;
    assert_eq!(code, Some(0), "a closed pipe is no error: {said}");
    let report = read(&capture)?;
    assert_eq!(requests(&report)?, 2 * REQUESTS as u64);
    let text = String::from_utf8(self::report(&capture, "text")?.stdout)?;
    assert!(
        text.contains("no more is written to standard output"),
        "{text}"
    );
    Ok(())
}

/// The pipe stays open and full.
#[test]
fn a_capture_is_complete_though_nobody_reads_the_lines() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let directory = tempfile::tempdir()?;
    let capture = directory.path().join("unread.residue");
    let both = Both::start(&server, &["watch"], &capture, Stdio::piped())?;
    // A pipe holds 64 KiB, and so many lines are more.
    ask(&server, 2000)?;
    std::thread::sleep(Duration::from_millis(1500));
    let (code, said) = both.stop()?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("lines were left out"), "{said}");
    assert_eq!(requests(&read(&capture)?)?, 2000);
    Ok(())
}
