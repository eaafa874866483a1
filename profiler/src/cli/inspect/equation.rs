//! Writes unwind rules as equations.

use std::fmt;

use residue_ebpf::abi::unwind::{BpRule, Rule, RuleKind};

/// A rule, displayed with the names of the processor's registers.
pub(super) struct Equation(pub Rule);

/// A signed offset, displayed as ` - 16` or ` + 8`. Zero is displayed as nothing.
struct Offset(i32);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            below if below < 0 => write!(f, " - {}", below.unsigned_abs()),
            above => write!(f, " + {above}"),
        }
    }
}

const BY_FRAME_POINTER: &str =
    "no FDE, but frame pointers: cfa = rbp + 16; rbp = *(rbp); ra = *(cfa - 8)";

impl fmt::Display for Equation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SP: u8 = RuleKind::Sp as u8;
        const BP: u8 = RuleKind::Bp as u8;
        const SP_DEREF: u8 = RuleKind::SpDeref as u8;
        const BP_DEREF: u8 = RuleKind::BpDeref as u8;
        const PLT: u8 = RuleKind::Plt as u8;
        const SIGNAL: u8 = RuleKind::Signal as u8;
        const FRAME_POINTER: u8 = RuleKind::FramePointer as u8;
        const NO_TABLE: u8 = RuleKind::NoTable as u8;
        const BOTTOM: u8 = RuleKind::Bottom as u8;
        let (offset, addend) = (Offset(self.0.cfa_offset), Offset(self.0.addend));
        match self.0.kind {
            SP => write!(f, "cfa = rsp{offset}")?,
            BP => write!(f, "cfa = rbp{offset}")?,
            SP_DEREF => write!(f, "cfa = *(rsp{offset}){addend}")?,
            BP_DEREF => write!(f, "cfa = *(rbp{offset}){addend}")?,
            PLT => {
                let threshold = self.0.addend;
                write!(f, "cfa = rsp{offset} + (rip % 16 >= {threshold} ? 8 : 0)")?;
            }
            SIGNAL => return write!(f, "signal frame, its sigcontext at rsp{offset}"),
            FRAME_POINTER => return f.write_str(BY_FRAME_POINTER),
            NO_TABLE => return f.write_str("no FDE, and no frame pointers"),
            BOTTOM => return f.write_str("outermost frame, no return address"),
            _ => return f.write_str("unsupported"),
        }
        self.frame_pointer(f)?;
        f.write_str("; ra = *(cfa - 8)")
    }
}

impl Equation {
    fn frame_pointer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AT_CFA: u8 = BpRule::AtCfa as u8;
        const AT_BP: u8 = BpRule::AtBp as u8;
        const AT_SP: u8 = BpRule::AtSp as u8;
        let offset = Offset(self.0.bp_offset);
        match self.0.bp {
            AT_CFA => write!(f, "; rbp = *(cfa{offset})"),
            AT_BP => write!(f, "; rbp = *(rbp{offset})"),
            AT_SP => write!(f, "; rbp = *(rsp{offset})"),
            _ => f.write_str("; rbp = rbp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rule: Rule) -> String {
        Equation(rule).to_string()
    }

    #[test]
    fn rules_read_as_equations() {
        let saved = Rule::new(RuleKind::Sp, 16).with_bp(BpRule::AtCfa, -16);
        assert_eq!(
            text(saved),
            "cfa = rsp + 16; rbp = *(cfa - 16); ra = *(cfa - 8)"
        );
        let realigned = Rule::new(RuleKind::BpDeref, -8).with_bp(BpRule::AtBp, 0);
        assert_eq!(
            text(realigned),
            "cfa = *(rbp - 8); rbp = *(rbp); ra = *(cfa - 8)"
        );
        let stub = Rule::new(RuleKind::Plt, 8).with_addend(11);
        assert_eq!(
            text(stub),
            "cfa = rsp + 8 + (rip % 16 >= 11 ? 8 : 0); rbp = rbp; ra = *(cfa - 8)"
        );
        let signal = Rule::new(RuleKind::Signal, 40);
        assert_eq!(text(signal), "signal frame, its sigcontext at rsp + 40");
    }
}
