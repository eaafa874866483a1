//! Finds the instructions by which a function returns.
//!
//! A return probe replaces the return address, and an exception that passes through such a frame finds no
//! caller and terminates the program. So where an exception may pass, residue probes each `ret` instead. That
//! is right only if the function has no other way out, such as a jump into another function, which then
//! returns to the caller.

use std::collections::BTreeSet;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use super::FunctionCode;
use crate::process::Svma;

/// The most returns that residue probes. A function with more would need too many probes.
const MAX_EXITS: usize = 64;

/// Why residue does not know all ways out of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoExits {
    /// The code is cut off, or has bytes that are no instruction.
    Undecodable,
    /// The function ends, or may end, in a jump to another function.
    Jumps,
    /// The function never returns.
    Never,
    /// The function has more returns than residue probes.
    TooMany,
}

impl NoExits {
    /// Completes "NAME cannot be followed without a return probe: …".
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Undecodable => "not all of its code can be decoded",
            Self::Jumps => "it may end in a jump to another function",
            Self::Never => "it never returns",
            Self::TooMany => "it returns in more than 64 places",
        }
    }
}

/// The addresses of the return instructions of a function. The code may be in several parts, because compilers
/// put rarely executed code elsewhere.
///
/// # Errors
/// When the function has, or may have, another way out.
pub fn exits(parts: &[(Svma, &FunctionCode)]) -> Result<Vec<Svma>, NoExits> {
    let mut flow = Flow::default();
    for (address, code) in parts {
        flow.follow(*address, code)?;
    }
    let is_inside = |target| flow.boundaries.contains(target);
    if !flow.branches.iter().all(is_inside) {
        return Err(NoExits::Jumps);
    }
    match flow.returns.len() {
        0 => Err(NoExits::Never),
        count if count > MAX_EXITS => Err(NoExits::TooMany),
        _ => Ok(flow.returns),
    }
}

/// Where the code of a function goes.
#[derive(Default)]
struct Flow {
    /// The address of each instruction.
    boundaries: BTreeSet<u64>,
    /// The targets of direct branches.
    branches: Vec<u64>,
    returns: Vec<Svma>,
}

impl Flow {
    /// Adds the instructions of one part of the function.
    fn follow(&mut self, address: Svma, code: &FunctionCode) -> Result<(), NoExits> {
        let mut previous = None;
        let mut end = address.0;
        for instruction in decode(address, code) {
            self.boundaries.insert(instruction.ip());
            end = instruction.next_ip();
            match instruction.flow_control() {
                FlowControl::Return if is_plain_return(&instruction) => {
                    self.returns.push(Svma(instruction.ip()));
                }
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                    self.branches.push(instruction.near_branch_target());
                }
                FlowControl::IndirectBranch if is_switch(&instruction, previous.as_ref()) => {}
                FlowControl::Return | FlowControl::IndirectBranch => return Err(NoExits::Jumps),
                _ => {}
            }
            previous = Some(instruction);
        }
        let is_whole = code.complete && end == address.0.wrapping_add(code.bytes.len() as u64);
        is_whole.then_some(()).ok_or(NoExits::Undecodable)
    }
}

fn decode(address: Svma, code: &FunctionCode) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, &code.bytes, address.0, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
        .take_while(|instruction| !instruction.is_invalid())
}

fn is_plain_return(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Code::Retnq | Code::Retnq_imm16)
}

/// Whether a jump goes through a table of distances, as position-independent code has for a `switch`: `add rax,
/// rdx; jmp rax`. A jump through a table of addresses does not count, because the addresses may be functions.
fn is_switch(jump: &Instruction, previous: Option<&Instruction>) -> bool {
    let through = (jump.op0_kind() == OpKind::Register).then(|| jump.op0_register());
    previous.is_some_and(|add| {
        add.mnemonic() == Mnemonic::Add
            && add.op0_kind() == OpKind::Register
            && add.op1_kind() == OpKind::Register
            && add.op0_register() != Register::RSP
            && Some(add.op0_register()) == through
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: &[u8]) -> FunctionCode {
        FunctionCode {
            bytes: bytes.to_vec(),
            complete: true,
        }
    }

    fn exits_of(bytes: &[u8]) -> Result<Vec<u64>, NoExits> {
        let found = exits(&[(Svma(0x1000), &code(bytes))])?;
        Ok(found.into_iter().map(|exit| exit.0).collect())
    }

    #[test]
    fn every_return_is_an_exit() {
        // test edi, edi; je +1; ret; xor eax, eax; rep ret
        let bytes = [0x85, 0xff, 0x74, 0x01, 0xc3, 0x31, 0xc0, 0xf3, 0xc3];
        assert_eq!(exits_of(&bytes), Ok(vec![0x1004, 0x1007]));
    }

    #[test]
    fn a_jump_to_another_function_is_a_way_out_that_is_not_seen() {
        // jmp +0x100
        assert_eq!(exits_of(&[0xe9, 0, 1, 0, 0]), Err(NoExits::Jumps));
        // ret; jmp rax
        assert_eq!(exits_of(&[0xc3, 0xff, 0xe0]), Err(NoExits::Jumps));
        // ret; jmp [rdi*8 + 0x1000]
        let table = [0xc3, 0xff, 0x24, 0xfd, 0, 0x10, 0, 0];
        assert_eq!(exits_of(&table), Err(NoExits::Jumps));
        // je into the middle of the ret that follows the jump
        assert_eq!(exits_of(&[0x74, 0xff, 0xc3]), Err(NoExits::Jumps));
    }

    #[test]
    fn a_switch_stays_inside() {
        // add rax, rdx; notrack jmp rax; ret
        let bytes = [0x48, 0x01, 0xd0, 0x3e, 0xff, 0xe0, 0xc3];
        assert_eq!(exits_of(&bytes), Ok(vec![0x1006]));
    }

    #[test]
    fn a_function_in_parts_may_jump_between_them() {
        // je 0x2000; ret, and at 0x2000 jmp 0x1006
        let hot = code(&[0x0f, 0x84, 0xfa, 0x0f, 0, 0, 0xc3]);
        let cold = code(&[0xe9, 0x01, 0xf0, 0xff, 0xff]);
        let parts = [(Svma(0x1000), &hot), (Svma(0x2000), &cold)];
        assert_eq!(exits(&parts), Ok(vec![Svma(0x1006)]));
        assert_eq!(exits(&parts[..1]), Err(NoExits::Jumps));
    }

    #[test]
    fn what_is_not_all_code_or_never_returns_has_no_exits() {
        assert_eq!(exits_of(&[0xc3, 0x06]), Err(NoExits::Undecodable));
        assert_eq!(exits_of(&[0xeb, 0xfe]), Err(NoExits::Never));
        assert_eq!(exits_of(&[0xc3; 65]), Err(NoExits::TooMany));
        assert_eq!(exits(&[]), Err(NoExits::Never));
    }

    #[test]
    fn any_bytes_have_exits_inside_them_or_none() {
        proptest::proptest!(|(bytes: Vec<u8>, address: u64)| {
            let code = code(&bytes);
            let found = exits(&[(Svma(address), &code)]).unwrap_or_default();
            for exit in found {
                assert!(exit.0.wrapping_sub(address) < bytes.len() as u64);
            }
        });
    }
}
