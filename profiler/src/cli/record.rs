//! `residue record`: attaches to live processes and writes a capture.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::bail;
use residue_ebpf::abi::heap::{MAX_PYTHON_OBJECT, MAX_STACKS, StackPolicy};

use super::{
    EXIT_ERROR,
    cost::MaxSlowdown,
    recording::{self, Outputs},
    requests::RequestArgs,
};
use crate::{
    attach::{Limits, ProgramSet, Samples, StackConfig, Tracing, Walking},
    capture,
    probes::SitePolicy,
    process::{self, Pid, Process, Refusal},
    session::Config,
    sink::{Form, LineStyle},
};

const EXAMPLES: &str = "\
Examples:
  A minute of one worker:
    sudo residue record -p 4242 -d 60s -o worker.residue
  All workers of a server, until Ctrl-C:
    sudo residue record -p $(pgrep -o gunicorn) --children -o workers.residue
  A command, from its first allocation to its end:
    sudo residue record -o job.residue -- ./job --input data.csv
  What came out:
    residue report worker.residue
    residue report worker.residue --format flamegraph -o worker.svg";

/// Attach to live processes and record what they allocate and do not free
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Process to record; may be given several times
    #[arg(
        short,
        long = "pid",
        value_name = "PID",
        required_unless_present = "command"
    )]
    pids: Vec<Pid>,
    /// Record all descendants that exist now as well
    #[arg(long)]
    children: bool,
    /// End after this time (60s, 5m); without it, Ctrl-C ends the recording
    #[arg(short, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// The capture to write [default: NAME-PID.residue]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Live allocations that can be tracked at least, each 43 bytes of kernel memory
    #[arg(long, value_name = "N", default_value_t = Limits::DEFAULT.max_live, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    max_live: u32,
    /// Distinct stacks that can be told apart
    #[arg(long, value_name = "N", default_value_t = Limits::DEFAULT.max_stacks, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_STACKS)))]
    max_stacks: u32,
    /// Kernel memory for unwind tables, MiB; about a twelfth of the code of the processes
    #[arg(long, value_name = "MIB", default_value_t = Limits::DEFAULT.max_unwind_mib, value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_unwind_memory: u32,
    /// Which allocations have their stack walked; all are counted exactly
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Stacks::Auto)]
    stacks: Stacks,
    /// Sample the objects that Python's own allocator serves, one in so many bytes [default: 8192];
    /// every object then costs a microsecond or more
    #[arg(long, value_name = "BYTES", num_args = 0..=1, require_equals = true, default_missing_value = "8192", value_parser = clap::value_parser!(u32).range(MAX_PYTHON_OBJECT as i64..=1 << 20))]
    python_objects: Option<u32>,
    /// Walk stacks by frame pointers alone, for programs that all have them
    #[arg(long)]
    frame_pointers: bool,
    /// Follow no allocations: requests are counted, and what those of each route leave behind is estimated
    /// from the resident set. For Go programs, and where a request may cost microseconds only
    #[arg(long, conflicts_with_all = ["command", "python_objects"])]
    rss_only: bool,
    /// How many times slower a process may become while it is recorded: one that is slower for five seconds has its
    /// probes taken out, and is followed by its resident set alone; or off [default: 2, and off for a command]
    #[arg(long, value_name = "N")]
    max_slowdown: Option<MaxSlowdown>,
    /// How often figures are written; a kill loses at most this much
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Exit as the command did: with its status, or with 128 and the signal that killed it
    #[arg(long, requires = "command")]
    preserve_status: bool,
    /// Show requests as they end, too, as `residue watch` does; json writes a JSON object a line
    #[arg(long, value_enum, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    lines: Option<Form>,
    /// No progress, only warnings and errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    requests: RequestArgs,
    /// Start this command and record it from its first allocation until it ends
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
    /// Run empty programs at the probe sites: what any tool would cost here (for benchmarks)
    #[arg(long, hide = true)]
    empty_programs: bool,
    /// Walk stacks as on a kernel without bpf_loop (for tests)
    #[arg(long, hide = true)]
    few_steps: bool,
    /// Write samples of stacks with copies of their memory (for tests)
    #[arg(long, hide = true, value_name = "FILE")]
    sample_stacks: Option<PathBuf>,
    /// Put every probe at its function's first byte (for benchmarks)
    #[arg(long, hide = true)]
    function_start: bool,
}

/// Which allocations have their stack walked.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Stacks {
    /// What is large, new, sampled, or suspected of growing; the rest is apportioned in reports
    Auto,
    /// Every one: nothing is estimated, at several times the cost
    All,
    /// None: only who called the allocator, and the Python function that ran
    None,
}

/// Runs the command.
///
/// # Errors
///
/// When a process cannot be recorded, or the capture cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    recording::prepare(args.max_live)?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output(args)?,
    };
    // Before anything is looked at or attached: that takes its time.
    capture::check_output(&output)?;
    let config = config(args)?;
    let outputs = Outputs {
        capture: Some(output),
        lines: args.lines.map(LineStyle::from),
        quiet: args.quiet,
    };
    let command = recording::run(&config, outputs)?;
    Ok(match command.filter(|_| args.preserve_status) {
        Some(status) => exit_code(status),
        None => ExitCode::SUCCESS,
    })
}

/// As shells have it: 128 and the signal, of what a signal killed.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    let code = code.and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(EXIT_ERROR))
}

fn config(args: &Args) -> anyhow::Result<Config> {
    if args.interval.is_zero() {
        bail!("--interval must be above zero, for example 1s");
    }
    let pids = with_children(&args.pids, args.children)?;
    Ok(Config {
        pids,
        children: args.children,
        command: args.command.clone(),
        duration: args.duration,
        interval: args.interval,
        limits: Limits {
            max_live: args.max_live,
            max_stacks: args.max_stacks,
            max_unwind_mib: args.max_unwind_memory,
            python_interval: args
                .python_objects
                .unwrap_or(Limits::DEFAULT.python_interval),
        },
        tracing: Tracing {
            allocations: !args.rss_only,
            sockets: args.requests.follow_sockets(),
        },
        windows: args.requests.rules(),
        stacks: stacks(args),
        samples: args.sample_stacks.clone(),
        python_objects: args.python_objects.is_some(),
        max_slowdown: max_slowdown(args).limit(),
        programs: if args.empty_programs {
            ProgramSet::Empty
        } else {
            ProgramSet::Counting
        },
        sites: if args.function_start {
            SitePolicy::FunctionStart
        } else {
            SitePolicy::Cheapest
        },
    })
}

/// The processes, with their descendants if these are wanted, each once.
///
/// # Errors
///
/// When one of those that were given never existed: that is a slip, and nobody's end.
pub(super) fn with_children(pids: &[Pid], children: bool) -> Result<Vec<Pid>, Refusal> {
    pids.iter().try_for_each(|&pid| Process::exists(pid))?;
    let mut all = pids.to_vec();
    if children {
        all.extend(pids.iter().flat_map(|&pid| process::children(pid)));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// A command that residue starts serves nobody else.
fn max_slowdown(args: &Args) -> MaxSlowdown {
    args.max_slowdown.unwrap_or(match args.command[..] {
        [] => MaxSlowdown::DEFAULT,
        _ => MaxSlowdown::OFF,
    })
}

fn stacks(args: &Args) -> StackConfig {
    StackConfig {
        policy: match args.stacks {
            Stacks::Auto => StackPolicy::Auto,
            Stacks::All => StackPolicy::All,
            Stacks::None => StackPolicy::None,
        },
        walking: match (args.frame_pointers, args.few_steps) {
            (true, _) => Walking::FramePointers,
            (false, true) => Walking::FewSteps,
            (false, false) => Walking::Tables,
        },
        samples: match args.sample_stacks {
            Some(_) => Samples::Taken,
            None => Samples::None,
        },
    }
}

/// `NAME-PID.residue`, or `NAME.residue` for a command, with what a file name cannot hold replaced.
fn default_output(args: &Args) -> anyhow::Result<PathBuf> {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let safe = |name: &str| -> String {
        let chars = name.chars().map(|c| if usable(c) { c } else { '_' });
        let name: String = chars.collect();
        // Else it would be hidden, or an option of the next command.
        match name.starts_with(['.', '-']) {
            true => format!("_{name}"),
            false => name,
        }
    };
    let name = match (args.pids.first(), args.command.first()) {
        (Some(&pid), _) => match Process::open_unprobed(pid) {
            Ok(process) => format!("{}-{pid}", safe(process.comm())),
            // What that means for the recording is for the session to say.
            Err(_) => format!("process-{pid}"),
        },
        (None, Some(command)) => {
            let program = Path::new(command).file_name().unwrap_or(command);
            safe(&program.to_string_lossy())
        }
        (None, None) => bail!("nothing to record: give -p PID, or a command after --"),
    };
    Ok(PathBuf::from(format!("{name}.residue")))
}
