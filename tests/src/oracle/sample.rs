//! Reads what `residue record --sample-stacks FILE` wrote: little-endian records, one after another.
//!
//! ```text
//! u32 pid, tid     u64 ip, sp, bp     u32 end, frame count, stack bytes, frames left out
//! u64 for each frame, leaf first      the memory from sp upwards
//! ```

use std::io::{ErrorKind, Read};

use anyhow::{Context as _, Result, ensure};

/// Before the frames.
pub(super) const HEADER_BYTES: usize = 48;
/// The longest copy of a stack: one that is as long ends before the stack does.
pub const FULL_COPY_BYTES: usize = 64 << 10;
/// A walk has far fewer frames; more means that this is no file of samples.
const MOST_FRAMES: u32 = 1 << 16;

/// Where a walk started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// A return address, AVMA.
    pub ip: u64,
    /// The stack pointer after that return.
    pub sp: u64,
    /// The frame pointer register, whatever the code uses it for.
    pub bp: u64,
}

/// One walk of the kernel side, and what it walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Where the walk started.
    pub start: Registers,
    /// Why it ended: a number of [`WalkEnd`](residue_ebpf::abi::event::WalkEnd), 0 at the bottom.
    pub end: u32,
    /// How many frames were left out of the middle.
    pub left_out: u32,
    /// Return addresses, AVMA, leaf first. Below a signal frame the interrupted address + 1.
    pub frames: Vec<u64>,
    /// Memory from the stack pointer upwards.
    pub stack: Vec<u8>,
}

impl Sample {
    /// The word at an address, if it is in the copy.
    #[must_use]
    pub fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start.sp)?).ok()?;
        let bytes = self.stack.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Just behind the last copied byte, AVMA.
    #[must_use]
    pub fn copy_end(&self) -> u64 {
        self.start.sp.saturating_add(self.stack.len() as u64)
    }

    /// Whether the stack goes on behind the copy.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.stack.len() >= FULL_COPY_BYTES
    }
}

/// The beginning of a record, which says how long it is.
pub(super) struct Header {
    pid: u32,
    tid: u32,
    start: Registers,
    end: u32,
    frames: u32,
    stack_bytes: u32,
    pub(super) left_out: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let half = |at: usize| {
            let bytes = bytes[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes)
        };
        let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 4)) << 32;
        let header = Self {
            pid: half(0),
            tid: half(4),
            start: Registers {
                ip: word(8),
                sp: word(16),
                bp: word(24),
            },
            end: half(32),
            frames: half(36),
            stack_bytes: half(40),
            left_out: half(44),
        };
        ensure!(
            header.frames <= MOST_FRAMES && header.stack_bytes as usize <= FULL_COPY_BYTES,
            "a sample of {} frames and {} bytes is none",
            header.frames,
            header.stack_bytes
        );
        Ok(header)
    }

    /// Bytes behind the header.
    pub(super) fn body_bytes(&self) -> usize {
        8 * self.frames as usize + self.stack_bytes as usize
    }

    fn with_body(self, body: &[u8]) -> Sample {
        let (frames, stack) = body.split_at(8 * self.frames as usize);
        let (frames, _) = frames.as_chunks();
        let Self {
            pid,
            tid,
            start,
            end,
            left_out,
            ..
        } = self;
        Sample {
            pid,
            tid,
            start,
            end,
            left_out,
            frames: frames
                .iter()
                .map(|frame| u64::from_le_bytes(*frame))
                .collect(),
            stack: stack.to_vec(),
        }
    }
}

/// The samples of a file, one by one: a long run's are gigabytes.
#[derive(Debug)]
pub struct Samples<R>(R);

impl<R: Read> Samples<R> {
    /// Of anything that can be read; give it a buffer.
    pub const fn new(reader: R) -> Self {
        Self(reader)
    }

    /// The next one, or none at the end of the file.
    ///
    /// # Errors
    ///
    /// When the file ends within a record, or has something else in it.
    pub fn next_sample(&mut self) -> Result<Option<Sample>> {
        let mut header = [0; HEADER_BYTES];
        match self.0.read_exact(&mut header[..1]) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        self.0
            .read_exact(&mut header[1..])
            .context("the samples end within a header")?;
        let header = Header::parse(&header)?;
        let mut body = vec![0; header.body_bytes()];
        self.0
            .read_exact(&mut body)
            .context("the samples end within a record")?;
        Ok(Some(header.with_body(&body)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::oracle) fn record(frames: &[u64], stack: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for half in [4242, 4243] {
            bytes.extend(u32::to_le_bytes(half));
        }
        for word in [frames[0], 0x7fff_0000, 0x7fff_0010] {
            bytes.extend(u64::to_le_bytes(word));
        }
        for half in [0, frames.len() as u32, 8 * stack.len() as u32, 0] {
            bytes.extend(u32::to_le_bytes(half));
        }
        for word in frames.iter().chain(stack) {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn records_are_read_one_after_another() -> Result<()> {
        let bytes = [record(&[1, 2, 3], &[10, 11]), record(&[7], &[])].concat();
        let mut samples = Samples::new(bytes.as_slice());
        let first = samples.next_sample()?.context("a first one")?;
        assert_eq!((first.pid, first.tid), (4242, 4243));
        assert_eq!(
            (first.frames.as_slice(), first.start.bp),
            ([1, 2, 3].as_slice(), 0x7fff_0010)
        );
        let second = samples.next_sample()?.context("a second one")?;
        assert_eq!(second.frames, [7]);
        assert_eq!(samples.next_sample()?, None);
        Ok(())
    }

    #[test]
    fn a_record_that_is_not_complete_is_an_error() {
        let bytes = record(&[1, 2], &[10, 11]);
        for end in [20, bytes.len() - 1] {
            assert!(Samples::new(&bytes[..end]).next_sample().is_err());
        }
    }

    #[test]
    fn only_words_of_the_copy_can_be_read() -> Result<()> {
        let bytes = record(&[1], &[10, 11]);
        let sample = Samples::new(bytes.as_slice())
            .next_sample()?
            .context("one")?;
        assert_eq!(sample.word(0x7fff_0000), Some(10));
        assert_eq!(sample.word(0x7fff_0008), Some(11));
        for outside in [0x7ffe_fff8, 0x7fff_0009, 0x7fff_0010, u64::MAX] {
            assert_eq!(sample.word(outside), None, "{outside:#x}");
        }
        assert!(!sample.is_cut());
        Ok(())
    }
}
