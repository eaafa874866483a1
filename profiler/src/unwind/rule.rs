//! From a row of columns to a [`Rule`], the terms in which the kernel side walks.

use gimli::{CfaRule, RegisterRule, UnwindExpression};
use residue_ebpf::abi::unwind::{BpRule, Rule, RuleKind};

use super::columns::Columns;
use super::expression::{Base, Meaning};

/// The return address, seen from the CFA: `call` pushed it.
const RETURN_ADDRESS: i64 = -8;
/// Positions in `struct sigcontext` (arch/x86/include/uapi/asm/sigcontext.h), in bytes.
const SIGCONTEXT_BP: i64 = 80;
const SIGCONTEXT_SP: i64 = 120;
const SIGCONTEXT_IP: i64 = 128;

/// Nothing covers this code.
pub(super) const GAP: Rule = Rule::new(RuleKind::NoTable, 0);
const UNSUPPORTED: Rule = Rule::new(RuleKind::Unsupported, 0);

/// The rule of a row. `read` knows what an expression means, and `is_signal_frame` is the
/// augmentation `S` of the CIE.
///
/// A row without a return address is the outermost frame's, whatever else it says: that is how
/// `_start` and `clone` state it, and what framehop and libgcc do with it.
///
/// A frame pointer that is restored in a way that [`BpRule`] cannot say makes the row unsupported:
/// walked on with the wrong one, the stack would end in frames that never were. One that is lost
/// for good is another matter, and stays what it was.
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

/// The rule of a function that was called.
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

/// The rule of a signal trampoline, if what it says of the three registers fits one sigcontext.
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
