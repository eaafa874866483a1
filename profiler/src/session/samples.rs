//! Writes samples of stacks to a file, for tests that walk them again by other means.
//!
//! Little-endian records, one after another: pid and tid (32 bits each); instruction pointer, stack
//! pointer and rbp where the walk began; walk end, number of frames, bytes of stack and frames left
//! out (32 bits each); the native frames as AVMAs, leaf first; the stack from the stack pointer upwards.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use residue_ebpf::abi::{
    MAX_FRAMES,
    event::{SAMPLE_BYTES, StackSample},
    frame::{NO_OBJECT, PYTHON, RawFrame},
    unwind::CodeMapping,
};

use super::{Config, SessionError, processes::Processes};
use crate::{
    drain::{Drain, in_order},
    ids::Slot,
    private_file,
};

/// A file of stack samples, in the format above.
pub struct SampleFile(BufWriter<File>);

impl SampleFile {
    /// Makes the file. Fails if something is there already.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(BufWriter::new(private_file::create(path)?)))
    }

    /// Adds a sample of a process whose code lies at `code`.
    pub fn add(&mut self, sample: &StackSample, code: &[CodeMapping]) -> io::Result<()> {
        let walked = sample.walked as usize;
        let kept = walked.min(MAX_FRAMES);
        let mut frames = in_order(sample.frames[..kept].to_vec(), walked);
        // The walkers in the tests know native frames alone.
        frames.retain(|frame| frame.object != PYTHON);
        let stack = &sample.stack[..(sample.stack_bytes as usize).min(SAMPLE_BYTES)];
        let out = &mut self.0;
        for half in [sample.pid, sample.tid] {
            out.write_all(&half.to_le_bytes())?;
        }
        for word in [sample.ip, sample.sp, sample.bp] {
            out.write_all(&word.to_le_bytes())?;
        }
        for half in [
            sample.end,
            frames.len() as u32,
            stack.len() as u32,
            (walked - kept) as u32,
        ] {
            out.write_all(&half.to_le_bytes())?;
        }
        for frame in frames {
            out.write_all(&avma(frame, code).to_le_bytes())?;
        }
        out.write_all(stack)
    }

    /// Writes what is still in the buffer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Where the process has a frame; zero if the process has unmapped the code since.
fn avma(frame: RawFrame, code: &[CodeMapping]) -> u64 {
    if frame.object == NO_OBJECT {
        return frame.offset;
    }
    let call = frame.offset.saturating_sub(1);
    let into = |code: &CodeMapping| {
        let into = call.checked_sub(code.offset)?;
        (into < code.end - code.start).then_some(code.start + into + 1)
    };
    let of_object = code
        .iter()
        .filter(|code| code.object == u32::from(frame.object));
    of_object.filter_map(into).next().unwrap_or(0)
}

/// The file for samples of stacks, if the configuration names one.
pub fn sample_file(config: &Config) -> Result<Option<SampleFile>, SessionError> {
    let create = |path: &PathBuf| SampleFile::create(path);
    let file = config.samples.as_ref().map(create).transpose();
    file.map_err(SessionError::Samples)
}

impl SampleFile {
    /// Writes the samples that the kernel side has sent.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn take(&mut self, processes: &Processes, drain: &mut Drain) -> Result<(), SessionError> {
        let mut written = Ok(());
        drain.samples(|sample| {
            let slot = Slot::of_record(sample.process);
            if let Some(followed) = processes.get(slot)
                && written.is_ok()
            {
                written = self.add(sample, followed.code());
            }
        });
        written
            .and_then(|()| self.flush())
            .map_err(SessionError::Samples)
    }
}
