//! How long 10,000 distinct stacks take, from the allocations to the flamegraph.

use std::time::Instant;

use anyhow::{Result, ensure};
use residue_tests::{
    fixtures::Fixture,
    recorder::{Recorder, Recording},
    target::Target,
};

use crate::{
    probe_cost::complete_report,
    progress,
    sample::Sample,
    table::{Bound, Row, Section},
};

const ROUNDS: usize = 3;
const STACKS: usize = 10_000;
/// Seconds, recorder and report together.
const MOST_SECONDS: f64 = 2.0;

pub fn measure() -> Result<Section> {
    let (mut recording, mut drawing, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        progress(&format!(
            "symbolizing and drawing, round {round} of {ROUNDS}"
        ));
        let (recorded, drawn) = record_and_draw()?;
        recording.push(recorded);
        drawing.push(drawn);
        both.push(recorded + drawn);
    }
    let both = Sample::of(both);
    let bound = Bound::at_most(MOST_SECONDS, both.median());
    Ok(Section {
        title: "10,000 distinct stacks, from the first allocation to the flamegraph".to_owned(),
        rows: vec![
            Row::of("record and symbolize", &Sample::of(recording), "s"),
            Row::of("draw the flamegraph", &Sample::of(drawing), "s"),
            Row::of("both", &both, "s").bound(bound),
        ],
    })
}

/// Seconds of each. The recorder's time runs from the first allocation to its exit: it symbolizes
/// while it records, so there is no later moment at which all of that work is still to be done.
fn record_and_draw() -> Result<(f64, f64)> {
    let mut target = Target::start(&Fixture::Stacks.build()?, &[])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    let began = Instant::now();
    target.go()?;
    let recording = recorder.stop()?;
    let recorded = began.elapsed();

    let began = Instant::now();
    recording.render("flamegraph")?;
    let drawn = began.elapsed();
    ensure_all_distinct(&recording)?;
    Ok((recorded.as_secs_f64(), drawn.as_secs_f64()))
}

fn ensure_all_distinct(recording: &Recording) -> Result<()> {
    let seen = complete_report(recording)?.stacks.len();
    ensure!(seen >= STACKS, "only {seen} of {STACKS} stacks were seen");
    Ok(())
}
