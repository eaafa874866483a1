//! What request windows alone cost, without any allocation probe: a trivial Django view under gunicorn,
//! and a server in C that does next to nothing.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result};
use residue_tests::{
    http::{Connection, Request},
    servers::Server,
    windows::Watcher,
};

use crate::{
    progress,
    requests::Worker,
    sample::Sample,
    table::{Bound, Row, Section},
};

const ROUNDS: usize = 15;
/// Stretches of a round; the quickest counts: whatever else runs here can only add.
const STRETCHES: u32 = 20;
/// Clients of Django: its worker is never without work, so that time is throughput.
const DJANGO_CLIENTS: u32 = 4;
/// Requests of a stretch.
const DJANGO_REQUESTS: u32 = 100;
const C_REQUESTS: u32 = 1000;

/// Of a request to Django, as it comes to one that is not watched.
const MOST_OVER_NOTHING: f64 = 1.02;
/// Of eBPF programs, microseconds a request: of the C server's own, and of everything that its client calls.
const MOST_IN_PROGRAMS: f64 = 3.0;
/// Has the kernel measure every eBPF program (Documentation/admin-guide/sysctl/kernel.rst).
const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What one round took, microseconds a request, in its quickest stretch; of residue, which works from time to
/// time, in all of it.
#[derive(Clone, Copy, Default)]
struct Cost {
    elapsed: f64,
    server_cpu: f64,
    residue_cpu: f64,
    in_programs: f64,
}

/// Alternates watched and unwatched rounds, so that a slow minute slows both.
pub fn measure() -> Result<Section> {
    let django = Worker::start()?;
    let c = Server::thread_per_connection(&[])?;
    let mut connection = Connection::open(c.port)?;
    let mut ask_c = |requests: u32| ask(&mut connection, requests);
    let mut ask_django =
        |requests: u32| django.ask_at_once(DJANGO_CLIENTS, requests / DJANGO_CLIENTS);
    let mut of_django = Rounds::default();
    let mut of_c = Rounds::default();
    for round in 1..=ROUNDS {
        progress(&format!("request windows, round {round} of {ROUNDS}"));
        of_django.add(django.pid, DJANGO_REQUESTS, &mut ask_django)?;
        // Measuring costs as well, so Django is asked without.
        let _stats = ProgramStats::enable()?;
        of_c.add(c.pid, C_REQUESTS, &mut ask_c)?;
    }
    let mut rows = rows_of_django(&of_django);
    rows.extend(rows_of_c(&of_c));
    Ok(Section {
        title: format!(
            "Request windows alone (watch --rss-only), {ROUNDS} alternating rounds, each the quickest of \
             {STRETCHES} times {DJANGO_REQUESTS} requests to Django and {C_REQUESTS} to a server in C"
        ),
        rows,
    })
}

fn rows_of_django(rounds: &Rounds) -> Vec<Row> {
    let elapsed = |costs: &[Cost]| sample(costs, |cost| cost.elapsed);
    let (alone, watched) = (elapsed(&rounds.alone), elapsed(&rounds.watched));
    let ratio = watched.ratio_to(&alone);
    vec![
        Row::of("Django, not watched", &alone, "us"),
        Row::of("Django, watched", &watched, "us")
            .compared(&ratio, "not watched")
            .bound(Bound::at_most(MOST_OVER_NOTHING, ratio.median())),
    ]
}

fn rows_of_c(rounds: &Rounds) -> Vec<Row> {
    let cpu = |costs: &[Cost]| sample(costs, |cost| cost.server_cpu);
    let in_programs = sample(&rounds.watched, |cost| cost.in_programs);
    let own = sample(&rounds.watched, |cost| cost.residue_cpu);
    vec![
        Row::of("C server, its CPU time", &cpu(&rounds.alone), "us"),
        Row::of(
            "C server, its CPU time when watched",
            &cpu(&rounds.watched),
            "us",
        ),
        Row::of("in eBPF programs", &in_programs, "us")
            .bound(Bound::at_most(MOST_IN_PROGRAMS, in_programs.median())),
        Row::of("residue's own CPU time", &own, "us"),
    ]
}

fn sample(costs: &[Cost], figure: impl Fn(&Cost) -> f64) -> Sample {
    Sample::of(costs.iter().map(figure).collect())
}

#[derive(Default)]
struct Rounds {
    alone: Vec<Cost>,
    watched: Vec<Cost>,
}

impl Rounds {
    fn add(
        &mut self,
        pid: u32,
        requests: u32,
        ask: &mut dyn FnMut(u32) -> Result<Duration>,
    ) -> Result<()> {
        self.alone.push(measure_one(pid, None, requests, ask)?);
        let watcher = Watcher::start(pid, &["--rss-only"])?;
        let watched = measure_one(pid, Some(watcher.pid()), requests, ask)?;
        watcher.await_lines((STRETCHES * requests) as usize)?;
        watcher.stop()?;
        self.watched.push(watched);
        Ok(())
    }
}

fn measure_one(
    pid: u32,
    residue: Option<u32>,
    requests: u32,
    ask: &mut dyn FnMut(u32) -> Result<Duration>,
) -> Result<Cost> {
    let own_cpu = || residue.map_or(Ok(0.0), cpu_microseconds);
    let programs = || residue.map_or(Ok(0.0), program_microseconds);
    let mut quickest = [f64::INFINITY; 3];
    let own_before = own_cpu()?;
    for _ in 0..STRETCHES {
        let before = [cpu_microseconds(pid)?, programs()?];
        let elapsed = ask(requests)?.as_secs_f64() * 1e6;
        let after = [cpu_microseconds(pid)?, programs()?];
        let costs = [elapsed, after[0] - before[0], after[1] - before[1]];
        for (quickest, cost) in quickest.iter_mut().zip(costs) {
            *quickest = quickest.min(cost / f64::from(requests));
        }
    }
    let [elapsed, server_cpu, in_programs] = quickest;
    Ok(Cost {
        elapsed,
        server_cpu,
        residue_cpu: (own_cpu()? - own_before) / f64::from(STRETCHES * requests),
        in_programs,
    })
}

fn ask(connection: &mut Connection, requests: u32) -> Result<Duration> {
    let request = Request::get("/clean", "bench");
    let began = std::time::Instant::now();
    for _ in 0..requests {
        connection.ask(&request)?;
    }
    Ok(began.elapsed())
}

/// Time that a process's eBPF programs have run, microseconds.
fn program_microseconds(pid: u32) -> Result<f64> {
    let mut by_program = BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // It may be closed by now.
        let text = fs::read_to_string(descriptor?.path()).unwrap_or_default();
        let field = |name: &str| -> Option<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        if let (Some(program), Some(ns)) = (field("prog_id:"), field("run_time_ns:")) {
            by_program.insert(program as u64, ns);
        }
    }
    Ok(by_program.values().sum::<f64>() / 1e3)
}

/// The kernel measures programs while this lives.
struct ProgramStats {
    before: String,
}

impl ProgramStats {
    fn enable() -> Result<Self> {
        let before = fs::read_to_string(BPF_STATS)?;
        fs::write(BPF_STATS, "1")?;
        Ok(Self { before })
    }
}

impl Drop for ProgramStats {
    fn drop(&mut self) {
        if let Err(error) = fs::write(BPF_STATS, &self.before) {
            eprintln!("bench: {BPF_STATS} stays at 1: {error}");
        }
    }
}

/// Time on a CPU, of all threads that there are, microseconds.
fn cpu_microseconds(pid: u32) -> Result<f64> {
    let mut ns = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().context("a number")?;
        ns += first.parse::<f64>()?;
    }
    Ok(ns / 1e3)
}
