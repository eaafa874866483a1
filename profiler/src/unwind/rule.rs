//! Turns a row of columns into a [`Rule`], by which the kernel side walks.

use gimli::{CfaRule, RegisterRule, UnwindExpression};
use residue_ebpf::abi::unwind::{BpRule, Rule, RuleKind};

use super::columns::Columns;
use super::expression::{Base, Meaning};

/// The distance from the CFA to the return address, which `call` has pushed, bytes.
const RETURN_ADDRESS: i64 = -8;
/// Offsets in `struct sigcontext` (arch/x86/include/uapi/asm/sigcontext.h), bytes.
const SIGCONTEXT_BP: i64 = 80;
const SIGCONTEXT_SP: i64 = 120;
const SIGCONTEXT_IP: i64 = 128;

/// The rule for code that nothing covers.
pub(super) const GAP: Rule = Rule::new(RuleKind::NoTable, 0);
const UNSUPPORTED: Rule = Rule::new(RuleKind::Unsupported, 0);

/// The rule of a row. `read` tells the meaning of an expression, and `is_signal_frame` is the augmentation `S` of
/// the CIE.
///
/// A row without a return address belongs to the outermost frame, whatever else the row says: `_start` and `clone`
/// have such rows, and framehop and libgcc treat such rows so.
///
/// If the code restores the frame pointer in a way that no [`BpRule`] describes, the row is unsupported: with a
/// wrong frame pointer, the walk would find frames that never existed. But if the code has lost the frame pointer
/// (`DW_CFA_undefined`), the rule keeps the present value.
pub(super) fn rule(
    columns: &Columns,
    is_signal_frame: bool,
    read: impl Fn(UnwindExpression<usize>) -> Option<Meaning>,
) -> Rule {
    if matches!(columns.ra, None | Some(RegisterRule::Undefined)) {
        return Rule::new(RuleKind::Bottom, 0);
    }
    let rule = if is_signal_frame {
        signal(columns, read)
    } else {
        call(columns, read)
    };
    rule.unwrap_or(UNSUPPORTED)
}

/// The rule of an ordinary function.
fn call(
    columns: &Columns,
    read: impl Fn(UnwindExpression<usize>) -> Option<Meaning>,
) -> Option<Rule> {
    if columns.ra != Some(RegisterRule::Offset(RETURN_ADDRESS)) {
        return None;
    }
    let cfa = match columns.cfa {
        CfaRule::RegisterAndOffset { register, offset } => {
            Meaning::Sum(Base::of(register)?, offset)
        }
        CfaRule::Expression(expression) => read(expression)?,
    };
    let (bp, bp_offset) = frame_pointer(columns.bp.as_ref(), read)?;
    Some(cfa_rule(cfa)?.with_bp(bp, bp_offset))
}

fn cfa_rule(cfa: Meaning) -> Option<Rule> {
    let narrow = |offset| i32::try_from(offset).ok();
    Some(match cfa {
        Meaning::Sum(Base::Sp, offset) => Rule::new(RuleKind::Sp, narrow(offset)?),
        Meaning::Sum(Base::Bp, offset) => Rule::new(RuleKind::Bp, narrow(offset)?),
        Meaning::Deref(Base::Sp, offset, addend) => {
            Rule::new(RuleKind::SpDeref, narrow(offset)?).with_addend(narrow(addend)?)
        }
        Meaning::Deref(Base::Bp, offset, addend) => {
            Rule::new(RuleKind::BpDeref, narrow(offset)?).with_addend(narrow(addend)?)
        }
        Meaning::Plt { offset, threshold } => {
            Rule::new(RuleKind::Plt, narrow(offset)?).with_addend(threshold.into())
        }
    })
}

fn frame_pointer(
    rule: Option<&RegisterRule<usize>>,
    read: impl Fn(UnwindExpression<usize>) -> Option<Meaning>,
) -> Option<(BpRule, i32)> {
    let narrow = |offset| i32::try_from(offset).ok();
    match rule {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => Some((BpRule::Same, 0)),
        Some(RegisterRule::Offset(offset)) => Some((BpRule::AtCfa, narrow(*offset)?)),
        Some(RegisterRule::Expression(expression)) => match read(*expression)? {
            Meaning::Sum(Base::Bp, offset) => Some((BpRule::AtBp, narrow(offset)?)),
            Meaning::Sum(Base::Sp, offset) => Some((BpRule::AtSp, narrow(offset)?)),
            Meaning::Deref(..) | Meaning::Plt { .. } => None,
        },
        Some(_) => None,
    }
}

/// The rule of a signal trampoline, if its rules for the three registers fit one sigcontext.
fn signal(
    columns: &Columns,
    read: impl Fn(UnwindExpression<usize>) -> Option<Meaning>,
) -> Option<Rule> {
    let saved = |rule: Option<&RegisterRule<usize>>| match rule {
        Some(RegisterRule::Expression(expression)) => match read(*expression)? {
            Meaning::Sum(Base::Sp, offset) => Some(offset),
            _ => None,
        },
        _ => None,
    };
    let CfaRule::Expression(cfa) = columns.cfa else {
        return None;
    };
    let Meaning::Deref(Base::Sp, sp, 0) = read(cfa)? else {
        return None;
    };
    let sigcontext = sp.checked_sub(SIGCONTEXT_SP)?;
    let fits = saved(columns.ra.as_ref()) == sigcontext.checked_add(SIGCONTEXT_IP)
        && saved(columns.bp.as_ref()) == sigcontext.checked_add(SIGCONTEXT_BP);
    let offset = i32::try_from(sigcontext).ok()?;
    fits.then_some(Rule::new(RuleKind::Signal, offset))
}
