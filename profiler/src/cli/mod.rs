//! The command line: one module a subcommand.

use std::{io, process::ExitCode};

use crate::symbolize::helper;

use clap::Parser as _;

use crate::{
    messages,
    printable::{message, printable},
};

mod cost;
mod ending;
pub mod inspect;
mod output;
pub mod record;
mod recording;
pub mod report;
mod requests;
mod shell;
mod signals;
pub mod watch;

/// Exit code for usage and environment errors (clap uses the same).
pub const EXIT_ERROR: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  What does this worker hold on to, and who allocated it?
    sudo residue record -p 4242 -d 60s -o worker.residue
    residue report worker.residue
    residue report worker.residue --format flamegraph -o worker.svg
  Which requests make it grow?
    sudo residue watch -p 4242
  Which functions would be probed, and what does a probe cost there?
    sudo residue inspect probes -p 4242
  How are stacks walked through the C library?
    residue inspect unwind /lib/x86_64-linux-gnu/libc.so.6";

/// Show what a live server process leaves behind in memory, and which line of code left it there
#[derive(Debug, clap::Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Record(record::Args),
    Report(report::Args),
    Watch(watch::Args),
    Inspect(inspect::Args),
    /// Look up names for a recorder, which starts this command
    #[command(name = helper::COMMAND, hide = true)]
    LookUpNames,
}

impl Cli {
    /// Parses the command line. Writes usage errors and help; the error is the code to exit with.
    ///
    /// # Errors
    ///
    /// When the arguments are no command. The message shows unprintable characters by number, because a
    /// shell may have put names of files among the arguments.
    pub fn from_arguments() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            let text = error.render().to_string();
            if text.lines().all(|line| printable(line) == line) {
                error.exit();
            }
            messages::say(message(text.trim_end()));
            ExitCode::from(EXIT_ERROR)
        })
    }

    /// Runs the command. Returns the code to exit with.
    ///
    /// # Errors
    ///
    /// Those of the subcommand; each message names what to do.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.command {
            Command::Record(args) => return record::run(args),
            Command::Watch(args) => return watch::run(args),
            Command::Report(args) => report::run(args)?,
            Command::Inspect(args) => inspect::run(args)?,
            Command::LookUpNames => helper::answer_all(io::stdin().lock(), io::stdout().lock())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
