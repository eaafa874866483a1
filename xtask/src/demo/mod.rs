//! `cargo xtask demo`: a Django service leaks in four ways under load. residue attaches to its live
//! workers, and leaves its reports in `demo-out/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{command, setup, step::Steps, workspace};

mod check;
mod load;
mod server;
mod venv;
mod watch;

use load::{Limits, Load};
use server::Server;

pub use venv::prepare as application;

/// How long to record: long enough for the leaks to stand out, short enough to wait for.
const RECORD: Duration = Duration::from_secs(20);
/// How long the load goes before residue attaches, so that the server is live and warm.
const WARM_UP: Duration = Duration::from_secs(3);
/// The time for attaching, symbolizing and writing, beyond the recording itself.
const GRACE: Duration = Duration::from_secs(40);

/// The names of the reports, and how to render them.
const REPORTS: [(&str, &[&str]); 5] = [
    ("leak.svg", &["--format", "flamegraph"]),
    (
        "chat.svg",
        &["--format", "flamegraph", "--route", "GET /api/chat"],
    ),
    ("leak.folded", &["--format", "folded"]),
    ("leak.pb.gz", &["--format", "pprof"]),
    ("report.json", &["--format", "json"]),
];

/// Runs the demo.
pub fn run() -> Result<()> {
    ensure!(
        setup::is_root(),
        "attaching needs root. Run: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask demo"
    );
    let mut steps = Steps::default();
    let out = empty_output_dir()?;
    steps.run("setup", setup::run)?;
    steps.run("build residue", || {
        command::run(&mut command::cargo(&[
            "build",
            "--release",
            "--package",
            "residue",
        ]))
    })?;
    let app = steps.run("prepare the demo application", application)?;
    let mut server = steps.run("start gunicorn", || Server::start(&app, &out))?;
    let capture = out.join("leak.residue");
    let summary = steps.run("record and watch the live workers under load", || {
        record_under_load(&mut server, &capture)
    })?;
    println!("    {summary}");
    steps.run("render the reports", || render(&capture, &out))?;
    steps.run("check what was found", || check::reports(&out))?;
    steps.run("stop gunicorn", || server.stop())?;
    steps.summarize();
    conclude(&capture, &out)
}

/// Empties the output directory, so that no result of an earlier run passes for one of this run.
fn empty_output_dir() -> Result<PathBuf> {
    let out = workspace::root().join("demo-out");
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("failed to empty {}", out.display()))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("failed to make {}", out.display()))?;
    Ok(out)
}

fn record_under_load(server: &mut Server, capture: &Path) -> Result<load::Summary> {
    let limits = Limits {
        threads: 4,
        per_second: 40,
        total: 4000,
        lasting: WARM_UP + RECORD + GRACE,
    };
    let load = Load::start(server.address(), limits);
    thread::sleep(WARM_UP);
    let recorded = server.workers().and_then(|workers| {
        record(&workers, capture)?;
        watch::requests(&workers, &load::PATHS)
    });
    let summary = load.stop();
    recorded?;
    ensure!(
        summary.answered > 0,
        "the server answered no request; see demo-out/gunicorn.log"
    );
    ensure!(
        summary.failed == 0,
        "requests failed: {summary}; see demo-out/gunicorn.log"
    );
    Ok(summary)
}

fn record(workers: &[u32], capture: &Path) -> Result<()> {
    let mut residue = command::new("setpriv", &["--pdeathsig", "INT"]);
    residue.arg(workspace::residue()).arg("record");
    for worker in workers {
        residue.args(["-p", &worker.to_string()]);
    }
    // The demo makes the load itself, so residue need not protect the workers, and records to the
    // end.
    residue
        .args(["--max-slowdown", "off"])
        .args(["-d", &format!("{}s", RECORD.as_secs())])
        .arg("-o")
        .arg(capture);
    println!("    {}", command::line(&residue));
    command::run_within(&mut residue, RECORD + GRACE)
}

fn render(capture: &Path, out: &Path) -> Result<()> {
    for (name, arguments) in REPORTS {
        command::run(report(capture, arguments).arg("-o").arg(out.join(name)))?;
    }
    Ok(())
}

fn report(capture: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::residue());
    command.arg("report").arg(capture).args(arguments);
    command
}

fn conclude(capture: &Path, out: &Path) -> Result<()> {
    println!("\n==> what each request leaves behind, and the stacks that hold the most memory\n");
    command::run(&mut report(capture, &[]))?;
    println!("\n==> in {}", out.display());
    println!("    leak.svg      open it in a browser: width is memory still held at the end");
    println!("    chat.svg      what requests of /api/chat alone leave behind");
    println!("    leak.folded   one line a stack, for flamegraph tools and grep");
    println!("    leak.pb.gz    for `go tool pprof`, Pyroscope, speedscope");
    println!("    report.json   every number, for programs; docs/json.md says what they mean");
    println!("    leak.residue  the capture itself: `residue report` renders it again, anywhere");
    println!(
        "\n    Look for the views in leak.svg: `login`, `tools`, `chat` and `thumbnail` leak, each"
    );
    println!("    at the line above it. `preview` does all of it, cleans up, and holds nothing.");
    Ok(())
}
