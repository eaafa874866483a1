//! What a person reads, of a report and of `watch`, on live processes.

use std::{process::Command, thread, time::Duration};

use anyhow::{Context as _, Result};
use residue_tests::{
    fixtures::Fixture,
    http::{Connection, Request},
    machine::{self, PATIENCE, wait_until},
    recorder::{Recorder, Recording, residue},
    servers::Server,
    target::Target,
    windows::Watcher,
};

/// Of which the first goes on growing; the second frees what it keeps some requests later; the third keeps nothing.
const PATHS: [&str; 3] = ["/thousand", "/later", "/clean"];
/// Of all of them together.
const REQUESTS: usize = 150;
/// By then growth must be told, though what survived is looked at once a second only.
const TOLD_WITHIN: usize = 120;
/// How far apart requests are.
const PAUSE: Duration = Duration::from_millis(30);

fn ask_all(server: &Server) -> Result<()> {
    let mut connection = Connection::open(server.port)?;
    for (number, path) in PATHS.iter().cycle().take(REQUESTS).enumerate() {
        connection.ask(&Request::get(path, &number.to_string()))?;
        thread::sleep(PAUSE);
    }
    connection.close()
}

fn lines_of<'a>(lines: &'a str, path: &str) -> Vec<&'a str> {
    let is_of = |line: &&str| line.contains(&format!(" GET {path} | "));
    lines.lines().filter(is_of).collect()
}

#[test]
fn watch_suspects_the_route_that_goes_on_growing_and_no_other() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let watcher = Watcher::start(server.pid, &["--table-every", "1s"])?;
    ask_all(&server)?;
    watcher.await_lines(REQUESTS)?;
    let shown = || watcher.said().contains("REQUESTS BY ROUTE");
    assert!(
        wait_until(PATIENCE, shown),
        "no table while it watches:\n{}",
        watcher.said()
    );
    let watched = watcher.stop()?;
    let suspected = |line: &&str| line.contains("LEAK_SUSPECTED");
    let first = watched.stdout.lines().position(|line| suspected(&line));
    let first = first.with_context(|| format!("nothing is suspected:\n{}", watched.stdout))?;
    assert!(first < TOLD_WITHIN, "suspected only by request {first}");
    for path in ["/later", "/clean"] {
        let lines = lines_of(&watched.stdout, path);
        assert!(!lines.iter().any(suspected), "{lines:#?}");
    }
    let last = lines_of(&watched.stdout, "/thousand");
    let last = last.last().context("it was asked for")?;
    assert!(last.starts_with("WARNING"), "{last}");
    assert!(
        last.contains("(15 of the last 15 left 0.0010MB each"),
        "{last}"
    );
    let (_, table) = watched
        .stderr
        .rsplit_once("REQUESTS BY ROUTE")
        .context("a table at the end")?;
    assert_eq!(table.matches("LEAK_SUSPECTED").count(), 1, "{table}");
    Ok(())
}

#[test]
fn watch_calls_nothing_retained_that_is_freed_each_time() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let watcher = Watcher::start(server.pid, &[])?;
    ask_all(&server)?;
    watcher.await_lines(REQUESTS)?;
    let watched = watcher.stop()?;
    let later = lines_of(&watched.stdout, "/later");
    let last = later.last().context("it was asked for")?;
    assert!(
        last.contains("retained=0.0MB (+0.0010MB passing)"),
        "{later:#?}"
    );
    let thousand = lines_of(&watched.stdout, "/thousand");
    for line in thousand {
        assert!(line.contains("retained=0.0010MB"), "{line}");
    }
    for line in watched.stdout.lines() {
        let sizes = line.split(['=', '>', ' ', '+', '(', '|']);
        let mut sizes = sizes.filter(|it| it.starts_with(|c: char| c.is_ascii_digit()));
        assert!(
            sizes.all(|it| !it.ends_with('B') || it.ends_with("MB")),
            "{line}"
        );
    }
    Ok(())
}

fn text(recording: &Recording, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(residue()?);
    let output = command
        .arg("report")
        .arg(recording.capture())
        .args(arguments)
        .output()?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn what_two_processes_hold_by_the_same_stack_is_one_row() -> Result<()> {
    let _turn = machine::beside_others();
    let program = Fixture::Churn.build()?;
    let mut targets = [(); 2].map(|()| Target::start(&program, &["1", "500", "3"]));
    let pids: Vec<u32> = targets
        .iter()
        .map(|it| it.as_ref().map_or(0, Target::pid))
        .collect();
    let recorder = Recorder::start(&pids, &[])?;
    for target in &mut targets {
        let target = target.as_mut().ok().context("it runs")?;
        target.ask("fill", "filled")?;
    }
    let recording = recorder.stop()?;
    let rows = |text: &str, what: &str| text.matches(what).count();
    let merged = text(&recording, &[])?;
    assert!(rows(&merged, "in 2 of 2 processes") > 0, "{merged}");
    let split = text(&recording, &["--by-process"])?;
    assert_eq!(rows(&split, "in 2 of 2 processes"), 0, "{split}");
    for pid in pids {
        let pid = format!("(pid {pid})");
        assert!(rows(&split, &pid) > rows(&merged, &pid), "{split}");
    }
    let roots = |folded: String| folded.matches("(pid ").count();
    assert_eq!(roots(text(&recording, &["--format", "folded"])?), 0);
    let folded = ["--format", "folded", "--by-process"];
    assert!(roots(text(&recording, &folded)?) > 1);
    Ok(())
}

#[test]
fn what_was_not_followed_is_not_reported_as_none() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::thread_per_connection(&[])?;
    let recorder = Recorder::start(&[server.pid], &["--rss-only"])?;
    let mut connection = Connection::open(server.port)?;
    for number in 0..20 {
        connection.ask(&Request::get("/thousand", &number.to_string()))?;
    }
    connection.close()?;
    let recording = recorder.stop()?;
    let report = text(&recording, &[])?;
    assert!(report.contains("was followed (--rss-only)"), "{report}");
    assert!(report.contains("GET /thousand"), "{report}");
    for claim in [
        "0 B outstanding",
        "outstanding  0 B",
        "0 blocks",
        "Nothing is",
    ] {
        assert!(!report.contains(claim), "{claim:?} is claimed:\n{report}");
    }
    let drawn = text(&recording, &["--format", "flamegraph"])?;
    assert_eq!(drawn, "", "nothing can be drawn");
    Ok(())
}
