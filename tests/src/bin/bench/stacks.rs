//! What a walk by unwind tables costs, at two depths, in a target without frame pointers.

use anyhow::Result;
use residue_tests::{fixtures::Fixture, target::Target};

use crate::{
    probe_cost::{frames_of_a_stack, ns_per_recorded_pair},
    progress,
    sample::Sample,
    table::{Bound, Row, Section},
};

const ROUNDS: usize = 5;

/// Frames of `allocate_below` that make stacks of 10 and of 30 frames, and the most that residue may
/// cost of the floor with them.
const DEPTHS: [(&str, f64); 2] = [("6", 2.0), ("26", 3.5)];
/// Nanoseconds that a frame may cost.
const MOST_A_FRAME: f64 = 120.0;

/// A target whose stacks have one depth.
struct Load {
    target: Target,
    frames: usize,
    floor: Vec<f64>,
    residue: Vec<f64>,
}

pub fn measure() -> Result<Section> {
    let mut loads = Vec::new();
    for (depth, _) in DEPTHS {
        loads.push(Load::start(depth)?);
    }
    for round in 1..=ROUNDS {
        progress(&format!("cost of whole stacks, round {round} of {ROUNDS}"));
        loads.iter_mut().try_for_each(Load::round)?;
    }
    let mut rows = Vec::new();
    for (load, (_, bound)) in loads.iter().zip(DEPTHS) {
        rows.extend(load.rows(bound));
    }
    rows.push(row_of_a_frame(&loads[0], &loads[1]));
    Ok(Section {
        title: format!(
            "One malloc+free pair with its whole stack, no frame pointers, {ROUNDS} rounds"
        ),
        rows,
    })
}

impl Load {
    fn start(depth: &str) -> Result<Self> {
        let program = Fixture::ChurnFrameless.build()?;
        let mut target = Target::start(&program, &["1", "1000", depth])?;
        target.ask("fill", "filled")?;
        Ok(Self {
            frames: frames_of_a_stack(&mut target)?,
            target,
            floor: Vec::new(),
            residue: Vec::new(),
        })
    }

    fn round(&mut self) -> Result<()> {
        self.floor.push(ns_per_recorded_pair(
            &mut self.target,
            &["--empty-programs"],
        )?);
        self.residue
            .push(ns_per_recorded_pair(&mut self.target, &[])?);
        Ok(())
    }

    fn rows(&self, bound: f64) -> [Row; 2] {
        let (floor, residue) = (
            Sample::of(self.floor.clone()),
            Sample::of(self.residue.clone()),
        );
        let over_floor = residue.ratio_to(&floor);
        let frames = self.frames;
        [
            Row::of(format!("{frames} frames: floor"), &floor, "ns"),
            Row::of(format!("{frames} frames: residue"), &residue, "ns")
                .compared(&over_floor, "floor")
                .bound(Bound::at_most(bound, over_floor.median())),
        ]
    }

    /// What residue adds to the floor, round by round.
    fn added(&self) -> impl Iterator<Item = f64> {
        self.residue.iter().zip(&self.floor).map(|(r, f)| r - f)
    }
}

fn row_of_a_frame(shallow: &Load, deep: &Load) -> Row {
    let frames = (deep.frames - shallow.frames) as f64;
    let added = shallow.added().zip(deep.added());
    let a_frame = Sample::of(added.map(|(less, more)| (more - less) / frames).collect());
    Row::of("a frame more", &a_frame, "ns").bound(Bound::at_most(MOST_A_FRAME, a_frame.median()))
}
