//! Chooses the instruction of a function to probe.
//!
//! A probe costs thirty times less on an instruction that the kernel emulates, and functions often begin with
//! an instruction that the kernel does not emulate. So the site is the first cheap instruction that every call
//! executes exactly once, if all that the probe reads still has its value from the function's entry:
//!
//! - the argument registers of the call shape;
//! - the stack pointer, if there is a return probe (the kernel replaces the word that the stack pointer points
//!   at) or a stack to take. A site on a `push` is fine, because the probe fires before the push;
//! - memory other than the stack, so that the function has not allocated or freed anything yet.
//!
//! The search ends at the first branch. Only in `free` and `SSL_free` the search goes on behind the NULL check,
//! because a call with nothing to free does not matter.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Formatter, Instruction, InstructionInfoFactory,
    IntelFormatter, OpAccess, OpKind, Register,
};
use residue_ebpf::abi::call_shape::CallShape;

use super::FunctionCode;
pub use super::encoding::SiteCost;
use crate::process::{FileOffset, Svma};

/// Argument registers in order (System V ABI for x86-64, 3.2.3).
const ARGUMENTS: [Register; 4] = [Register::RDI, Register::RSI, Register::RDX, Register::RCX];

/// How to choose a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SitePolicy {
    /// The cheapest instruction that is right.
    #[default]
    Cheapest,
    /// The first instruction, whatever its cost: the baseline for comparisons.
    FunctionStart,
}

/// The place of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSite {
    /// The symbol of the function.
    pub symbol: String,
    /// Bytes from the start of the function.
    pub offset_in_function: u64,
    /// Where the instruction is in the object's file, which is what the kernel wants to know.
    pub file_offset: FileOffset,
    /// The cost of a hit.
    pub cost: SiteCost,
    /// The probed instruction, disassembled.
    pub instruction: String,
    /// Why the probe goes here.
    pub reason: &'static str,
}

impl ProbeSite {
    /// Chooses the site of a function with this call shape. The function begins at `address`, which is at `start`
    /// in the file.
    ///
    /// # Errors
    /// When the function has no site. The text says why.
    pub(crate) fn choose(
        symbol: &str,
        (address, start): (Svma, FileOffset),
        code: &FunctionCode,
        shape: CallShape,
        policy: SitePolicy,
    ) -> Result<Self, &'static str> {
        let choice = choose(code, shape, policy).ok_or("its code cannot be decoded")?;
        let at = start.checked_add(choice.offset);
        Ok(Self {
            symbol: symbol.to_owned(),
            offset_in_function: choice.offset,
            file_offset: at.ok_or("it is in no text segment")?,
            cost: choice.cost,
            instruction: text(&choice.instruction, address),
            reason: choice.reason,
        })
    }

    /// Makes an instruction the site, whatever its cost. The file has these bytes of the instruction at `at`.
    pub(crate) fn of(
        symbol: &str,
        offset_in_function: u64,
        (address, at): (Svma, FileOffset),
        bytes: &[u8],
        reason: &'static str,
    ) -> Self {
        let instruction = decode(bytes).next();
        Self {
            symbol: symbol.to_owned(),
            offset_in_function,
            file_offset: at,
            cost: SiteCost::of(bytes),
            instruction: instruction.map_or_else(String::new, |first| text(&first, address)),
            reason,
        }
    }
}

/// A possible site, relative to its function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub offset: u64,
    pub cost: SiteCost,
    pub instruction: Instruction,
    pub reason: &'static str,
    behind_null_check: bool,
}

/// Chooses the site; `None` when the code does not begin with an instruction.
pub(crate) fn choose(code: &FunctionCode, shape: CallShape, policy: SitePolicy) -> Option<Choice> {
    let start = Choice::at(&code.bytes, decode(&code.bytes).next()?, false);
    let at_start = |reason| Some(Choice { reason, ..start });
    if policy == SitePolicy::FunctionStart {
        return at_start("the function's start, as asked for");
    }
    if start.cost == SiteCost::Emulated && !only_frees(shape) {
        return Some(start);
    }
    if !code.complete {
        return at_start("the function's end is not known");
    }
    let Some(targets) = branch_targets(&code.bytes) else {
        return at_start("the function cannot be decoded");
    };
    let once = |choice: &Choice| {
        !targets
            .iter()
            .any(|target| (1..=choice.offset).contains(target))
    };
    let cheap = candidates(&code.bytes, shape).into_iter().filter(once);
    let best = cheap.min_by_key(|choice| (choice.cost, !choice.behind_null_check, choice.offset));
    best.or_else(|| at_start("no cheap instruction is safe here"))
}

/// The target of a function that begins with a jump to another function, relative to the start of this one.
/// Each call arrives there with the same arguments and the same stack.
pub(crate) fn forwards_to(code: &FunctionCode) -> Option<i64> {
    let mut instructions =
        decode(&code.bytes).filter(|instruction| instruction.code() != Code::Endbr64);
    let first = instructions.next()?;
    let direct = first.flow_control() == FlowControl::UnconditionalBranch && is_near(&first);
    direct.then(|| first.near_branch_target().cast_signed())
}

/// Disassembles an instruction, whose address is relative to the start of the function, with SVMAs.
pub(crate) fn text(instruction: &Instruction, function: Svma) -> String {
    let mut instruction = *instruction;
    if is_near(&instruction) {
        let target = instruction.near_branch_target().wrapping_add(function.0);
        instruction.set_near_branch64(target);
    }
    if instruction.is_ip_rel_memory_operand() {
        let operand = instruction.ip_rel_memory_address();
        instruction.set_memory_displacement64(operand.wrapping_add(function.0));
    }
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    options.set_uppercase_hex(false);
    options.set_space_after_operand_separator(true);
    let mut text = String::new();
    formatter.format(&instruction, &mut text);
    text
}

impl Choice {
    fn at(bytes: &[u8], instruction: Instruction, behind_null_check: bool) -> Self {
        let start = usize::try_from(instruction.ip()).unwrap_or(usize::MAX);
        let own = bytes
            .get(start..start.saturating_add(instruction.len()))
            .unwrap_or_default();
        let reason = match (instruction.ip(), behind_null_check) {
            (0, _) => "the first instruction is cheap",
            (_, false) => "the first cheap instruction, with arguments and stack as at entry",
            (_, true) => "cheap, and only passed when there is something to free",
        };
        let cost = SiteCost::of(own);
        Self {
            offset: instruction.ip(),
            cost,
            instruction,
            reason,
            behind_null_check,
        }
    }
}

/// Decodes from offset 0 on. Ends at the first bytes that are no instruction.
fn decode(bytes: &[u8]) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
        .take_while(|instruction| !instruction.is_invalid())
}

/// The targets of all direct branches of the function; `None` if some bytes are no instruction. A branch back to
/// an instruction before the site would make one call count twice.
fn branch_targets(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut targets = Vec::new();
    let mut end = 0;
    for instruction in decode(bytes) {
        end = instruction.next_ip();
        if is_near(&instruction) {
            targets.push(instruction.near_branch_target());
        }
    }
    (end == bytes.len() as u64).then_some(targets)
}

fn is_near(instruction: &Instruction) -> bool {
    instruction.op_count() > 0 && instruction.op0_kind() == OpKind::NearBranch64
}

/// The cheap instructions that every call executes, in order.
fn candidates(bytes: &[u8], shape: CallShape) -> Vec<Choice> {
    let mut found = Vec::new();
    let mut info = InstructionInfoFactory::new();
    let mut behind_null_check = false;
    let mut previous = None;
    for instruction in decode(bytes) {
        let choice = Choice::at(bytes, instruction, behind_null_check);
        if choice.cost != SiteCost::SingleStepped {
            found.push(choice);
        }
        match instruction.flow_control() {
            FlowControl::Next if keeps_entry_state(&instruction, shape, &mut info) => {}
            FlowControl::ConditionalBranch
                if only_frees(shape) && is_null_check(previous, &instruction) =>
            {
                behind_null_check = true;
            }
            _ => break,
        }
        previous = Some(instruction);
    }
    found
}

/// Whether everything that a probe reads still has, after this instruction, its value from the function's entry.
fn keeps_entry_state(
    instruction: &Instruction,
    shape: CallShape,
    factory: &mut InstructionInfoFactory,
) -> bool {
    let info = factory.info(instruction);
    let arguments = &ARGUMENTS[..shape.arguments().min(ARGUMENTS.len())];
    let stack_may_move = only_frees(shape);
    let keeps_registers = info
        .used_registers()
        .iter()
        .filter(|used| writes(used.access()))
        .all(|used| match used.register().full_register() {
            Register::RSP => stack_may_move,
            register => !arguments.contains(&register),
        });
    let memory = info
        .used_memory()
        .iter()
        .filter(|used| writes(used.access()));
    keeps_registers
        && memory
            .map(|used| used.base())
            .all(|base| base == Register::RSP)
}

fn writes(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

/// Whether a probe on a function of this shape reads nothing but the block to free.
const fn only_frees(shape: CallShape) -> bool {
    matches!(shape, CallShape::Free | CallShape::SslFree)
}

/// Whether these are `test rdi, rdi` and a `je`, so that the code goes straight on when the block is not NULL.
fn is_null_check(previous: Option<Instruction>, branch: &Instruction) -> bool {
    let is_zero = matches!(branch.code(), Code::Je_rel8_64 | Code::Je_rel32_64);
    is_zero
        && previous.is_some_and(|test| {
            test.code() == Code::Test_rm64_r64
                && (test.op0_register(), test.op1_register()) == (Register::RDI, Register::RDI)
        })
}

#[cfg(test)]
mod tests;
