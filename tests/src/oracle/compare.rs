//! Compares two walks of one stack.

use residue_ebpf::abi::event::WalkEnd;

use super::walk::{End, Hidden, Walked};

/// The number of residue's end at the outermost frame.
const BOTTOM: u32 = 0;

/// What comes of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All frames are equal, one by one, and both ended at the bottom, at the same frame.
    Identical,
    /// All frames that framehop could reach are equal; the sample does not show the others. This is
    /// neither agreement nor difference.
    Hidden(Hidden),
    /// Anything else.
    Different(Difference),
}

/// In what they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A frame. The one before it was unwound differently.
    Frame {
        /// Which, from 0.
        index: usize,
        /// Residue's, AVMA.
        residue: u64,
        /// framehop's, AVMA.
        framehop: u64,
    },
    /// Residue ended before the bottom. All frames that both have are equal.
    ResidueCut {
        /// Frames that both have.
        frames: usize,
        /// Its reason.
        reason: String,
        /// How framehop ended.
        framehop: End,
    },
    /// framehop ended before the bottom, and residue did not, or later.
    FramehopStopped {
        /// Frames that both have.
        frames: usize,
        /// Its reason.
        error: framehop::Error,
    },
    /// What is the bottom to residue has a caller to framehop.
    ResidueEndsEarlier {
        /// Frames that both have.
        frames: usize,
    },
    /// What is the bottom to framehop has a caller to residue.
    FramehopEndsEarlier {
        /// Frames that both have.
        frames: usize,
    },
}

impl Difference {
    /// How many frames are equal, from the leaf.
    #[must_use]
    pub const fn equal_frames(&self) -> usize {
        match self {
            Self::Frame { index: frames, .. }
            | Self::ResidueCut { frames, .. }
            | Self::FramehopStopped { frames, .. }
            | Self::ResidueEndsEarlier { frames }
            | Self::FramehopEndsEarlier { frames } => *frames,
        }
    }
}

/// Compares residue's frames and [`WalkEnd`] with framehop's. Frames are equal if they are the
/// `same` place: residue knows frames by object, and one that is mapped twice has two addresses.
#[must_use]
pub fn compare(
    frames: &[u64],
    end: u32,
    walked: &Walked,
    same: impl Fn(u64, u64) -> bool,
) -> Verdict {
    let mut pairs = frames.iter().zip(&walked.frames).enumerate();
    if let Some((index, (&residue, &framehop))) = pairs.find(|(_, (a, b))| !same(**a, **b)) {
        return Verdict::Different(Difference::Frame {
            index,
            residue,
            framehop,
        });
    }
    let residue_is_longer = frames.len() > walked.frames.len();
    let framehop_is_longer = frames.len() < walked.frames.len();
    let frames = frames.len().min(walked.frames.len());
    let difference = match walked.end {
        End::Stopped(error) if residue_is_longer => Difference::FramehopStopped { frames, error },
        End::Bottom if residue_is_longer => Difference::FramehopEndsEarlier { frames },
        End::Hidden(why) if !framehop_is_longer => return Verdict::Hidden(why),
        framehop if end != BOTTOM => Difference::ResidueCut {
            frames,
            reason: name_of(end),
            framehop,
        },
        _ if framehop_is_longer => Difference::ResidueEndsEarlier { frames },
        End::Stopped(error) => Difference::FramehopStopped { frames, error },
        End::Bottom | End::GoesOn | End::Hidden(_) => return Verdict::Identical,
    };
    Verdict::Different(difference)
}

fn name_of(end: u32) -> String {
    WalkEnd::from_bits(end).map_or_else(|| format!("end {end}"), |end| format!("{end:?}"))
}

#[cfg(test)]
mod tests {
    use framehop::Error;

    use super::*;

    const STACK: [u64; 4] = [0x10, 0x20, 0x30, 0x40];
    const A_CUT: u32 = 1;

    fn verdict(residue: &[u64], end: u32, framehop: &[u64], framehop_end: End) -> Verdict {
        let walked = Walked {
            frames: framehop.to_vec(),
            end: framehop_end,
        };
        compare(residue, end, &walked, |a, b| a == b)
    }

    #[test]
    fn equal_frames_down_to_the_bottom_are_identical() {
        assert_eq!(
            verdict(&STACK, BOTTOM, &STACK, End::Bottom),
            Verdict::Identical
        );
    }

    #[test]
    fn one_altered_frame_is_a_difference_wherever_it_is() {
        for index in 0..STACK.len() {
            let mut altered = STACK;
            altered[index] += 1;
            let expected = Difference::Frame {
                index,
                residue: altered[index],
                framehop: STACK[index],
            };
            assert_eq!(
                verdict(&altered, BOTTOM, &STACK, End::Bottom),
                Verdict::Different(expected)
            );
        }
    }

    #[test]
    fn a_missing_bottom_frame_is_a_difference_on_either_side() {
        assert_eq!(
            verdict(&STACK[..3], BOTTOM, &STACK, End::GoesOn),
            Verdict::Different(Difference::ResidueEndsEarlier { frames: 3 })
        );
        assert_eq!(
            verdict(&STACK, BOTTOM, &STACK[..3], End::Bottom),
            Verdict::Different(Difference::FramehopEndsEarlier { frames: 3 })
        );
    }

    #[test]
    fn a_frame_left_out_of_the_middle_is_a_difference() {
        let skipped = [0x10, 0x20, 0x40];
        assert!(matches!(
            verdict(&skipped, BOTTOM, &STACK, End::GoesOn),
            Verdict::Different(Difference::Frame { index: 2, .. })
        ));
    }

    #[test]
    fn a_cut_walk_is_never_identical() {
        for (framehop, end) in [(STACK.as_slice(), End::Bottom), (&STACK[..3], End::GoesOn)] {
            assert!(matches!(
                verdict(&framehop[..3], A_CUT, framehop, end),
                Verdict::Different(Difference::ResidueCut { frames: 3, .. })
            ));
        }
        let both = verdict(&STACK, 4711, &STACK, End::Stopped(Error::DidNotAdvance));
        assert!(matches!(
            both,
            Verdict::Different(Difference::ResidueCut { reason, .. }) if reason == "end 4711"
        ));
    }

    #[test]
    fn framehop_that_stops_is_a_difference_of_its_own() {
        for frames in [3, 4] {
            assert_eq!(
                verdict(
                    &STACK,
                    BOTTOM,
                    &STACK[..frames],
                    End::Stopped(Error::DidNotAdvance)
                ),
                Verdict::Different(Difference::FramehopStopped {
                    frames,
                    error: Error::DidNotAdvance
                })
            );
        }
    }

    #[test]
    fn a_copy_that_is_too_short_hides_no_difference_before_its_end() {
        assert_eq!(
            verdict(
                &STACK,
                BOTTOM,
                &STACK[..2],
                End::Hidden(Hidden::CopyTooShort)
            ),
            Verdict::Hidden(Hidden::CopyTooShort)
        );
        assert!(matches!(
            verdict(
                &STACK,
                BOTTOM,
                &[0x10, 0x21],
                End::Hidden(Hidden::CopyTooShort)
            ),
            Verdict::Different(Difference::Frame { index: 1, .. })
        ));
        assert!(matches!(
            verdict(
                &STACK[..3],
                BOTTOM,
                &STACK,
                End::Hidden(Hidden::CopyTooShort)
            ),
            Verdict::Different(Difference::ResidueEndsEarlier { frames: 3 })
        ));
    }
}
