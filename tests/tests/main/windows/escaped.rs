//! Requests whose work is done by other threads: what these leave behind is the request's, or is called ambiguous
//! beside it. No request that keeps something reads as one that keeps nothing for sure.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use residue_tests::{
    fixtures::{Fixture, sources},
    http::{Load, Mix},
    machine::{self, NODE},
    python::{Python, pythons},
    recorder::Recorder,
    report::Report,
    target::Target,
    windows::RouteRow,
};

const PYTHON: &str = "3.11";
/// From PyPI.
const PACKAGES: [&str; 3] = ["aiohttp", "uvicorn", "hypercorn"];
/// What a request keeps: an object of Python's, with its end.
const KEPT: f64 = 10_001.0;
const CLEAN: &str = "/clean";
/// What a server itself may keep of a request until a later one, on average, bytes.
const OWN: f64 = 2000.0;
/// The same of Node, whose compiler works while requests are under way.
const NODES_OWN: f64 = 10_000.0;
/// As many requests as it takes for most graces to be over.
const ROUNDS: usize = 20;
/// A loop that waited when a recording began is known for one when it waits again.
const SETTLING: Duration = Duration::from_millis(500);

struct Server {
    /// Held: the server ends with it.
    process: Target,
    /// The process that serves.
    pid: u32,
    port: u16,
}

impl Server {
    fn start(command: &mut Command) -> Result<Self> {
        let process = Target::spawn(command)?;
        let said = process.await_line("ready ")?;
        let mut words = said.split(' ').rev();
        let port = words.next().context("a port")?.parse()?;
        let pid = words.next().and_then(|it| it.parse().ok());
        Ok(Self {
            pid: pid.unwrap_or(process.pid()),
            process,
            port,
        })
    }

    /// Records it, when its threads are started, under the load of so many clients.
    fn recorded(&self, paths: &[&str], clients: usize, keep_alive: bool) -> Result<Report> {
        let load = Load {
            name: "escaped",
            clients,
            rounds: ROUNDS,
            paths,
            keep_alive,
        };
        Load {
            clients: 8,
            rounds: 3,
            ..load
        }
        .run(self.port)?;
        let recorder = Recorder::start(&[self.pid], &[])?;
        thread::sleep(SETTLING);
        load.run(self.port)?;
        recorder.stop()?.report()
    }
}

fn row<'a>(report: &'a Report, path: &str) -> &'a RouteRow {
    let row = report.route(&format!("GET {path}"));
    row.expect("the route was requested")
}

fn with(row: &RouteRow, confidence: &str) -> u64 {
    row.confidences.get(confidence).copied().unwrap_or(0)
}

/// Every request is bound, and each route has what it leaves behind.
fn assert_right(report: &Report, paths: &[&str], kept: f64, own: f64) {
    for path in paths {
        let row = row(report, path);
        assert_eq!(with(row, "candidates") + with(row, "none"), 0, "{row:#?}");
        assert_survivors(row, path, kept, own);
    }
}

fn assert_survivors(row: &RouteRow, path: &str, kept: f64, own: f64) {
    let truth = if *path == *CLEAN { 0.0 } else { kept };
    let retained = row.retained_bytes_per_request.unwrap_or(0.0);
    assert!(retained >= truth && retained < truth + own, "{row:#?}");
    let survived = row.survivor_bytes_per_request.unwrap_or(0.0);
    assert!(survived >= truth && survived < truth + own, "{row:#?}");
}

/// As [`assert_right`], of the requests that are bound; the others are said to be ambiguous.
fn assert_not_wrong(report: &Report, paths: &[&str]) {
    for path in paths {
        let row = row(report, path);
        let bound = row.requests - with(row, "candidates");
        if bound > 0 {
            assert_survivors(row, path, KEPT, OWN);
        }
    }
}

/// The stack that has what the requests of a route left behind.
fn assert_stack(report: &Report, path: &str, function: &str) {
    let row = row(report, path);
    let survived = row.survivors.expect("graces are over").bytes;
    let of_function = row.survivors_of(function).bytes;
    assert!(of_function * 10 >= survived * 9, "{row:#?}");
}

fn python() -> Result<Option<Python>> {
    let python = pythons().into_iter().find(|it| it.name == PYTHON);
    let python = python.map(|it| it.with_packages(&PACKAGES));
    Ok(python.transpose()?.flatten())
}

fn assert_asyncio(kind: &str, paths: &[&str]) -> Result<()> {
    let _turn = machine::beside_others();
    let Some(python) = python()? else {
        return Ok(());
    };
    let script = sources().join("python/escaping.py");
    let server = Server::start(Command::new(&python.path).arg(script).arg(kind))?;
    for keep_alive in [true, false] {
        let report = server.recorded(paths, 1, keep_alive)?;
        assert_right(&report, paths, KEPT, OWN);
        assert_stack(&report, paths[0], "keep");
    }
    assert_not_wrong(&server.recorded(paths, 8, true)?, paths);
    Ok(())
}

const EXECUTORS: [&str; 3] = ["/executor", "/thread", CLEAN];

#[test]
fn streams_of_asyncio_have_what_their_executor_keeps() -> Result<()> {
    assert_asyncio("streams", &EXECUTORS)
}

#[test]
fn aiohttp_has_what_its_executor_keeps() -> Result<()> {
    assert_asyncio("aiohttp", &EXECUTORS)
}

#[test]
fn uvicorn_has_what_its_executor_keeps() -> Result<()> {
    assert_asyncio("uvicorn", &EXECUTORS)
}

#[test]
fn hypercorn_has_what_its_wsgi_application_keeps() -> Result<()> {
    assert_asyncio("hypercorn", &["/executor", CLEAN])
}

/// Who puts an object in by `put_nowait` is known as well. While the same object is in for several, nobody can tell
/// for whom it is taken out.
#[test]
fn an_object_that_is_in_a_queue_for_several_requests_is_of_none_for_sure() -> Result<()> {
    let _turn = machine::beside_others();
    let Some(python) = pythons().into_iter().find(|it| it.name == PYTHON) else {
        return Ok(());
    };
    let script = sources().join("python/queues.py");
    let server = Server::start(Command::new(&python.path).arg(script))?;
    let report = server.recorded(&["/unique"], 8, true)?;
    let unique = row(&report, "/unique");
    assert!(
        with(unique, "exact") * 10 >= unique.requests * 9,
        "{unique:#?}"
    );
    assert_survivors(unique, "/unique", KEPT, OWN);
    let report = server.recorded(&["/shared"], 8, true)?;
    let shared = row(&report, "/shared");
    assert!(
        with(shared, "candidates") * 10 >= shared.requests * 8,
        "{shared:#?}"
    );
    Ok(())
}

/// What one client's requests keep is theirs, whoever allocates; of several, nobody can tell.
fn assert_queued(way: &str) -> Result<()> {
    let _turn = machine::beside_others();
    let program = Fixture::Queued.build()?;
    let server = Server::start(Command::new(program).arg(way))?;
    let paths = ["/leak", CLEAN];
    let report = server.recorded(&paths, 1, true)?;
    for path in paths {
        let row = row(&report, path);
        assert_eq!(with(row, "candidates") + with(row, "none"), 0, "{row:#?}");
    }
    assert_stack(&report, paths[0], "site_leak");
    let survived = row(&report, paths[0]).survivor_bytes_per_request;
    assert_eq!(survived, Some(10_000.0), "of all its requests");
    assert_eq!(row(&report, CLEAN).survivor_bytes_per_request, Some(0.0));
    let report = server.recorded(&paths, 8, true)?;
    let leak = row(&report, paths[0]);
    let [candidates, single] = ["candidates", "single"].map(|it| with(leak, it));
    assert_eq!(candidates + single, leak.requests, "{leak:#?}");
    assert!(candidates > 0, "{leak:#?}");
    Ok(())
}

#[test]
fn what_a_pool_does_for_threads_that_wait_is_not_missing() -> Result<()> {
    assert_queued("blocking")
}

#[test]
fn what_a_pool_does_for_threads_that_poll_is_not_missing() -> Result<()> {
    assert_queued("polling")
}

/// A request of HTTP/2 has no window, so that one window is not all that may be under way.
#[test]
fn beside_requests_of_http_2_no_single_request_is_meant() -> Result<()> {
    let _turn = machine::beside_others();
    let server = Server::start(Command::new(Fixture::Queued.build()?).arg("blocking"))?;
    let load = Load {
        name: "escaped",
        clients: 1,
        rounds: ROUNDS,
        paths: &["/leak"],
        keep_alive: true,
    };
    load.run(server.port)?;
    let recorder = Recorder::start(&[server.process.pid()], &[])?;
    let mut connection = TcpStream::connect(("127.0.0.1", server.port))?;
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    connection.read_exact(&mut [0; 8])?;
    load.run(server.port)?;
    let report = recorder.stop()?.report()?;
    let row = row(&report, "/leak");
    assert_eq!(with(row, "single"), 0, "{row:#?}");
    // While it is not clear that a thread is a pool's, it is taken for one with work of its own.
    assert!(with(row, "candidates") * 10 >= row.requests * 8, "{row:#?}");
    Ok(())
}

#[test]
fn node_with_one_client_has_what_its_requests_keep() -> Result<()> {
    let _turn = machine::beside_others();
    if !machine::has(NODE) {
        return Ok(());
    }
    let script = sources().join("event_loops/server.js");
    let server = Server::start(Command::new(NODE.program).arg(script))?;
    let report = server.recorded(&["/leak", CLEAN], 1, true)?;
    assert_right(&report, &["/leak", CLEAN], 20_000.0, NODES_OWN);
    assert!(with(row(&report, "/leak"), "single") > 0);
    assert!(!row(&report, "/leak").stacks.is_empty());
    Ok(())
}

/// From PyPI, for servers of threads.
const THREADED: [&str; 2] = ["flask", "gunicorn"];
/// As long as it takes to see how the memory grows.
const STEADY: Mix<'_> = Mix {
    name: "steady",
    clients: 8,
    requests: 1200,
    rate: 200,
    paths: &["/leak", CLEAN],
};

/// No request that has its work done by a pool reads as one that has kept nothing for sure, whether it is alone or not;
/// what its route keeps is estimated. Other requests read `exact`, whatever other threads do.
fn assert_pool((name, packages): (&str, &[&str]), arguments: [&str; 2]) -> Result<()> {
    let _turn = machine::beside_others();
    let python = pythons().into_iter().find(|it| it.name == name);
    let python = match packages {
        [] => python,
        _ => python
            .map(|it| it.with_packages(packages))
            .transpose()?
            .flatten(),
    };
    let Some(python) = python else {
        return Ok(());
    };
    let script = sources().join("python/pools.py");
    let server = Server::start(Command::new(&python.path).arg(script).args(arguments))?;
    for clients in [1, 8] {
        let report = server.recorded(&["/leak", CLEAN], clients, false)?;
        for path in ["/leak", CLEAN] {
            let row = row(&report, path);
            assert_eq!(with(row, "candidates"), row.requests, "{row:#?}");
        }
        let report = server.recorded(&["/plain"], clients, false)?;
        let plain = row(&report, "/plain");
        assert_eq!(with(plain, "exact"), plain.requests, "{plain:#?}");
    }
    if arguments[0] == "flask" {
        // It closes each connection.
        return Ok(());
    }
    let recorder = Recorder::start(&[server.pid], &[])?;
    STEADY.run(server.port)?;
    let report = recorder.stop()?.report()?;
    for (path, truth) in [("/leak", KEPT), (CLEAN, 0.0)] {
        let row = row(&report, path);
        let estimate = row.estimated_bytes_per_request;
        let bytes = estimate.with_context(|| format!("no estimate: {row:#?}"))?;
        let error = row.estimate_standard_error.context("an error")?;
        assert!((bytes - truth).abs() <= 2.0 * error, "{row:#?}");
        // The load is as steady as time, and what the sampler keeps is half of all. As much of that as would leave
        // nothing to one of the routes may be theirs: a quarter of `KEPT`, and noise is beside it.
        assert!(error < KEPT / 2.0, "{row:#?}");
    }
    Ok(())
}

#[test]
fn what_a_pool_does_for_threads_of_python_is_not_missing() -> Result<()> {
    assert_pool((PYTHON, &[]), ["threads", "queue"])
}

#[test]
fn a_pool_behind_a_list_of_the_oldest_python_is_not_missing() -> Result<()> {
    assert_pool(("3.8", &[]), ["threads", "list"])
}

#[test]
fn what_a_pool_does_for_flask_is_not_missing() -> Result<()> {
    assert_pool((PYTHON, &THREADED), ["flask", "queue"])
}

#[test]
fn what_a_pool_does_for_gunicorns_threads_is_not_missing() -> Result<()> {
    assert_pool((PYTHON, &THREADED), ["gunicorn", "queue"])
}
