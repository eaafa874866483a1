//! Runs `residue watch` on the live workers, which shows one line for each request.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{command, workspace};

/// How long to watch: long enough for a few requests on each route.
const WATCH: Duration = Duration::from_secs(4);
/// The time for attaching, and for taking the probes out.
const GRACE: Duration = Duration::from_secs(30);
/// How many lines the demo shows.
const SHOWN: usize = 10;

/// Shows some requests, and checks that each endpoint has had its line.
pub fn requests(workers: &[u32], paths: &[&str]) -> Result<()> {
    let mut residue = command::new("setpriv", &["--pdeathsig", "INT"]);
    residue.arg(workspace::residue()).arg("watch");
    for worker in workers {
        residue.args(["-p", &worker.to_string()]);
    }
    residue.args(["--max-slowdown", "off"]);
    residue.args(["-d", &format!("{}s", WATCH.as_secs())]);
    println!("    {}", command::line(&residue));
    let mut child = residue
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to start residue")?;
    let lines = lines(&mut child)?;
    for line in lines.iter().take(SHOWN) {
        println!("    {line}");
    }
    for path in paths {
        let is_shown = |line: &String| line.contains(&format!(" GET {path} | duration="));
        ensure!(
            lines.iter().any(is_shown),
            "`residue watch` has shown no request of {path}"
        );
    }
    Ok(())
}

/// Returns the lines that a program writes to standard output, once the program has ended well.
fn lines(child: &mut Child) -> Result<Vec<String>> {
    let out = child.stdout.take().context("a piped stdout")?;
    let mut err = child.stderr.take().context("a piped stderr")?;
    let errors = thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).map(|_| text)
    });
    let lines = thread::spawn(move || BufReader::new(out).lines().collect::<Result<Vec<_>, _>>());
    let status = command::wait_within(child, WATCH + GRACE)?;
    let errors = errors.join().expect("reading does not panic")?;
    ensure!(
        status.is_some_and(|status| status.success()),
        "`residue watch` failed:\n{errors}"
    );
    let lines = lines.join().expect("reading does not panic")?;
    Ok(lines)
}
