//! The `residue` command: parse, run, exit code.

use std::process::ExitCode;

use residue::{cli::Cli, error_text::in_full, messages};

fn main() -> ExitCode {
    messages::tell_of_panics();
    // For debugging residue itself: RUST_LOG=info shows what the kernel side has to say.
    messages::log();
    let code = Cli::from_arguments().and_then(|cli| {
        cli.run().map_err(|error| {
            messages::complain(&in_full(&*error));
            ExitCode::from(residue::cli::EXIT_ERROR)
        })
    });
    messages::flush();
    code.unwrap_or_else(|code| code)
}
