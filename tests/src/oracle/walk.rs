//! framehop's walk of a sample.

use std::{ops::Range, sync::Arc};

use framehop::{
    Error, FrameAddress, Unwinder as _,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};

use super::{code::Code, sample::Sample};

/// The contents of a section, shared by all mappings of its object.
pub type Bytes = Arc<[u8]>;

/// How far behind the copy's end an address may be to be taken for one of the stack: the usual
/// limit of a stack's size (`RLIMIT_STACK`, which glibc takes for threads, too).
const STACK_BYTES: u64 = 8 << 20;

/// Why the rest of a stack is not to be seen in a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// It lies behind the end of the copy.
    CopyTooShort,
    /// A return probe has put its trampoline in the place of the return address, which only the
    /// kernel knows then.
    ReturnProbe,
}

/// How framehop's walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The outermost frame.
    Bottom,
    /// The sample does not show the next frame.
    Hidden(Hidden),
    /// It has at least one frame more than residue, and was not asked for others.
    GoesOn,
    /// framehop found no caller.
    Stopped(Error),
}

/// framehop's frames, as in [`Sample::frames`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Return addresses, AVMA, leaf first.
    pub frames: Vec<u64>,
    /// How it ended.
    pub end: End,
}

/// One process's unwinder.
#[expect(missing_debug_implementations, reason = "framehop's types have none")]
pub struct Walker {
    unwinder: UnwinderX86_64<Bytes>,
    cache: CacheX86_64,
    trampolines: Range<u64>,
}

impl Walker {
    /// With all the code of a process.
    #[must_use]
    pub fn new(code: &Code) -> Self {
        let mut unwinder = UnwinderX86_64::new();
        for module in code.framehop_modules() {
            unwinder.add_module(module);
        }
        Self {
            unwinder,
            cache: CacheX86_64::new(),
            trampolines: code.return_trampolines(),
        }
    }

    /// Walks until the bottom, or until there is one frame more than residue has.
    pub fn walk(&mut self, sample: &Sample) -> Walked {
        let start = sample.start;
        let mut registers = UnwindRegsX86_64::new(start.ip, start.sp, start.bp);
        let mut read = |address| sample.word(address).ok_or(());
        let mut frames = Vec::new();
        let mut next = FrameAddress::from_return_address(start.ip);
        // framehop's iterator takes its first address for that of an instruction that is about to
        // be executed, and this one is behind a call.
        let end = loop {
            let Some(frame) = next else { break End::Bottom };
            if self.trampolines.contains(&frame.address()) {
                break End::Hidden(Hidden::ReturnProbe);
            }
            frames.push(frame.address());
            if frames.len() > sample.frames.len() {
                break End::GoesOn;
            }
            let caller =
                self.unwinder
                    .unwind_frame(frame, &mut registers, &mut self.cache, &mut read);
            next = match caller {
                Ok(caller) => caller.and_then(FrameAddress::from_return_address),
                Err(error) => break end_of(error, sample),
            };
        };
        Walked { frames, end }
    }
}

fn end_of(error: Error, sample: &Sample) -> End {
    let behind = sample.copy_end().saturating_sub(7);
    match error {
        Error::CouldNotReadStack(address)
            if sample.is_cut() && (behind..behind + STACK_BYTES).contains(&address) =>
        {
            End::Hidden(Hidden::CopyTooShort)
        }
        error => End::Stopped(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::sample::{FULL_COPY_BYTES, Registers};

    /// Code in no object keeps frame pointers, as far as framehop knows.
    fn sample(words: &[u64], bp: u64, frames: &[u64]) -> Sample {
        Sample {
            pid: 1,
            tid: 1,
            start: Registers {
                ip: 0x1000,
                sp: 0x8000,
                bp,
            },
            end: 0,
            left_out: 0,
            frames: frames.to_vec(),
            stack: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        }
    }

    fn walk(sample: &Sample) -> Walked {
        Walker::new(&Code::default()).walk(sample)
    }

    #[test]
    fn frame_pointers_lead_to_the_bottom() {
        let walked = walk(&sample(&[0x8010, 0x2000, 0, 0x3000], 0x8000, &[0; 3]));
        assert_eq!(walked.frames, [0x1000, 0x2000, 0x3000]);
        assert_eq!(walked.end, End::Bottom);
    }

    #[test]
    fn a_walk_that_is_longer_than_the_other_is_not_finished() {
        let walked = walk(&sample(&[0x8010, 0x2000, 0, 0x3000], 0x8000, &[0]));
        assert_eq!(walked.frames, [0x1000, 0x2000]);
        assert_eq!(walked.end, End::GoesOn);
    }

    #[test]
    fn what_a_return_probe_hides_is_not_guessed() {
        let sample = sample(&[0x8010, 0x2000, 0, 0x3000], 0x8000, &[0; 3]);
        let mut walker = Walker::new(&Code::default());
        walker.trampolines = 0x2000..0x2001;
        let walked = walker.walk(&sample);
        assert_eq!(walked.frames, [0x1000]);
        assert_eq!(walked.end, End::Hidden(Hidden::ReturnProbe));
    }

    #[test]
    fn memory_outside_the_copy_is_missing_only_where_the_copy_was_cut() {
        let mut words = vec![0; FULL_COPY_BYTES / 8];
        (words[0], words[1]) = (0x8000 + FULL_COPY_BYTES as u64, 0x2000);
        let cut = sample(&words, 0x8000, &[0; 9]);
        assert_eq!(walk(&cut).end, End::Hidden(Hidden::CopyTooShort));
        words.pop();
        assert!(matches!(
            walk(&sample(&words, 0x8000, &[0; 9])).end,
            End::Stopped(Error::CouldNotReadStack(_))
        ));
        let wild = sample(
            &vec![0xdead_beef_0000; FULL_COPY_BYTES / 8],
            0x8000,
            &[0; 9],
        );
        assert!(matches!(walk(&wild).end, End::Stopped(_)));
    }
}
