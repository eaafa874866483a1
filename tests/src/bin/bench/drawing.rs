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
    table::{Bound, Row, Section, number},
};

const ROUNDS: usize = 5;
const STACKS: u32 = 10_000;
/// Seconds, symbolizing and drawing together.
const MOST_SECONDS: f64 = 2.0;

/// Figures of all rounds, in seconds.
#[derive(Default)]
struct Figures {
    one: Vec<f64>,
    many: Vec<f64>,
    drawing: Vec<f64>,
}

/// Recordings of one stack and of many take turns. Most of the time from the first allocation to
/// the recorder's exit goes into taking the probes out, whatever was recorded; what many stacks
/// take longer is reading, symbolizing and writing them.
pub fn measure() -> Result<Section> {
    let mut figures = Figures::default();
    for round in 1..=ROUNDS {
        progress(&format!(
            "symbolizing and drawing, round {round} of {ROUNDS}"
        ));
        figures.one.push(record_one()?);
        let (seconds, recording) = record_many()?;
        figures.many.push(seconds);
        figures.drawing.push(draw(&recording)?);
        ensure_all_distinct(&recording)?;
    }
    Ok(Section {
        title: format!(
            "{} distinct stacks, {ROUNDS} alternating rounds",
            number(f64::from(STACKS))
        ),
        rows: figures.rows(),
    })
}

impl Figures {
    fn rows(self) -> Vec<Row> {
        let (one, many) = (Sample::of(self.one), Sample::of(self.many));
        let (symbolizing, drawing) = (many.minus(&one), Sample::of(self.drawing));
        let both = symbolizing.plus(&drawing);
        vec![
            Row::of("record 1, detach, exit", &one, "s"),
            Row::of("record 10,000, detach, exit", &many, "s"),
            Row::of("symbolize: the difference", &symbolizing, "s"),
            Row::of("draw the flamegraph", &drawing, "s"),
            Row::of("symbolize and draw", &both, "s")
                .bound(Bound::at_most(MOST_SECONDS, both.median())),
        ]
    }
}

/// Seconds from the first allocation to the recorder's exit.
fn record_one() -> Result<f64> {
    let mut target = Target::start(&Fixture::Churn.build()?, &["1", "1", "1"])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    let began = Instant::now();
    target.ask("fill", "filled")?;
    let recording = recorder.stop()?;
    let took = began.elapsed();
    complete_report(&recording)?;
    Ok(took.as_secs_f64())
}

fn record_many() -> Result<(f64, Recording)> {
    let mut target = Target::start(&Fixture::Stacks.build()?, &[])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    let began = Instant::now();
    target.go()?;
    let recording = recorder.stop()?;
    Ok((began.elapsed().as_secs_f64(), recording))
}

fn draw(recording: &Recording) -> Result<f64> {
    let began = Instant::now();
    recording.render("flamegraph")?;
    Ok(began.elapsed().as_secs_f64())
}

fn ensure_all_distinct(recording: &Recording) -> Result<()> {
    let seen = complete_report(recording)?.stacks.len();
    ensure!(
        seen >= STACKS as usize,
        "only {seen} of {STACKS} stacks were seen"
    );
    Ok(())
}
