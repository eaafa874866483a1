//! Names the differences, so that those of one cause are counted together.

use super::{code::Code, compare::Difference, sample::Sample, walk::End};

/// The class of a difference: what kind it is, and where.
#[must_use]
pub fn class_of(sample: &Sample, difference: &Difference, code: &Code) -> String {
    let place = last_common(sample, difference, code);
    match difference {
        Difference::Frame { .. } => format!("the caller differs at {place}"),
        Difference::ResidueCut {
            reason, framehop, ..
        } => match framehop {
            End::Stopped(error) => {
                format!(
                    "both stopped at {place}: residue {reason}, framehop {}",
                    name(error)
                )
            }
            _ => format!("residue cut: {reason} at {place}"),
        },
        Difference::FramehopStopped { error, .. } => {
            format!("framehop stopped early: {} at {place}", name(error))
        }
        Difference::ResidueEndsEarlier { .. } => format!("the bottom to residue alone: {place}"),
        Difference::FramehopEndsEarlier { .. } => format!("the bottom to framehop alone: {place}"),
    }
}

/// Without the address, so that the same error is one class.
fn name(error: &framehop::Error) -> String {
    match error {
        framehop::Error::CouldNotReadStack(_) => "could not read stack memory".to_owned(),
        other => other.to_string(),
    }
}

/// One difference as it is, for a class's examples.
#[must_use]
pub fn example(sample: &Sample, difference: &Difference, code: &Code) -> String {
    let Sample { tid, frames, .. } = sample;
    let count = frames.len();
    match difference {
        Difference::Frame {
            index,
            residue,
            framehop,
        } => format!(
            "thread {tid}, frame {index} of {count}: residue {residue:#x} {}, framehop {framehop:#x} {}",
            code.place_of_call(*residue),
            code.place_of_call(*framehop)
        ),
        Difference::FramehopStopped { frames, error } => {
            format!("thread {tid}, behind frame {frames} of {count}: {error}")
        }
        other => format!(
            "thread {tid}, behind frame {} of {count}",
            other.equal_frames()
        ),
    }
}

/// Where the first frame that differs was unwound from: there one of the two has the wrong rule.
fn last_common(sample: &Sample, difference: &Difference, code: &Code) -> String {
    let index = difference.equal_frames().checked_sub(1);
    let frame = index.and_then(|index| sample.frames.get(index));
    frame.map_or_else(
        || "the start".to_owned(),
        |&frame| code.place_of_call(frame).to_string(),
    )
}
