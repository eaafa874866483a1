//! Asks the running kernel whether it accepts all eBPF programs, and how much work verifying them is.

use std::time::{Duration, Instant};

use aya::programs::{Program, ProgramError};

use super::Kernel;

/// The most instructions that the verifier walks before it refuses a program
/// (include/linux/bpf.h, `BPF_COMPLEXITY_LIMIT_INSNS`).
pub const VERIFIER_LIMIT: u32 = 1_000_000;

/// Bytes of one eBPF instruction (include/uapi/linux/bpf.h, `struct bpf_insn`).
const INSTRUCTION_BYTES: u32 = 8;

/// What the kernel said about one program.
#[derive(Debug)]
pub struct Verification {
    /// The program's name.
    pub program: String,
    /// How long the kernel took to verify and compile the program.
    pub took: Duration,
    /// What the kernel accepted, or why the kernel refused the program, with the verifier's log.
    pub outcome: Result<Accepted, ProgramError>,
}

/// A program that the kernel accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// The length of the program after the verifier has rewritten it, in instructions; `None` where the kernel
    /// does not tell.
    pub instructions: Option<u32>,
    /// How many instructions the verifier walked, over all paths, at most [`VERIFIER_LIMIT`]; `None` where the
    /// kernel does not tell.
    pub walked: Option<u32>,
}

impl Kernel {
    /// Has the kernel verify every program of the object in the order of their names, even programs that no
    /// process here needs. Attaches nothing.
    pub fn verify_programs(&mut self) -> Vec<Verification> {
        let mut programs: Vec<_> = self.ebpf.programs_mut().collect();
        programs.sort_unstable_by_key(|(name, _)| *name);
        let verified = programs.into_iter().map(|(name, program)| {
            let began = Instant::now();
            let outcome = load(program);
            Verification {
                program: name.to_owned(),
                took: began.elapsed(),
                outcome,
            }
        });
        verified.collect()
    }
}

fn load(program: &mut Program) -> Result<Accepted, ProgramError> {
    match program {
        Program::UProbe(uprobe) => uprobe.load()?,
        Program::TracePoint(tracepoint) => tracepoint.load()?,
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    let info = program.info()?;
    Ok(Accepted {
        instructions: info
            .size_translated()
            .map(|bytes| bytes / INSTRUCTION_BYTES),
        walked: info.verified_instruction_count(),
    })
}
