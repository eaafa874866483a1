//! What a pair costs when little and when much is live, and the kernel memory that it takes.

use anyhow::Result;
use residue_tests::{fixtures::Fixture, recorder::Recorder, target::Target};

use crate::{
    kernel_memory,
    pairs::ns_per_pair,
    probe_cost::complete_report,
    progress,
    sample::Sample,
    table::{Bound, Row, Section, number},
};

const ROUNDS: usize = 5;

/// Blocks held, from few to many.
const LIVE: [u32; 3] = [1_000, 100_000, 10_000_000];
/// The largest of them, and a little for what the C library itself holds. The same for all sizes.
const CAPACITY: u32 = LIVE[2] + 1_000;

/// Of the cost at any size to that at the smallest.
const MOST_GROWTH: f64 = 1.5;
/// Kernel memory for one live allocation.
const MOST_BYTES: f64 = 100.0;

/// A target of its own for each size, and a recorder that saw all that it holds.
struct Filled {
    target: Target,
    recorder: Recorder,
}

/// The sizes take turns. Without residue they are measured when all recorders have gone: a target
/// that was filled unseen would not be in the live set.
pub fn measure() -> Result<Section> {
    let mut filled = Vec::new();
    for live in LIVE {
        filled.push(Filled::with(live)?);
    }
    let memory = kernel_memory::of_live_set(&filled[0].recorder, CAPACITY)?;
    let with = in_turns("with residue", &mut filled, |filled| &mut filled.target)?;
    let mut targets = Vec::new();
    for filled in filled {
        targets.push(filled.stop()?);
    }
    let without = in_turns("without", &mut targets, |target| target)?;
    Ok(Section {
        title: format!("What residue adds to a pair, by the size of the live set, {ROUNDS} rounds"),
        rows: rows(&with, &without, memory),
    })
}

impl Filled {
    fn with(live: u32) -> Result<Self> {
        progress(&format!("filling {} live blocks", number(f64::from(live))));
        let mut target = Target::start(&Fixture::Churn.build()?, &["1", &live.to_string(), "6"])?;
        // The recorders that wait for their turn are to be quiet.
        let arguments = ["--max-live", &CAPACITY.to_string(), "--interval", "10s"];
        let recorder = Recorder::start(&[target.pid()], &arguments)?;
        target.ask("fill", "filled")?;
        Ok(Self { target, recorder })
    }

    /// Ends the recorder, once it has shown that it tracked every block.
    fn stop(self) -> Result<Target> {
        complete_report(&self.recorder.stop()?)?;
        Ok(self.target)
    }
}

fn in_turns<T>(
    what: &str,
    subjects: &mut [T],
    target: impl Fn(&mut T) -> &mut Target,
) -> Result<Vec<Sample>> {
    let mut samples = vec![Vec::new(); subjects.len()];
    for round in 1..=ROUNDS {
        progress(&format!("live sets {what}, round {round} of {ROUNDS}"));
        for (subject, sample) in subjects.iter_mut().zip(&mut samples) {
            sample.push(ns_per_pair(target(subject))?);
        }
    }
    Ok(samples.into_iter().map(Sample::of).collect())
}

fn rows(with: &[Sample], without: &[Sample], memory: u64) -> Vec<Row> {
    let pairs = with.iter().zip(without);
    let added: Vec<Sample> = pairs.map(|(with, without)| with.minus(without)).collect();
    let mut rows = Vec::new();
    for (live, added_here) in LIVE.into_iter().zip(&added) {
        let what = format!("{} live", number(f64::from(live)));
        let row = Row::of(what, added_here, "ns");
        rows.push(if live == LIVE[0] {
            row
        } else {
            let growth = added_here.ratio_to(&added[0]);
            row.compared(&growth, "1,000")
                .bound(Bound::at_most(MOST_GROWTH, growth.median()))
        });
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let bytes = memory as f64 / f64::from(LIVE[2]);
    let row = Row::single("kernel memory, 10 million", bytes, "B each");
    rows.push(row.bound(Bound::at_most(MOST_BYTES, bytes)));
    rows
}
