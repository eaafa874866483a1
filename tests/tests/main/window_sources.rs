//! Windows of a program's own functions and static probes, and of requests through TLS: each is counted,
//! with exactly what it leaves behind.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    code_bytes::assert_clean,
    fixtures::{Fixture, sources},
    http::Load,
    lines::Lines,
    machine::{self, Needed, PATIENCE, wait_until},
    python::{Python, pythons},
    recorder::residue,
    target::Target,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// What `residue watch --json` says of a window.
#[derive(Debug, Deserialize)]
struct Window {
    route: String,
    duration_ns: Option<u64>,
    alloc_bytes: u64,
    retained_bytes: u64,
    retained_objects: u64,
    confidence: String,
    ended: String,
}

/// `residue watch` of a process and its children.
struct Watcher {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Watcher {
    fn start(pid: u32, sources: &[&str]) -> Result<Self> {
        let mut command = Command::new(residue()?);
        command
            .args([
                "watch",
                "--max-slowdown",
                "off",
                "--json",
                "--children",
                "-p",
            ])
            .arg(pid.to_string());
        for source in sources {
            command.args(["--window", source]);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let watcher = Self {
            stdout: Lines::of(child.stdout.take().context("a piped stdout")?),
            stderr: Lines::of(child.stderr.take().context("a piped stderr")?),
            child,
        };
        watcher.stderr.next_starting("watching", PATIENCE)?;
        Ok(watcher)
    }

    /// Ends it as Ctrl-C does.
    fn stop(mut self) -> Result<Vec<Window>> {
        interrupt(&self.child, Signal::INT)?;
        ensure!(
            self.child.wait()?.success(),
            "residue said: {}",
            self.stderr.all()
        );
        self.stdout.wait_for_end(PATIENCE)?;
        let lines = self.stdout.all();
        lines
            .lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    }
}

fn interrupt(child: &Child, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(child.id().cast_signed()).context("a child has a pid")?;
    Ok(kill_process(pid, signal)?)
}

/// A pool allocates meanwhile, for whom nobody knows.
#[test]
fn a_call_has_what_its_own_thread_allocates_and_nothing_else() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::spawn(Command::new(Fixture::Queued.build()?).arg("blocking"))?;
    let said = target.await_line("ready ")?;
    let port = said.rsplit(' ').next().context("a port")?.parse()?;
    let load = Load {
        name: "calls",
        clients: 1,
        rounds: 5,
        paths: &["/leak"],
        keep_alive: true,
    };
    load.run(port)?;
    let watcher = Watcher::start(target.pid(), &["fn:have_done"])?;
    load.run(port)?;
    let windows = watcher.stop()?;
    ensure!(target.is_running()?, "the target has ended");
    assert_eq!(windows.len(), 5, "{windows:#?}");
    for window in &windows {
        let found = (&window.confidence[..], window.alloc_bytes);
        assert_eq!(found, ("exact", 0), "{window:?}");
    }
    Ok(())
}

/// Has the target do jobs while it is watched.
fn watch_jobs(fixture: Fixture, sources: &[&str], commands: &[&str]) -> Result<Vec<Window>> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&fixture.build()?, &[])?;
    let watcher = Watcher::start(target.pid(), sources)?;
    for command in commands {
        target.ask(command, "done")?;
    }
    let windows = watcher.stop()?;
    assert_clean(target.pid())?;
    ensure!(target.is_running()?, "the target has ended");
    for window in &windows {
        assert_eq!(
            (&window.confidence[..], &window.ended[..]),
            ("exact", "done")
        );
        assert!(window.duration_ns.is_some(), "{window:?}");
    }
    Ok(windows)
}

/// Retained bytes and objects, and allocated bytes.
fn amounts(windows: &[Window]) -> Vec<(u64, u64, u64)> {
    let amounts = |it: &Window| (it.retained_bytes, it.retained_objects, it.alloc_bytes);
    windows.iter().map(amounts).collect()
}

/// A job keeps one block and frees another.
const JOBS: [&str; 4] = ["job 1000", "job 70000", "nest 50", "job 1"];
const KEPT: [(u64, u64, u64); 4] = [
    (1000, 1, 2000),
    (70_000, 1, 140_000),
    (100, 2, 200),
    (1, 1, 2),
];

#[test]
fn every_call_of_a_function_is_a_window_with_exactly_what_it_keeps() -> Result<()> {
    let windows = watch_jobs(Fixture::Jobs, &["fn:handle_job"], &JOBS)?;
    assert_eq!(amounts(&windows), KEPT);
    assert!(windows.iter().all(|it| it.route == "fn:handle_job"));
    Ok(())
}

#[test]
fn what_lies_between_static_probes_is_a_window_with_exactly_what_it_keeps() -> Result<()> {
    let windows = watch_jobs(Fixture::Jobs, &["usdt:jobs:job_start:job_done"], &JOBS)?;
    assert_eq!(amounts(&windows), KEPT);
    Ok(())
}

/// What comes after it is not the job's.
#[test]
fn a_job_that_is_left_by_a_longjmp_ends_there() -> Result<()> {
    let jobs = ["jump 700", "tail 5", "jump 300", "jump 200", "job 100"];
    let windows = watch_jobs(Fixture::Jobs, &["fn:handle_job"], &jobs)?;
    let expected = [(700, 1, 1400), (300, 1, 600), (200, 1, 400), (100, 1, 200)];
    assert_eq!(amounts(&windows), expected);
    Ok(())
}

#[test]
fn a_job_that_ends_in_another_function_ends_with_that_one() -> Result<()> {
    let windows = watch_jobs(
        Fixture::Jobs,
        &["fn:tail_job"],
        &["tail 40", "job 7", "tail 41"],
    )?;
    assert_eq!(amounts(&windows), [(80, 2, 80), (82, 2, 82)]);
    Ok(())
}

#[test]
fn what_a_job_allocates_with_its_last_jump_is_its_own() -> Result<()> {
    let windows = watch_jobs(
        Fixture::Jobs,
        &["fn:last_job"],
        &["last 40", "job 7", "last 41"],
    )?;
    assert_eq!(amounts(&windows), [(80, 2, 80), (82, 2, 82)]);
    Ok(())
}

/// Where a return probe would terminate the program.
#[test]
fn an_exception_may_leave_a_job() -> Result<()> {
    let sources = ["fn:app::Worker::run(unsigned long, bool)"];
    let jobs = ["job 10", "throw 7000", "throw 20", "text 30", "job 40"];
    let windows = watch_jobs(Fixture::JobsCpp, &sources, &jobs)?;
    let kept: Vec<_> = windows.iter().map(|it| it.retained_bytes).collect();
    // The exception itself may not be freed yet when its job is left.
    assert_eq!(kept.len(), jobs.len());
    for (kept, bytes) in kept.into_iter().zip([10, 7000, 20, 30, 40]) {
        assert!((bytes..bytes + 500).contains(&kept), "{windows:#?}");
    }
    Ok(())
}

#[test]
fn several_sources_have_windows_beside_each_other() -> Result<()> {
    let windows = watch_jobs(
        Fixture::Jobs,
        &["fn:tail_job", "fn:handle_job"],
        &["tail 40", "job 7"],
    )?;
    let told: Vec<_> = windows
        .iter()
        .map(|it| (&it.route[..], it.retained_bytes))
        .collect();
    assert_eq!(told, [("fn:tail_job", 80), ("fn:handle_job", 7)]);
    Ok(())
}

#[test]
fn ten_thousand_jobs_are_ten_thousand_windows() -> Result<()> {
    let jobs: Vec<_> = (1..=10_000).map(|bytes| format!("job {bytes}")).collect();
    let jobs: Vec<_> = jobs.iter().map(String::as_str).collect();
    let windows = watch_jobs(Fixture::Jobs, &["fn:handle_job"], &jobs)?;
    let expected: Vec<_> = (1..=10_000).map(|bytes| (bytes, 1, 2 * bytes)).collect();
    assert_eq!(amounts(&windows), expected);
    Ok(())
}

/// One whose library is shared, and the static one.
const INTERPRETERS: [&str; 2] = ["3.12", "debian"];
const REQUESTS: usize = 40;
/// What the application keeps of each request to `/keep`: a bytearray has a byte more.
const KEEPS: u64 = 100_001;

#[test]
fn every_request_by_https_is_a_window() -> Result<()> {
    let _turn = machine::beside_others();
    let openssl = Needed {
        program: "openssl",
        package: "openssl",
    };
    if !machine::has(openssl) {
        return Ok(());
    }
    let chosen = |python: &Python| INTERPRETERS.contains(&python.name);
    for python in pythons().into_iter().filter(chosen) {
        if let Some(python) = python.with_packages(&["gunicorn"])? {
            https(&python).with_context(|| python.name)?;
        }
    }
    Ok(())
}

fn https(python: &Python) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let [key, certificate] = certificate(directory.path())?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut server = Command::new(&python.path)
        .args(["-m", "gunicorn", "--log-level", "error", "--bind"])
        .arg(format!("127.0.0.1:{port}"))
        .arg("--keyfile")
        .arg(key)
        .arg("--certfile")
        .arg(certificate)
        .arg("--chdir")
        .arg(sources().join("python"))
        .arg("https_app:application")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .spawn()?;
    let windows = watch_requests(python, &server, port);
    interrupt(&server, Signal::TERM)?;
    server.wait()?;
    let windows = windows?;
    assert_eq!(windows.len(), REQUESTS, "{windows:#?}");
    for window in windows {
        assert_eq!(window.confidence, "exact", "{window:?}");
        let keeps = if window.route == "/plain" { 0 } else { KEEPS };
        let more = window.retained_bytes.checked_sub(keeps);
        // What OpenSSL and Python hold on to until the next request is the window's, too.
        assert!(more.is_some_and(|more| more < 64 << 10), "{window:?}");
    }
    Ok(())
}

fn watch_requests(python: &Python, server: &Child, port: u16) -> Result<Vec<Window>> {
    let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    ensure!(wait_until(PATIENCE, listens), "gunicorn does not listen");
    let load = |count: usize| -> Result<()> {
        let mut command = Command::new(&python.path);
        let command = command.arg(sources().join("python/https_app.py"));
        let loaded = command
            .arg(port.to_string())
            .arg(count.to_string())
            .status()?;
        ensure!(loaded.success(), "not every request was answered");
        Ok(())
    };
    // The worker is there, and has imported what it needs.
    load(1)?;
    let watcher = Watcher::start(server.id(), &[])?;
    load(REQUESTS)?;
    watcher.stop()
}

/// A key and a certificate of its own.
fn certificate(directory: &Path) -> Result<[PathBuf; 2]> {
    let paths = ["key.pem", "certificate.pem"].map(|name| directory.join(name));
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2",
        ])
        .args(["-subj", "/CN=localhost", "-keyout"])
        .arg(&paths[0])
        .arg("-out")
        .arg(&paths[1])
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "openssl makes no certificate");
    Ok(paths)
}
