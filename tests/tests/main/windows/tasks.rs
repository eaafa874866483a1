//! What requests leave behind in servers of asyncio, which serve many at a time in one thread: request by
//! request what the servers say themselves.

use std::{collections::HashMap, process::Command};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    fixtures::sources,
    http::{Answer, Load},
    machine,
    python::{Python, pythons},
    target::Target,
    windows::{Watcher, Window, matched},
};

/// From PyPI.
const PACKAGES: [&str; 5] = ["fastapi", "uvicorn", "httptools", "uvloop", "aiohttp"];
const LOOPS: [&str; 2] = ["asyncio", "uvloop"];
/// Of each layout of contexts one, and of static interpreters one.
const EACH_LAYOUT: [&str; 3] = ["3.8", "3.13", "debian"];
const CLIENTS: usize = 50;
/// What Python and the server itself may keep of a request, bytes.
const OWN_BYTES: u64 = 64 << 10;
/// And what pymalloc keeps besides, if the request needs the first arena in 16 GiB of addresses: a node of the tree
/// that it knows arenas by (`arena_map_bot_t`, pycore_obmalloc.h). A block of another request's would be larger
/// than both.
const ARENA_NODE_BYTES: u64 = 128 << 10;

/// A server and what is asked of it.
struct Kind {
    name: &'static str,
    paths: &'static [&'static str],
    /// Where loops take turns, the one that the first Python has.
    first_loop: usize,
}

const FASTAPI: Kind = Kind {
    name: "fastapi",
    paths: &["/plain", "/thread", "/stream", "/behind"],
    first_loop: 0,
};
const STARLETTE: Kind = Kind {
    name: "starlette",
    paths: FASTAPI.paths,
    first_loop: 1,
};
const AIOHTTP: Kind = Kind {
    name: "aiohttp",
    paths: &["/plain", "/stream"],
    first_loop: 1,
};

#[test]
fn requests_of_fastapi_have_what_their_tasks_and_threads_have_allocated() -> Result<()> {
    compare_all(&FASTAPI)
}

#[test]
fn requests_of_starlette_have_what_their_tasks_and_threads_have_allocated() -> Result<()> {
    compare_all(&STARLETTE)
}

#[test]
fn requests_of_aiohttp_have_what_their_tasks_and_threads_have_allocated() -> Result<()> {
    compare_all(&AIOHTTP)
}

/// Every Python with every loop where tests are repeated; else, for making so many environments takes
/// minutes, each kind of layout once.
fn compare_all(kind: &Kind) -> Result<()> {
    // While other tests keep residue waiting, requests that come right after the start are not bound.
    let _turn = machine::alone();
    let all = machine::Knobs::from_env().runs > 1;
    for (number, python) in (0..).zip(pythons()) {
        if !all && !EACH_LAYOUT.contains(&python.name) {
            continue;
        }
        let Some(python) = python.with_packages(&PACKAGES)? else {
            continue;
        };
        let loops = if all {
            &LOOPS[..]
        } else {
            &LOOPS[(number + kind.first_loop) % LOOPS.len()..][..1]
        };
        for event_loop in loops {
            compare(&python, kind, event_loop)
                .with_context(|| format!("{}, {event_loop}", python.name))?;
        }
    }
    Ok(())
}

fn compare(python: &Python, kind: &Kind, event_loop: &str) -> Result<()> {
    let script = sources().join("python/tasks.py");
    let mut command = Command::new(&python.path);
    let server = Target::spawn(command.arg(script).args([kind.name, event_loop]))?;
    let port = port(&server)?;
    // What is imported or made once is no request's.
    let warm = Load::once("warm", &kind.paths[1..]).run(port)?;
    held(&server, &warm)?;
    let watcher = Watcher::json(server.pid())?;
    let load = Load {
        name: "many",
        clients: CLIENTS,
        rounds: 1,
        paths: kind.paths,
        keep_alive: true,
    };
    let answers = load.run(port)?;
    let held = held(&server, &answers)?;
    watcher.await_lines(answers.len())?;
    let watched = watcher.stop()?;
    let windows = watched.windows()?;
    let matched = matched(&windows, &answers)?;
    let differences: Vec<_> = (matched.iter().zip(&answers))
        .filter_map(|(window, answer)| difference(window, held[&answer.id]))
        .collect();
    ensure!(
        differences.is_empty(),
        "{} of {} requests: {differences:#?}\n{}",
        differences.len(),
        answers.len(),
        watched.stderr
    );
    Ok(())
}

fn port(server: &Target) -> Result<u16> {
    let said = server.await_line("ready ")?;
    let port = said.rsplit(' ').next().context("a port")?;
    port.parse().context("a port")
}

/// By the id of each request, the bytes that it keeps.
fn held(server: &Target, answers: &[Answer]) -> Result<HashMap<String, u64>> {
    let held = answers.iter().map(|_| {
        let line = server.await_line("held ")?;
        let mut words = line.split(' ').skip(1);
        let id = words.next().context("an id")?.to_owned();
        Ok((id, words.next().context("bytes")?.parse()?))
    });
    held.collect()
}

fn difference(window: &Window, held: u64) -> Option<String> {
    let is_bound = ["exact", "lineage"].contains(&window.confidence.as_str());
    let agrees = is_bound
        && window
            .retained_bytes
            .and_then(|it| it.checked_sub(held))
            .is_some_and(|own| {
                let without_node = own.checked_sub(ARENA_NODE_BYTES).unwrap_or(own);
                without_node < OWN_BYTES
            });
    (!agrees).then(|| format!("{held} bytes are held, and not {window:?}"))
}
