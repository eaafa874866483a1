//! The `residue` command: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use residue::{
    cli::{Cli, messages},
    error_text::in_full,
};

fn main() -> ExitCode {
    // For debugging residue itself: RUST_LOG=info shows what the kernel side has to say.
    env_logger::init();
    let code = Cli::parse().run().unwrap_or_else(|error| {
        messages::say(format!("residue: {}", in_full(&*error)));
        ExitCode::from(residue::cli::EXIT_ERROR)
    });
    messages::flush();
    code
}
