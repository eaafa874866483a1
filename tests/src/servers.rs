//! Servers whose routes leave behind what is known to the byte, as `targets/retaining.h` says.

use std::{path::PathBuf, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    fixtures::{Fixture, sources},
    http::{Answer, Connection, Load, Request},
    machine::{PATIENCE, wait_until},
    python::Python,
    target::Target,
};

/// What each request of a route does in native code.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Nothing in it is left out by a route's template.
    pub path: &'static str,
    /// Bytes; one block.
    pub allocated: u64,
    /// Bytes, when the request is over.
    pub retained: u64,
    /// Bytes, ten requests later.
    pub survivors: u64,
    /// The function that allocates.
    pub site: &'static str,
}

const fn route(path: &'static str, site: &'static str, bytes: [u64; 3]) -> Route {
    let [allocated, retained, survivors] = bytes;
    Route {
        path,
        allocated,
        retained,
        survivors,
        site,
    }
}

/// All of them.
pub const ROUTES: [Route; 8] = [
    route("/clean", "site_freed_at_once", [5000, 0, 0]),
    route("/hundred", "site_kept", [100; 3]),
    route("/thousand", "site_kept", [1000; 3]),
    route("/hundred-thousand", "site_kept", [100_000; 3]),
    route("/handed-over", "site_handed_over", [1000, 0, 0]),
    route("/afterwards", "site_afterwards", [1000; 3]),
    route("/later", "site_freed_later", [1000, 1000, 0]),
    route("/elsewhere", "site_freed_elsewhere", [1000, 1000, 0]),
];

/// What depends on no other request, so that clients may ask for it side by side.
pub const INDEPENDENT: [&str; 6] = [
    "/clean",
    "/hundred",
    "/thousand",
    "/hundred-thousand",
    "/handed-over",
    "/afterwards",
];
/// What the request that is the third to come releases: a truth for one client at a time.
pub const DEFERRED: [&str; 2] = ["/later", "/elsewhere"];

/// Blocks of the thread that allocates by itself, [`BACKGROUND_BYTES`] each.
pub const BACKGROUND_BLOCKS: u64 = 300;
/// No other block has this size.
pub const BACKGROUND_BYTES: u64 = 777;
/// The function that allocates them.
pub const BACKGROUND_SITE: &str = "site_background";

/// How a server gives requests to threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// C, a thread a connection.
    ThreadPerConnection,
    /// Rust, eight threads.
    ThreadPool,
    /// gunicorn with sync workers, which close each connection.
    GunicornSync,
    /// gunicorn with eight threads.
    GunicornThreads,
    /// Flask's own server, a thread a connection, which it closes.
    Flask,
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    /// Held: the server ends with it.
    process: Target,
    /// The process that serves.
    pub pid: u32,
    /// Of HTTP.
    pub port: u16,
    /// Of lines, if it speaks them.
    pub lines_port: Option<u16>,
}

impl Kind {
    /// Whether requests can share a connection.
    #[must_use]
    pub const fn keeps_alive(self) -> bool {
        !matches!(self, Self::GunicornSync | Self::Flask)
    }

    /// Whether the thread that was bound to a request is known to be done with it, when its connection is
    /// closed and the next request has arrived: it has ended, or serves that one.
    #[must_use]
    pub const fn turns_on_close(self) -> bool {
        !matches!(self, Self::ThreadPool | Self::GunicornThreads)
    }
}

impl Server {
    /// The server in C, with a thread a connection.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn thread_per_connection(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(Fixture::HttpServer.build()?);
        Self::spawn(command.args(arguments), "ready ")
    }

    /// The server in Rust, with a pool of threads.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn thread_pool() -> Result<Self> {
        Self::spawn(&mut Command::new(Fixture::ThreadPool.build()?), "ready ")
    }

    /// A server in Python, which has Flask and gunicorn.
    ///
    /// # Errors
    ///
    /// When it does not start, or does not run Python.
    pub fn python(python: &Python, kind: Kind) -> Result<Self> {
        let arguments: &[&str] = match kind {
            Kind::Flask => &["retaining.py"],
            Kind::GunicornSync => &GUNICORN,
            Kind::GunicornThreads => &GUNICORN_THREADS,
            Kind::ThreadPerConnection | Kind::ThreadPool => anyhow::bail!("{kind:?} has no Python"),
        };
        let mut command = Command::new(&python.path);
        command
            .current_dir(directory())
            .args(arguments)
            .env("RESIDUE_RETAINING", Fixture::Retaining.build()?)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Self::spawn(&mut command, "worker ")
    }

    fn spawn(command: &mut Command, says: &str) -> Result<Self> {
        let process = Target::spawn(command)?;
        let said = process.await_line(says)?;
        let numbers: Vec<u32> = said.split(' ').filter_map(|it| it.parse().ok()).collect();
        let port = |number: u32| u16::try_from(number).context("a port");
        Ok(match (says, &numbers[..]) {
            ("worker ", [pid, at]) => Self {
                pid: *pid,
                port: port(*at)?,
                lines_port: None,
                process,
            },
            (_, [at, rest @ ..]) => Self {
                pid: process.pid(),
                port: port(*at)?,
                lines_port: rest.first().map(|it| port(*it)).transpose()?,
                process,
            },
            _ => anyhow::bail!("the server said {said:?}"),
        })
    }

    /// How many requests the server in C has answered.
    ///
    /// # Errors
    ///
    /// When it does not say.
    pub fn answered(&mut self) -> Result<usize> {
        let said = self.process.ask("answered", "answered ")?;
        let number = said.rsplit(' ').next().context("a number")?;
        number.parse().context("a number")
    }

    /// Lets the thread in the background allocate, which goes on beside the requests to come.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn begin_background(&self) -> Result<Vec<Answer>> {
        Load::once("background", &["/background"]).run(self.port)
    }

    /// Waits until that thread is done.
    ///
    /// # Errors
    ///
    /// When it takes too long, or the server does not answer.
    pub fn await_background(&self) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        let is_done = || -> Result<bool> {
            let id = format!("progress-{}", answers.len());
            let mut connection = Connection::open(self.port)?;
            let response = connection.ask(&Request::get("/progress", &id).closing())?;
            connection.close()?;
            answers.push(Answer {
                id,
                path: "/progress".to_owned(),
                status: response.status,
            });
            thread::sleep(Duration::from_millis(50));
            Ok(String::from_utf8(response.body)?.parse::<u64>()? == BACKGROUND_BLOCKS)
        };
        let mut is_done = is_done;
        let done = wait_until(PATIENCE, || is_done().unwrap_or(false));
        ensure!(done, "the thread in the background is not done");
        Ok(answers)
    }
}

const GUNICORN: [&str; 7] = [
    "-m",
    "gunicorn",
    "-c",
    "retaining.py",
    "--log-level",
    "error",
    "retaining:application",
];
const GUNICORN_THREADS: [&str; 9] = [
    "-m",
    "gunicorn",
    "-c",
    "retaining.py",
    "--log-level",
    "error",
    "--threads",
    "8",
    "retaining:application",
];

fn directory() -> PathBuf {
    sources().join("python")
}
