//! What one malloc+free pair takes in the target `churn`, as it measures itself.

use anyhow::{Context as _, Result};
use residue_tests::target::Target;

/// The target runs this many to learn how long they take, and to hold only blocks that the
/// recorder of the moment has seen.
const TRIAL: f64 = 5_000.0;
/// Windows of one measurement; the quickest counts: whatever else runs here can only add.
const WINDOWS: usize = 4;
/// Nanoseconds of one window.
const WINDOW_NS: f64 = 250e6;

/// Nanoseconds a pair: the quickest of a few windows, about a second in all.
pub fn ns_per_pair(target: &mut Target) -> Result<f64> {
    let pairs = WINDOW_NS / run(target, TRIAL)?;
    let mut quickest = f64::INFINITY;
    for _ in 0..WINDOWS {
        quickest = quickest.min(run(target, pairs)?);
    }
    Ok(quickest)
}

fn run(target: &mut Target, pairs: f64) -> Result<f64> {
    let answer = target.ask(&format!("run {pairs:.0}"), "ns_per_pair ")?;
    let figure = answer.split_whitespace().nth(1);
    figure
        .and_then(|figure| figure.parse().ok())
        .with_context(|| format!("the target did not say how long a pair takes: {answer:?}"))
}
