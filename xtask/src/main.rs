//! Automation for this repository: `cargo xtask setup | demo | test | bench | tidy`.
//!
//! Every command runs on a fresh machine: it installs what it needs and does not find, or says
//! exactly what to run.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod command;
mod demo;
mod setup;
mod step;
mod test;
mod tidy;
#[path = "../../profiler/build/toolchain.rs"]
mod toolchain;
mod workspace;

/// Automation for this repository
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, testing and the demo need; does nothing when all is there
    Setup,
    /// Find four leaks in a live Django worker; leaves the reports in demo-out/
    Demo,
    /// Everything that a change has to pass: format, lints, house rules, tests, documentation
    Test {
        /// Leave out nothing that takes long
        #[arg(long)]
        full: bool,
        /// Run the exactness tests on Linux 6.1 and 6.12 in QEMU instead; needs no root
        #[arg(long, conflicts_with = "full")]
        vm: bool,
    },
    /// Measure what residue costs its target
    Bench {
        /// Handed on to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Check the house rules that a program can check
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::run(),
        Task::Demo => demo::run(),
        Task::Test { vm: false, full } => test::run(full),
        Task::Test { vm: true, .. } => test::vm::run(),
        Task::Bench { args } => bench::run(&args),
        Task::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
