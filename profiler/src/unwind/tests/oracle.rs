//! Makes a step of a walk by a [`Rule`], and by gimli's own evaluation of the same place. Registers and memory are
//! made up, so that two ways to compute the same thing agree, and different things do not.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EndianSlice, Evaluation, EvaluationResult, Expression,
    LittleEndian, Location, RegisterRule, UnwindContext, UnwindSection, UnwindTableRow, Value,
    X86_64,
};
use residue_ebpf::abi::unwind::{BpRule, Rule, RuleKind};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The registers of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    pub sp: u64,
    pub bp: u64,
    pub ip: u64,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The caller's frame.
    To(Registers),
    /// There is no caller.
    Bottom,
    /// The step needs more than the three registers, or more than a rule can state.
    Unknown,
    /// Nothing is stated about this place.
    Uncovered,
}

/// The word at an address. Every address has a word of its own, small enough that sums do not overflow.
fn memory(address: u64) -> u64 {
    address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// Makes the step by a rule, as the kernel side does.
pub fn by_rule(rule: Rule, now: Registers) -> Step {
    let at = |base: u64, offset: i32| base.wrapping_add_signed(offset.into());
    let is = |kind: RuleKind| rule.kind == kind as u8;
    let cfa = if is(RuleKind::Sp) {
        at(now.sp, rule.cfa_offset)
    } else if is(RuleKind::Bp) {
        at(now.bp, rule.cfa_offset)
    } else if is(RuleKind::SpDeref) {
        at(memory(at(now.sp, rule.cfa_offset)), rule.addend)
    } else if is(RuleKind::BpDeref) {
        at(memory(at(now.bp, rule.cfa_offset)), rule.addend)
    } else if is(RuleKind::Plt) {
        let pushed = (now.ip & 15) >= rule.addend as u64;
        at(now.sp, rule.cfa_offset) + if pushed { 8 } else { 0 }
    } else if is(RuleKind::Signal) {
        let saved = |register| memory(at(now.sp, rule.cfa_offset) + register);
        let (sp, bp, ip) = (saved(120), saved(80), saved(128));
        return Step::To(Registers { sp, bp, ip });
    } else if is(RuleKind::Bottom) {
        return Step::Bottom;
    } else if is(RuleKind::FramePointer) || is(RuleKind::NoTable) {
        return Step::Uncovered;
    } else {
        return Step::Unknown;
    };
    let bp = match rule.bp {
        same if same == BpRule::Same as u8 => now.bp,
        cfa_relative if cfa_relative == BpRule::AtCfa as u8 => memory(at(cfa, rule.bp_offset)),
        bp_relative if bp_relative == BpRule::AtBp as u8 => memory(at(now.bp, rule.bp_offset)),
        _ => memory(at(now.sp, rule.bp_offset)),
    };
    let (sp, ip) = (cfa, memory(cfa.wrapping_sub(8)));
    Step::To(Registers { sp, bp, ip })
}

/// An object's `.eh_frame`, as gimli reads it.
pub struct Gimli<'a> {
    pub eh_frame: EhFrame<Slice<'a>>,
    pub bases: BaseAddresses,
    pub context: UnwindContext<usize>,
}

impl<'a> Gimli<'a> {
    pub fn new(bytes: &'a [u8], bases: BaseAddresses) -> Self {
        let mut eh_frame = EhFrame::new(bytes, LittleEndian);
        eh_frame.set_address_size(8);
        Self {
            eh_frame,
            bases,
            context: UnwindContext::new(),
        }
    }

    /// Makes the step by the FDE that is at `offset` in the section.
    pub fn step(&mut self, offset: usize, address: u64, now: Registers) -> Step {
        let fde =
            self.eh_frame
                .fde_from_offset(&self.bases, offset.into(), EhFrame::cie_from_offset);
        let Ok(fde) = fde else {
            return Step::Uncovered;
        };
        if !fde.contains(address) {
            return Step::Uncovered;
        }
        let encoding = fde.cie().encoding();
        let (section, bases, context) = (&self.eh_frame, &self.bases, &mut self.context);
        match fde.unwind_info_for_address(section, bases, context, address) {
            Ok(row) => by_row(section, encoding, row, now),
            Err(_) => Step::Uncovered,
        }
    }
}

fn by_row(
    section: &EhFrame<Slice<'_>>,
    encoding: gimli::Encoding,
    row: &UnwindTableRow<usize>,
    now: Registers,
) -> Step {
    let ra = row.register(X86_64::RA);
    let ra = match ra {
        None | Some(RegisterRule::Undefined) => return Step::Bottom,
        Some(ra) => ra,
    };
    let step = || {
        let evaluate =
            |expression: Expression<_>, first| expression_value(expression, encoding, first, now);
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                now.get(*register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(at) => evaluate(at.get(section).ok()?, None)?,
        };
        let value = |rule, same| match rule {
            RegisterRule::SameValue | RegisterRule::Undefined => Some(same),
            RegisterRule::Offset(offset) => Some(memory(cfa.wrapping_add_signed(offset))),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(offset)),
            RegisterRule::Register(register) => now.get(register),
            RegisterRule::Expression(at) => evaluate(at.get(section).ok()?, Some(cfa)).map(memory),
            RegisterRule::ValExpression(at) => evaluate(at.get(section).ok()?, Some(cfa)),
            _ => None,
        };
        let bp = row.register(X86_64::RBP).unwrap_or(RegisterRule::SameValue);
        let (bp, ip) = (value(bp, now.bp)?, value(ra, now.ip)?);
        Some(Registers { sp: cfa, bp, ip })
    };
    step().map_or(Step::Unknown, Step::To)
}

impl Registers {
    fn get(self, register: gimli::Register) -> Option<u64> {
        match register {
            X86_64::RSP => Some(self.sp),
            X86_64::RBP => Some(self.bp),
            X86_64::RA => Some(self.ip),
            _ => None,
        }
    }
}

fn expression_value(
    expression: Expression<Slice<'_>>,
    encoding: gimli::Encoding,
    first: Option<u64>,
    now: Registers,
) -> Option<u64> {
    let mut evaluation = Evaluation::new(expression.0, encoding);
    evaluation.set_max_iterations(1000);
    if let Some(first) = first {
        evaluation.set_initial_value(first);
    }
    let mut result = evaluation.evaluate().ok()?;
    loop {
        result = match result {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = Value::Generic(now.get(register)?);
                evaluation.resume_with_register(value).ok()?
            }
            EvaluationResult::RequiresMemory {
                address, size: 8, ..
            } => {
                let value = Value::Generic(memory(address));
                evaluation.resume_with_memory(value).ok()?
            }
            _ => return None,
        };
    }
    match evaluation.as_result().last()?.location {
        Location::Address { address } => Some(address),
        _ => None,
    }
}
