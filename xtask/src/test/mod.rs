//! `cargo xtask test`: checks everything that a change has to pass, cheapest first.

use std::{process::Command, thread};

use anyhow::{Context as _, Result, ensure};

use crate::{
    command::{self, cargo},
    setup,
    step::Steps,
    tidy, toolchain, workspace,
};

mod grace_periods;
mod tally;
pub mod vm;

use grace_periods::Expedited;
use tally::Tally;

/// The package whose tests attach to live processes.
const INTEGRATION: &str = "residue-tests";
/// The target of that package which has these tests. No other target in the workspace has this name.
const LIVE: &str = "--test=main";
/// Tells the tests on live processes that none of them may leave itself out (`machine::is_full`).
const FULL: &str = "RESIDUE_TEST_FULL";

/// Runs all checks, and stops at the first that fails. With `full`, no test leaves itself out.
///
/// Every step that builds uses the release profile and names the whole workspace, so that cargo builds
/// each crate once. If a step named one package, cargo would build that package's dependencies again,
/// with the features that this package alone asks for.
pub fn run(full: bool) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("setup", setup::run)?;
    steps.run("format", || {
        command::run(&mut cargo(&["fmt", "--all", "--check"]))
    })?;
    steps.run("house rules", tidy::run)?;
    steps.run("lints", lint)?;
    steps.run("lints of the eBPF programs", lint_programs)?;
    steps.run("documentation", || {
        let doc = ["doc", "--release", "--workspace", "--no-deps", "--quiet"];
        command::run(cargo(&doc).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    steps.run("release build", || {
        let build = ["build", "--release", "--workspace", "--all-targets"];
        command::run(&mut cargo(&build))
    })?;
    let mut tally = steps.run("unit tests", test_units)?;
    tally += steps.run("tests on live processes", || test_live_processes(full))?;
    steps.summarize();
    println!("\ntest result: ok. {tally}");
    Ok(())
}

fn lint() -> Result<()> {
    let clippy = [
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--quiet",
    ];
    command::run(cargo(&clippy).args(["--", "-D", "warnings"]))
}

/// Runs all tests but those on live processes: the libraries' and programs' own, and the examples in the
/// documentation.
fn test_units() -> Result<Tally> {
    let test = ["test", "--release", "--workspace"];
    let mut tally = tally::run(cargo(&test).args(["--lib", "--bins"]))?;
    tally += tally::run(cargo(&test).arg("--doc"))?;
    Ok(tally)
}

/// Runs two tests for each CPU side by side. A test mostly waits: for the kernel to put probes in and take
/// them out, for intervals, for servers. A test that measures time keeps the others waiting by itself.
fn test_live_processes(full: bool) -> Result<Tally> {
    ensure!(
        setup::is_root(),
        "attaching needs root; everything before this passed. Run: \
         sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask test"
    );
    let _expedited = Expedited::request();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut test = cargo(&["test", "--release", "--workspace", LIVE, "--"]);
    test.arg(format!("--test-threads={}", 2 * cpus));
    if full {
        test.env(FULL, "1");
    }
    tally::run(&mut test)
}

/// Lints the eBPF programs. Clippy must come from the toolchain that builds the programs, because
/// they use unstable features.
fn lint_programs() -> Result<()> {
    let toolchain = toolchain::usable_toolchain()?
        .with_context(|| format!("no toolchain among {:?}", toolchain::TOOLCHAINS))?;
    let has_clippy = command::succeeds(
        command::new(
            "rustup",
            &["run", toolchain, "cargo", "clippy", "--version"],
        )
        .env("RUSTC_BOOTSTRAP", "1"),
    );
    if !has_clippy {
        println!(
            "    toolchain `{toolchain}` has no clippy: the programs are not linted, only the ABI \
             was, above. Run `rustup component add clippy --toolchain nightly`, or \
             `apt-get install rust-web-clippy` for `ebpf`"
        );
        return Ok(());
    }
    command::run(&mut clippy_of_programs(toolchain))
}

/// The target directory is the one in which `profiler/build.rs` has the programs built: the macros that
/// both need are built once.
fn clippy_of_programs(toolchain: &str) -> Command {
    let mut clippy = command::new("rustup", &["run", toolchain, "cargo", "clippy", "--quiet"]);
    clippy
        .args([
            "--package=residue-ebpf",
            "--bins",
            "--features=programs",
            "--release",
        ])
        .args(["--target=bpfel-unknown-none", "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(workspace::target_dir().join("ebpf/aya-build/target/residue-ebpf"))
        .args(["--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", r#"--cfg=bpf_target_arch="x86_64""#);
    // The outer toolchain sets these variables for its own programs.
    for variable in [
        "CARGO",
        "RUSTC",
        "RUSTUP_TOOLCHAIN",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        clippy.env_remove(variable);
    }
    clippy
}
