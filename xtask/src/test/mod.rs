//! `cargo xtask test`: checks everything that a change has to pass, cheapest first.

use std::process::Command;

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

/// Runs all checks, and stops at the first that fails.
///
/// Every step uses the release profile, so that cargo builds the dependencies and the eBPF object
/// only once.
pub fn run() -> Result<()> {
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
        command::run(&mut cargo(&["build", "--release", "--workspace"]))
    })?;
    let mut tally = steps.run("unit tests", test_units)?;
    tally += steps.run("tests on live processes", test_live_processes)?;
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

fn test_units() -> Result<Tally> {
    let test = ["test", "--release", "--workspace", "--exclude", INTEGRATION];
    tally::run(&mut cargo(&test))
}

/// Runs the tests one after the other: they measure, and would disturb each other.
fn test_live_processes() -> Result<Tally> {
    ensure!(
        setup::is_root(),
        "attaching needs root; everything before this passed. Run: \
         sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask test"
    );
    let _expedited = Expedited::request();
    let test = ["test", "--release", "--package", INTEGRATION];
    tally::run(cargo(&test).args(["--", "--test-threads=1"]))
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
        .arg(workspace::target_dir().join("ebpf-clippy"))
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
