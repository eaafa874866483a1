//! How long it takes until residue counts.

use std::time::Instant;

use anyhow::Result;
use residue_tests::{fixtures::Fixture, recorder::Recorder, target::Target};

use crate::{
    progress,
    sample::Sample,
    table::{Row, Section},
};

const STARTS: usize = 5;

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
    Ok(Section {
        title: format!("From start to the first counted allocation, {STARTS} starts"),
        rows: vec![Row::of("target under full load", &Sample::of(times), "ms")],
    })
}

/// Milliseconds.
fn time_to_record(target: &Target) -> Result<f64> {
    let began = Instant::now();
    let recorder = Recorder::start(&[target.pid()], &[])?;
    let took = began.elapsed();
    recorder.stop()?;
    Ok(took.as_secs_f64() * 1e3)
}
