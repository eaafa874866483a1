//! What a small Python object costs more: made and freed by one line, with pools counted and with
//! samples taken.

use anyhow::{Context as _, Result};
use residue_tests::{python::pythons, recorder::Recorder, target::Target};

use crate::{
    progress,
    sample::Sample,
    table::{Row, Section},
};

const ROUNDS: usize = 3;
/// Of Python's allocator its own functions are probed, which some builds inline; this one does not.
const VERSION: &str = "3.13";

/// What is attached: `record`'s arguments, or nothing.
const VARIANTS: [Option<&[&str]>; 4] = [
    None,
    Some(&["--stacks", "auto"]),
    Some(&["--python-objects", "--empty-programs"]),
    Some(&["--python-objects"]),
];

/// Alternates the variants on one target, so that a slow minute slows all of them.
pub fn measure() -> Result<Section> {
    let python = pythons().into_iter().find(|python| python.name == VERSION);
    let python = python.context("Python 3.13 is not there: pyenv install 3.13")?;
    let mut target = python.start("objects.py", &[])?;
    let mut samples = VARIANTS.map(|_| Vec::with_capacity(ROUNDS));
    for round in 1..=ROUNDS {
        progress(&format!("Python objects, round {round} of {ROUNDS}"));
        for (variant, sample) in VARIANTS.iter().zip(&mut samples) {
            sample.push(ns_per_object(&mut target, *variant)?);
        }
    }
    let [nothing, pools, floor, sampled] = samples.map(Sample::of);
    Ok(Section {
        title: format!("One object of Python {VERSION}, {ROUNDS} alternating rounds"),
        rows: vec![
            Row::of("no probes", &nothing, "ns"),
            Row::of("residue (pools alone)", &pools, "ns")
                .compared(&pools.ratio_to(&nothing), "no probes"),
            Row::of("empty programs (floor)", &floor, "ns"),
            Row::of("residue --python-objects", &sampled, "ns")
                .compared(&sampled.ratio_to(&floor), "floor"),
        ],
    })
}

fn ns_per_object(target: &mut Target, recorded: Option<&[&str]>) -> Result<f64> {
    let recorder = recorded.map(|arguments| Recorder::start(&[target.pid()], arguments));
    let recorder = recorder.transpose()?;
    let took = target.ask("loop 50000", "took ")?;
    target.await_line("done")?;
    recorder.map(Recorder::stop).transpose()?;
    let figure = took.rsplit(' ').next().unwrap_or_default();
    figure.parse().context("nanoseconds an object")
}
