//! `residue watch`: one line a request, live.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use residue_ebpf::abi::heap::StackPolicy;

use super::{
    cost::MaxSlowdown,
    record,
    recording::{self, Outputs},
    requests::RequestArgs,
};
use crate::{
    attach::{Limits, ProgramSet, StackConfig, Tracing},
    capture,
    probes::SitePolicy,
    process::Pid,
    report::request_line::{LineRules, THRESHOLD_BYTES},
    session::Config,
    sink::{Form, LineStyle},
};

const EXAMPLES: &str = "\
Examples:
  The requests of all workers, as they end:
    sudo residue watch -p $(pgrep -o gunicorn) --children
  Only those that made the process grow by a megabyte or more:
    sudo residue watch -p 4242 --min-delta 1MB
  For another program, a JSON object a line:
    sudo residue watch -p 4242 --json | jq 'select(.leak_suspected)'
  In production, by the resident set alone, at next to no cost:
    sudo residue watch -p 4242 --rss-only
  And keep a capture, to see later which line of code allocated what stays:
    sudo residue watch -p 4242 -o worker.residue

LEAK_SUSPECTED marks a request that grew the process by, or retained, as much as --leak-threshold, and one of a
route whose survivors go on growing: of its last 15 requests past their grace, the first five, the next and the
last five each left blocks behind, and the last five at least half of what the first did. The line says how many
left something, and how much. A cache that still fills, or takes new entries for old ones, looks the same: record
such a route to see who holds what.

`retained` is blocks of the allocator, outstanding when the request was over. What is `passing` was gone some requests
later whenever the last requests of the route, 5 to 15, retained as much. Sizes of a line are in MB, 1,000,000 bytes.";

/// Show each request as it ends, and what it left behind
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Process to watch; may be given several times
    #[arg(short, long = "pid", value_name = "PID", required = true)]
    pids: Vec<Pid>,
    /// Watch all descendants that exist now as well
    #[arg(long)]
    children: bool,
    /// End after this time (60s, 5m); without it, Ctrl-C ends it
    #[arg(short, long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Write a capture as well, as `residue record` does
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write JSON lines
    #[arg(long)]
    json: bool,
    /// Only requests that took at least this long (500ms)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    slow: Option<Duration>,
    /// Only requests during which the process grew by at least this much (1MB)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    min_delta: Option<u64>,
    /// Growth or retention from which on a single request is marked LEAK_SUSPECTED
    #[arg(long, value_name = "SIZE", default_value_t = THRESHOLD_BYTES, value_parser = parse_size)]
    leak_threshold: u64,
    /// How often the table by route is shown, beside at the end; 0s for at the end alone
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    table_every: Duration,
    /// Follow no allocations: `retained` is unknown, and a request costs microseconds
    #[arg(long)]
    rss_only: bool,
    /// How many times slower a process may become while it is watched: one that is slower for five seconds has its
    /// probes taken out, and is followed by its resident set alone; or off [default: 2]
    #[arg(long, value_name = "N")]
    max_slowdown: Option<MaxSlowdown>,
    /// Live allocations that can be tracked at least, each 43 bytes of kernel memory
    #[arg(long, value_name = "N", default_value_t = Limits::DEFAULT.max_live, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    max_live: u32,
    #[command(flatten)]
    requests: RequestArgs,
}

fn parse_size(text: &str) -> Result<u64, parse_size::Error> {
    parse_size::parse_size(text)
}

/// Runs the command.
///
/// # Errors
///
/// When a process cannot be watched, or standard output or the capture cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    recording::prepare(args.max_live)?;
    if let Some(output) = &args.output {
        // Before anything is looked at or attached: that takes its time.
        capture::check_output(output)?;
    }
    let config = config(args)?;
    let outputs = Outputs {
        capture: args.output.clone(),
        lines: Some(style(args)),
        quiet: false,
    };
    recording::run(&config, outputs)?;
    Ok(ExitCode::SUCCESS)
}

fn style(args: &Args) -> LineStyle {
    let slow = args.slow.unwrap_or_default();
    LineStyle {
        form: match args.json {
            true => Form::Json,
            false => Form::Text,
        },
        rules: LineRules {
            threshold_bytes: args.leak_threshold,
            min_duration_ns: u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX),
            min_delta_bytes: args.min_delta,
        },
        table_every: Some(args.table_every).filter(|every| !every.is_zero()),
    }
}

fn config(args: &Args) -> anyhow::Result<Config> {
    Ok(Config {
        pids: record::with_children(&args.pids, args.children)?,
        children: args.children,
        command: Vec::new(),
        duration: args.duration,
        interval: Duration::from_secs(1),
        limits: Limits {
            max_live: args.max_live,
            ..Limits::DEFAULT
        },
        programs: ProgramSet::Counting,
        tracing: Tracing {
            allocations: !args.rss_only,
            sockets: args.requests.follow_sockets(),
        },
        windows: args.requests.rules(),
        stacks: StackConfig {
            // Lines say nothing of stacks.
            policy: match args.output {
                Some(_) => StackPolicy::Auto,
                None => StackPolicy::None,
            },
            ..StackConfig::default()
        },
        samples: None,
        sites: SitePolicy::Cheapest,
        python_objects: false,
        max_slowdown: args.max_slowdown.unwrap_or(MaxSlowdown::DEFAULT).limit(),
    })
}
