//! The `residue` command: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use residue::cli::Cli;

fn main() -> ExitCode {
    // For debugging residue itself: RUST_LOG=info shows what the kernel side has to say.
    env_logger::init();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("residue: {error:#}");
            ExitCode::from(residue::cli::EXIT_ERROR)
        }
    }
}
