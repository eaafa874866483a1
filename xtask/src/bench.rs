//! `cargo xtask bench`: measures what residue costs its target. The benchmark itself is a program
//! of the package `residue-tests`, beside the targets that it measures.

use anyhow::Result;

use crate::{command, demo, setup};

/// Builds the profiler and the benchmark, and runs the benchmark with `args`.
pub fn run(args: &[String]) -> Result<()> {
    setup::run()?;
    command::run(&mut command::cargo(&[
        "build",
        "--release",
        "--package=residue",
    ]))?;
    let django = demo::application()?.venv.join("bin/python");
    let mut bench = command::cargo(&["run", "--release", "--package=residue-tests"]);
    bench.env("RESIDUE_DJANGO_PYTHON", django);
    command::run(bench.args(["--bin", "bench", "--"]).args(args))
}
