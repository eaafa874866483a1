//! What the probes cost: nothing attached, empty programs at residue's sites, residue, and
//! residue's programs at every function's first byte, where most tools put theirs.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    fixtures::Fixture,
    recorder::{Recorder, Recording},
    report::Report,
    target::Target,
};

use crate::{
    pairs::ns_per_pair,
    progress,
    sample::Sample,
    table::{Bound, Row, Section},
};

const ROUNDS: usize = 5;

/// One thread, a thousand blocks, and as many frames of `allocate_below` as make ten in all.
const CHURN: [&str; 3] = ["1", "1000", "6"];

/// Of residue to the floor.
const MOST_OVER_FLOOR: f64 = 1.6;
/// Of offset 0 to residue, on [`SLOW_START`].
const LEAST_GAIN: f64 = 8.0;
/// The C library whose `free` begins with an instruction that the kernel cannot emulate, which is
/// what a probe at offset 0 pays for. Others differ.
const SLOW_START: &str = "glibc 2.36";

/// What is attached while the target is measured.
#[derive(Clone, Copy)]
enum Attached {
    Nothing,
    Residue(&'static [&'static str]),
}

const VARIANTS: [Attached; 4] = [
    Attached::Nothing,
    Attached::Residue(&["--empty-programs"]),
    Attached::Residue(&["--frame-pointers"]),
    Attached::Residue(&["--frame-pointers", "--function-start"]),
];

/// Alternates the variants on one target, so that a slow minute slows all of them.
pub fn measure() -> Result<Section> {
    let mut target = Target::start(&Fixture::Churn.build()?, &CHURN)?;
    target.ask("fill", "filled")?;
    let frames = frames_of_a_stack(&mut target)?;
    let mut samples = VARIANTS.map(|_| Vec::with_capacity(ROUNDS));
    for round in 1..=ROUNDS {
        progress(&format!("cost of the probes, round {round} of {ROUNDS}"));
        for (variant, sample) in VARIANTS.iter().zip(&mut samples) {
            sample.push(variant.measure(&mut target)?);
        }
    }
    Ok(Section {
        title: format!("One malloc+free pair, {frames} frames, {ROUNDS} alternating rounds"),
        rows: rows(&samples.map(Sample::of), &c_library()?),
    })
}

fn rows([nothing, floor, residue, offset_0]: &[Sample; 4], c_library: &str) -> Vec<Row> {
    let over_floor = residue.ratio_to(floor);
    let gain = offset_0.ratio_to(residue);
    let at_offset_0 = Row::of("residue at offset 0", offset_0, "ns").compared(&gain, "residue");
    vec![
        Row::of("no probes", nothing, "ns"),
        Row::of("empty programs (floor)", floor, "ns"),
        Row::of("residue", residue, "ns")
            .compared(&over_floor, "floor")
            .bound(Bound::at_most(MOST_OVER_FLOOR, over_floor.median())),
        if c_library == SLOW_START {
            at_offset_0.bound(Bound::at_least(LEAST_GAIN, gain.median()))
        } else {
            at_offset_0
        },
    ]
}

impl Attached {
    fn measure(self, target: &mut Target) -> Result<f64> {
        match self {
            Self::Nothing => ns_per_pair(target),
            Self::Residue(arguments) => ns_per_recorded_pair(target, arguments),
        }
    }
}

/// Nanoseconds of a pair under a `residue record` with these arguments.
pub fn ns_per_recorded_pair(target: &mut Target, arguments: &[&str]) -> Result<f64> {
    let recorder = Recorder::start(&[target.pid()], arguments)?;
    let figure = ns_per_pair(target)?;
    complete_report(&recorder.stop()?)?;
    Ok(figure)
}

/// How deep the stacks are that residue takes here. Each must be whole: one that is cut is cheaper.
pub fn frames_of_a_stack(target: &mut Target) -> Result<usize> {
    let recorder = Recorder::start(&[target.pid()], &[])?;
    target.ask("run 5000", "ns_per_pair")?;
    let report = complete_report(&recorder.stop()?)?;
    let busiest = report.stacks.iter().max_by_key(|stack| stack.alloc_objects);
    let frames = &busiest.context("residue saw no allocation")?.frames;
    let outermost = &frames.last().context("a stack has frames")?.name;
    ensure!(!outermost.starts_with('['), "a stack ends in {outermost}");
    Ok(frames.len())
}

/// The report of a recording that missed nothing: one that did would have been cheaper.
pub fn complete_report(recording: &Recording) -> Result<Report> {
    let report = recording.report()?;
    let losses = report.losses();
    ensure!(losses.is_empty(), "the recording lost {losses:?}");
    Ok(report)
}

/// Such as `glibc 2.36`.
fn c_library() -> Result<String> {
    let output = Command::new("getconf")
        .arg("GNU_LIBC_VERSION")
        .output()
        .context("failed to start getconf (Debian package libc-bin)")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
