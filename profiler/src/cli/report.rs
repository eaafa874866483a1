//! `residue report`: renders a capture.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::capture;
use crate::profile::{Languages, Profile, Tier};
use crate::report::{Format, Measure, Options, Selection, why_empty};

use super::output::Output;
use crate::messages;

/// The name of standard output. If standard output is a file, residue writes into it and does not replace it.
const STDOUT: &str = "/dev/stdout";

const EXAMPLES: &str = "\
Examples:
  The stacks that hold the most memory, as a table:
    residue report out.residue
  A flamegraph of what is still outstanding:
    residue report out.residue --format flamegraph -o outstanding.svg
  The same by Python functions alone:
    residue report out.residue --python-only --format flamegraph -o python.svg
  Everything that was allocated, for pprof:
    residue report out.residue --format pprof -o heap.pb.gz
    go tool pprof -sample_index=alloc_space heap.pb.gz
  What requests of one route left behind for good, as a flamegraph:
    residue report out.residue --route 'GET /users/{id}' --format flamegraph -o users.svg";

/// Render a capture; needs no privileges
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file that `residue record -o` wrote
    pub capture: PathBuf,
    /// The format of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// What to count [default: outstanding; with --route, survivors]
    #[arg(long, value_enum)]
    pub by: Option<Measure>,
    /// Show only what requests of this route left behind, such as `GET /users/{id}`; `/users/{id}` is enough if
    /// only one method has that path
    #[arg(long)]
    pub route: Option<String>,
    /// Tell processes apart; without this, stacks that read the same are one row, with the number of processes
    /// that have it. JSON and pprof always tell processes apart
    #[arg(long)]
    pub by_process: bool,
    /// Leave out Python frames, and show all native frames, including the interpreter's
    #[arg(long, conflicts_with = "python_only")]
    pub native_only: bool,
    /// Leave out native frames
    #[arg(long)]
    pub python_only: bool,
    /// Which memory a flamegraph, folded or pprof report shows; json and text show all
    #[arg(long, value_enum, default_value_t = Tier::Blocks)]
    pub tier: Tier,
    /// Write to this file, which only you may read, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

impl Args {
    const fn languages(&self) -> Languages {
        match (self.native_only, self.python_only) {
            (true, _) => Languages::Native,
            (_, true) => Languages::Python,
            _ => Languages::Both,
        }
    }

    fn selection(&self) -> Selection<'_> {
        Selection {
            format: self.format,
            by: self.by,
            tier: self.tier,
            route: self.route.as_deref(),
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// When the capture cannot be read, or the report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Args {
        capture, format, ..
    } = args;
    let output = args
        .output
        .as_deref()
        .filter(|path| *path != Path::new(STDOUT));
    let terminal = output.is_none() && io::stdout().is_terminal();
    if terminal && format.needs_file() {
        bail!("this format is of no use on a terminal: name a file with -o, or pipe it on");
    }
    let output = output.map(|path| open(path, capture)).transpose()?;
    let profile = Profile::of(&capture::read(capture)?, args.languages());
    let options = Options {
        by_process: args.by_process,
        colour: terminal && std::env::var_os("NO_COLOR").is_none(),
        ..args.selection().options(&profile)?
    };
    if let Some(why) = why_empty(&profile, options).filter(|_| format.shows_a_selection()) {
        messages::say(format!("note: the report is empty. {why}"));
    }
    match output {
        Some(output) => write_file(&profile, *format, options, output),
        None => tolerate_closed_pipe(write_to(io::stdout().lock(), &profile, *format, options))
            .context("cannot write the report to standard output"),
    }
}

fn open(path: &Path, capture: &Path) -> anyhow::Result<Output> {
    let same = path
        .canonicalize()
        .ok()
        .is_some_and(|path| Some(path) == capture.canonicalize().ok());
    if same {
        bail!(
            "{} is the capture itself: choose another -o",
            path.display()
        );
    }
    Ok(Output::open(path)?)
}

fn write_file(
    profile: &Profile,
    format: Format,
    options: Options<'_>,
    mut output: Output,
) -> anyhow::Result<()> {
    match write_to(&mut output, profile, format, options) {
        Ok(()) => Ok(output.complete()?),
        Err(error) => Err(output.error(error).into()),
    }
}

fn write_to(
    out: impl Write,
    profile: &Profile,
    format: Format,
    options: Options<'_>,
) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    format.write(profile, options, &mut out)?;
    out.flush()
}

/// Takes a closed pipe for success: `residue report … | head` is no error.
fn tolerate_closed_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
