//! What request windows cost a process that is not watched: tracepoints of system calls are the whole host's.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    time::Instant,
};

use anyhow::Result;
use residue_tests::{servers::Server, windows::Watcher};
use rustix::process::getppid;

use crate::{
    progress,
    sample::Sample,
    table::{Row, Section},
};

const ROUNDS: usize = 7;
/// Stretches of a round; the quickest counts: whatever else runs here can only add.
const STRETCHES: u32 = 20;
/// Calls of a stretch.
const CALLS: u32 = 20_000;

/// Nanoseconds a system call, a figure a round.
#[derive(Default)]
struct Rounds {
    writes: Vec<f64>,
    others: Vec<f64>,
}

/// Alternates, so that a slow minute slows both. The process that is not watched is the benchmark itself.
pub fn measure() -> Result<Section> {
    let watched = Server::thread_per_connection(&[])?;
    let sink = OpenOptions::new().write(true).open("/dev/null")?;
    let mut alone = Rounds::default();
    let mut beside = Rounds::default();
    for round in 1..=ROUNDS {
        progress(&format!(
            "system calls beside request windows, round {round} of {ROUNDS}"
        ));
        alone.add(&sink)?;
        let watcher = Watcher::start(watched.pid, &["--rss-only"])?;
        beside.add(&sink)?;
        watcher.stop()?;
    }
    let mut rows = rows_of("write", alone.writes, beside.writes);
    rows.extend(rows_of("getppid", alone.others, beside.others));
    Ok(Section {
        title: format!(
            "A system call of a process that is not watched, {ROUNDS} alternating rounds, each the quickest of \
             {STRETCHES} times {CALLS}"
        ),
        rows,
    })
}

fn rows_of(call: &str, alone: Vec<f64>, beside: Vec<f64>) -> Vec<Row> {
    let (alone, beside) = (Sample::of(alone), Sample::of(beside));
    vec![
        Row::of(call, &alone, "ns"),
        Row::of(format!("{call}, sockets followed"), &beside, "ns")
            .compared(&beside.ratio_to(&alone), call),
    ]
}

impl Rounds {
    fn add(&mut self, mut sink: &File) -> Result<()> {
        self.writes
            .push(quickest(|| sink.write(b"-").map(|_written| ()))?);
        self.others.push(quickest(|| {
            let _parent = getppid();
            Ok(())
        })?);
        Ok(())
    }
}

/// Nanoseconds of one `call`, in the quickest stretch.
fn quickest(mut call: impl FnMut() -> std::io::Result<()>) -> Result<f64> {
    let mut quickest = f64::INFINITY;
    for _ in 0..STRETCHES {
        let began = Instant::now();
        for _ in 0..CALLS {
            call()?;
        }
        let ns = began.elapsed().as_secs_f64() * 1e9;
        quickest = quickest.min(ns / f64::from(CALLS));
    }
    Ok(quickest)
}
