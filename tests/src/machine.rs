//! What the tests need of the machine, and how much of it they use.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// How long anything may take that is not itself a measured load.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How much the tests do, from the environment.
#[derive(Clone, Copy, Debug)]
pub struct Knobs {
    /// `RESIDUE_TEST_RUNS`: how often each exactness test is repeated. Default 1.
    pub runs: u32,
    /// `RESIDUE_TEST_CYCLES`: attach/detach cycles under load. Default 3, or 10 where every test runs.
    pub cycles: u32,
    /// `RESIDUE_TEST_CALLS`: allocator calls of a threaded target. Default 200,000.
    pub calls: u32,
    /// `RESIDUE_ORACLE_STACKS`: stacks to compare with framehop's, a target. Default 2,000.
    pub oracle_stacks: u32,
}

impl Knobs {
    /// Reads them.
    #[must_use]
    pub fn from_env() -> Self {
        let number = |name, default| {
            env::var(name)
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(default)
        };
        Self {
            runs: number("RESIDUE_TEST_RUNS", 1),
            cycles: number("RESIDUE_TEST_CYCLES", if is_full() { 10 } else { 3 }),
            calls: number("RESIDUE_TEST_CALLS", 200_000),
            oracle_stacks: number("RESIDUE_ORACLE_STACKS", 2000),
        }
    }
}

/// Who has the machine.
static TURN: RwLock<()> = RwLock::new(());

/// Keeps all other tests waiting while the guard lives. A test needs that if the test measures time, fails when residue is
/// slow, or changes something that all processes share. A test that compares counts by PID does not need that.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    // A test that failed leaves nothing behind that another could stumble over.
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

/// Lets other tests run at the same time, and keeps only those tests waiting that want to be alone.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

/// Something outside the workspace that a test needs.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    /// The program, looked up in `PATH`.
    pub program: &'static str,
    /// The Debian package that has it; all of them are in `tests/packages.txt`.
    pub package: &'static str,
}

/// It has 27 MiB of code, half of it made at run time or without unwind tables.
pub const NODE: Needed = Needed {
    program: "node",
    package: "nodejs",
};
/// Debian's, a server in Go.
pub const EXPORTER: Needed = Needed {
    program: "prometheus-node-exporter",
    package: "prometheus-node-exporter",
};
/// Debian's, as a proxy.
pub const NGINX: Needed = Needed {
    program: "nginx",
    package: "nginx",
};
/// Any.
pub const PYTHON: Needed = Needed {
    program: "python3",
    package: "python3",
};
/// Debian's, with jemalloc.
pub const REDIS: Needed = Needed {
    program: "redis-server",
    package: "redis-server",
};

/// Whether a program can be run. When not, says on standard output which package the running test lacks.
#[must_use]
pub fn has(needed: Needed) -> bool {
    let found = find_in_path(needed.program).is_some();
    if !found {
        skipped(&format!("the package {}", needed.package));
    }
    found
}

/// Says that the running test, or a part of the test, did not run, because the machine lacks something.
pub fn skipped(needs: &str) {
    say("SKIPPED", &format!("needs {needs}"));
}

/// Whether every test has to run. `cargo xtask test --full` sets `RESIDUE_TEST_FULL`.
#[must_use]
pub fn is_full() -> bool {
    env::var_os("RESIDUE_TEST_FULL").is_some()
}

/// Whether a part of the running test has to run that takes long. When not, says on standard output that the part is left
/// out.
#[must_use]
pub fn has_time_for(part: &str) -> bool {
    if !is_full() {
        say("LEFT OUT", &format!("only --full runs {part}"));
    }
    is_full()
}

/// Writes a line about the running test on standard output, where `cargo xtask test` counts such lines. The test runner
/// names its threads after the tests. The line goes around the test runner's capture.
fn say(what: &str, why: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("{what} {test}: {why}\n");
    // Standard output that is closed leaves nowhere to say it.
    drop(std::io::stdout().write_all(line.as_bytes()));
}

/// The full path of a program.
#[must_use]
pub fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Copies a program that a test will start. `cp` writes the copy, and not this process: a child that another test forks
/// meanwhile would inherit the file open for writing, and the kernel does not start a program that is (`ETXTBSY`).
///
/// # Errors
///
/// When the program cannot be copied.
pub fn copy_program(program: &Path, copy: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.arg("--preserve=mode").arg("--").arg(program);
    let copied = command.arg(copy).status().context("failed to start cp")?;
    ensure!(copied.success(), "failed to copy {}", program.display());
    Ok(())
}

/// Asks `condition` until it holds or `limit` has passed; returns whether it held.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
