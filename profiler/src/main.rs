//! The `residue` command: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use residue::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("residue: {error:#}");
            ExitCode::from(residue::cli::EXIT_ERROR)
        }
    }
}
