//! Records a target under load and compares its stacks.

use std::{fs::File, io::BufReader, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    code::Code, compare::compare, growing::Growing, sample::Samples, summary::Summary, walk::Walker,
};
use crate::{
    machine::{PATIENCE, wait_until},
    recorder::Recorder,
};

/// How much longer a recording may take for each stack that is wanted.
const PATIENCE_A_STACK: Duration = Duration::from_millis(10);

/// Records until there are more than `wanted` samples, or for as long as a slow machine may take,
/// and compares all that were written.
///
/// # Errors
///
/// When the target ends meanwhile, or residue does not record, or writes no samples.
pub fn compare_under_load(target: &str, pid: u32, wanted: u32) -> Result<Summary> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("samples");
    let mut code = Code::default();
    code.read(pid)?;
    let path = file.to_str().context("a temporary path is UTF-8")?;
    let recorder = Recorder::start(&[pid], &["--sample-stacks", path])?;
    wait_for_samples(&file, wanted)?;
    code.read(pid)?;
    let recording = recorder.stop()?;
    // Only for its check that the recording ended well.
    recording.report()?;
    compare_file(target, &file, &code)
}

/// Some stacks will not fit into their copies.
const fn with_reserve(wanted: u32) -> u32 {
    wanted + wanted / 8
}

fn wait_for_samples(file: &Path, wanted: u32) -> Result<()> {
    let mut growing = Growing::open(file)?;
    let mut samples = Ok(0);
    wait_until(PATIENCE + PATIENCE_A_STACK * wanted, || {
        samples = growing.whole_samples();
        samples
            .as_ref()
            .map_or(true, |&whole| whole >= with_reserve(wanted))
    });
    samples.map(drop)
}

/// Compares every sample of a file.
///
/// # Errors
///
/// When it has something else in it.
pub fn compare_file(target: &str, file: &Path, code: &Code) -> Result<Summary> {
    let file = File::open(file).context("failed to open the samples")?;
    let mut samples = Samples::new(BufReader::with_capacity(1 << 20, file));
    let mut walker = Walker::new(code);
    let mut summary = Summary::new(target);
    while let Some(sample) = samples.next_sample()? {
        if sample.left_out > 0 {
            summary.leave_out();
            continue;
        }
        let same = |one, other| code.is_same_place(one, other);
        let verdict = compare(&sample.frames, sample.end, &walker.walk(&sample), same);
        summary.add(&sample, &verdict, code);
    }
    Ok(summary)
}
