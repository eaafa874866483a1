//! `residue watch`: one line a request, live.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use residue_ebpf::abi::heap::StackPolicy;
use tokio::sync::Notify;

use super::{
    cost::MaxSlowdown, ending, messages::say, record, requests::RequestArgs, signals::Signals,
    stream::Stream,
};
use crate::{
    attach::{Limits, ProgramSet, StackConfig, Tracing, ensure_tracefs},
    printable::{Notation, Sink},
    probes::SitePolicy,
    process::Pid,
    report::{
        request_line::{JsonLine, LineRules, THRESHOLD_BYTES, TextLine},
        routes_table,
    },
    requests::{
        record::{Unbound, WindowRecord},
        table::TableBuilder,
    },
    session::{Config, Finished, Session, Update, raise_limits},
    wording::{printable, wrap},
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

LEAK_SUSPECTED marks a request that grew the process by, or retained, as much as --leak-threshold, and one of a
route whose survivors go on growing: of its last 15 requests past their grace, the first five, the next and the
last five each left blocks behind, and the last five at least half of what the first did. The line says how many
left something, and how much. A cache that still fills, or takes new entries for old ones, looks the same: record
such a route to see who holds what.

`retained` is blocks of the allocator, outstanding when the request was over. What is `passing` was gone some requests
later whenever the last requests of the route, 5 to 15, retained as much. Sizes of a line are in MB, 1,000,000 bytes.";

/// Columns that a line of the table's heading may take.
const COLUMNS: usize = 80;

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
/// When a process cannot be watched, or standard output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Before any thread is started: it changes what this thread and its children see.
    ensure_tracefs();
    raise_limits(args.max_live)?;
    let config = config(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    runtime.block_on(watch(&config, args))?;
    Ok(ExitCode::SUCCESS)
}

async fn watch(config: &Config, args: &Args) -> anyhow::Result<()> {
    let signals = Signals::listen().context("failed to listen to signals")?;
    let nobody_reads = Arc::new(Notify::new());
    let stop = async {
        tokio::select! {
            () = signals.more_than(0) => {}
            () = nobody_reads.notified() => {}
        }
    };
    let mut lines = Lines::new(args, Arc::clone(&nobody_reads));
    let mut tell = |update| match update {
        Update::Attached => signals.recording_begins(),
        update => lines.show(update),
    };
    let mut session = Session::start(config, &mut tell)?;
    let watched = session.run(stop).await;
    let Finished {
        written, probes, ..
    } = session.finish();
    let shown = match watched.and(written) {
        Ok(()) => lines.finish(),
        Err(error) => Err(error.into()),
    };
    signals.all_is_written();
    ending::take_out(probes, &signals, false).await;
    shown
}

fn config(args: &Args) -> anyhow::Result<Config> {
    Ok(Config {
        pids: record::with_children(&args.pids, args.children)?,
        children: args.children,
        command: Vec::new(),
        output: None,
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
            policy: StackPolicy::None,
            ..StackConfig::default()
        },
        samples: None,
        sites: SitePolicy::Cheapest,
        python_objects: false,
        max_slowdown: args.max_slowdown.unwrap_or(MaxSlowdown::DEFAULT).limit(),
    })
}

/// Writes the lines to standard output, and everything else to standard error.
struct Lines {
    out: Stream,
    json: bool,
    rules: LineRules,
    table: TableBuilder,
    /// How often the table is shown; none if only at the end.
    table_every: Option<Duration>,
    /// When the table was shown last, or the start.
    table_shown: Instant,
    /// Requests since the table was shown.
    untold: usize,
    /// What belongs to no single request, which is known at the end; none until then, or if nobody counts it.
    unbound: Option<[Unbound; 2]>,
    follows_allocations: bool,
    /// Events that could not be recorded.
    lost: u64,
}

impl Lines {
    /// When standard output is closed, `nobody_reads` is told: nobody is left to watch for.
    fn new(args: &Args, nobody_reads: Arc<Notify>) -> Self {
        let slow = args.slow.unwrap_or_default();
        Self {
            out: Stream::to(io::stdout(), move || nobody_reads.notify_one()),
            json: args.json,
            rules: LineRules {
                threshold_bytes: args.leak_threshold,
                min_duration_ns: u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX),
                min_delta_bytes: args.min_delta,
            },
            table: TableBuilder::default(),
            table_every: Some(args.table_every).filter(|it| !it.is_zero()),
            table_shown: Instant::now(),
            untold: 0,
            unbound: None,
            follows_allocations: !args.rss_only,
            lost: 0,
        }
    }

    fn show(&mut self, update: Update) {
        match update {
            Update::Started { processes, .. } => {
                let processes = printable(&processes.join(", "));
                say(format!("watching {processes}; Ctrl-C ends it"));
                self.table_shown = Instant::now();
            }
            Update::Attached => {}
            Update::Note(text) => say(format!("note: {}", printable(&text))),
            Update::Windows(records) => self.write(&records),
            Update::Survivors(survivors) => {
                for (route, amount) in survivors {
                    self.table.add_survivors(&route, amount);
                }
            }
            Update::Unbound(processes) if self.follows_allocations => {
                let [mut background, mut ambiguous] = self.unbound.unwrap_or_default();
                for process in processes {
                    background.add(process.background);
                    ambiguous.add(process.ambiguous);
                }
                self.unbound = Some([background, ambiguous]);
            }
            // Zeros would be what nobody counted.
            Update::Unbound(_) => {}
            Update::Written(tally) => {
                self.lost = tally.lost;
                self.show_table_when_due();
            }
        }
    }

    /// The table so far. What nobody reads any more is no reason to end.
    fn show_table_when_due(&mut self) {
        let now = Instant::now();
        let since = now.duration_since(self.table_shown);
        if self.table_every.is_none_or(|every| since < every) {
            return;
        }
        self.table_shown = now;
        if std::mem::take(&mut self.untold) > 0 {
            let _ = self.write_table("REQUESTS BY ROUTE, so far");
        }
    }

    fn write_table(&self, title: &str) -> io::Result<()> {
        let [background, ambiguous] = match self.unbound {
            Some([background, ambiguous]) => [Some(background), Some(ambiguous)],
            None => [None, None],
        };
        let table = self.table.build(background, ambiguous);
        if table.routes.is_empty() {
            say("no request was seen");
            return Ok(());
        }
        // At once, or the lines of requests would come in between.
        let mut text = Vec::new();
        writeln!(text, "\n{title}")?;
        let scope = match self.follows_allocations {
            true => routes_table::SCOPE,
            false => routes_table::NOTHING_FOLLOWED,
        };
        for line in wrap(scope, COLUMNS) {
            writeln!(text, "{line}")?;
        }
        routes_table::write(&table, &mut text)?;
        say(String::from_utf8_lossy(&text).trim_end());
        Ok(())
    }

    fn write(&mut self, records: &[WindowRecord]) {
        self.untold += records.len();
        for record in records {
            self.table.add(record);
        }
        for record in records.iter().filter(|record| self.rules.shows(record)) {
            // Writing into memory does not fail.
            let line = self.line(record).unwrap_or_default();
            self.out.write(line);
        }
    }

    fn line(&self, record: &WindowRecord) -> io::Result<Vec<u8>> {
        let notation = match self.json {
            true => Notation::Json,
            false => Notation::Text,
        };
        let mut line = Vec::new();
        let mut out = Sink::new(&mut line, notation);
        let known = self.table.known(&record.route);
        if self.json {
            serde_json::to_writer(&mut out, &JsonLine::new(record, &self.rules, known))?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", TextLine::new(record, &self.rules, known))?;
        }
        out.flush()?;
        drop(out);
        Ok(line)
    }

    /// The table by route.
    fn finish(self) -> anyhow::Result<()> {
        // Who does not read it has the lines.
        let _ = self.write_table("REQUESTS BY ROUTE");
        if self.lost > 0 {
            say(format!(
                "LOST {} events: figures may be too low; `residue record` tells which",
                self.lost
            ));
        }
        match self.out.finish() {
            Ok(0) => Ok(()),
            Ok(left_out) => {
                say(format!(
                    "{left_out} lines were left out: standard output was not read as fast as requests came"
                ));
                Ok(())
            }
            // `residue watch … | head` is no error.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(error).context("cannot write to standard output"),
        }
    }
}
