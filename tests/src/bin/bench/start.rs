//! How long it takes until residue counts.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    fixtures::Fixture,
    machine::{self, NODE},
    recorder::Recorder,
    target::Target,
};

use crate::{
    progress,
    sample::Sample,
    table::{Bound, Row, Section},
};

const STARTS: usize = 5;

/// Milliseconds from when the probes are in to when node's stacks are whole.
const MOST_WAITED: f64 = 500.0;

/// It allocates a little all the time.
const NODE_AT_WORK: &str = "setInterval(() => Buffer.alloc(100000), 1)";

/// From the start of the program to its line that everything counts, with a target that allocates
/// without pause in two threads.
pub fn measure() -> Result<Section> {
    let mut target = Target::start(&Fixture::Churn.build()?, &["2", "1000", "6"])?;
    target.ask("load", "loading")?;
    let mut times = Vec::new();
    for start in 1..=STARTS {
        progress(&format!("start under load, {start} of {STARTS}"));
        times.push(time_to_record(&target)?);
    }
    target.ask("stop", "pairs_per_second")?;
    let waited = Sample::of(waits_for_tables()?);
    Ok(Section {
        title: format!("From start to the first counted allocation, {STARTS} starts"),
        rows: vec![
            Row::of("target under full load", &Sample::of(times), "ms"),
            Row::of("node: tables, once attached", &waited, "ms")
                .bound(Bound::at_most(MOST_WAITED, waited.max())),
        ],
    })
}

/// Milliseconds for which the first event of node waited for unwind tables.
fn waits_for_tables() -> Result<Vec<f64>> {
    ensure!(
        machine::has(NODE),
        "this machine lacks node: install the package {}",
        NODE.package
    );
    let node = Target::spawn(Command::new(NODE.program).args(["-e", NODE_AT_WORK]))?;
    thread::sleep(Duration::from_secs(1));
    let mut waits = Vec::new();
    for start in 1..=STARTS {
        progress(&format!("start on node, {start} of {STARTS}"));
        let recorder = Recorder::start(&[node.pid()], &[])?;
        thread::sleep(Duration::from_millis(500));
        let recording = recorder.stop()?;
        let report = recording.report()?;
        ensure!(
            report.notes["stacks_table_loading"] == 0,
            "a stack came too early"
        );
        waits.push(waited_for_tables(&recording.stderr)?);
    }
    Ok(waits)
}

/// From `recording …: N functions probed in X ms, M unwind tables (SIZE) Y ms after that`: Y.
fn waited_for_tables(said: &str) -> Result<f64> {
    let figure = said
        .split(" ms after that")
        .next()
        .and_then(|before| before.rsplit(' ').next());
    let figure = figure.and_then(|figure| figure.parse().ok());
    figure.with_context(|| format!("residue did not say how long it waited: {said}"))
}

/// Milliseconds.
fn time_to_record(target: &Target) -> Result<f64> {
    let began = Instant::now();
    let recorder = Recorder::start(&[target.pid()], &[])?;
    let took = began.elapsed();
    recorder.stop()?;
    Ok(took.as_secs_f64() * 1e3)
}
