//! Checks the rule of one function in each test.

use residue_ebpf::abi::unwind::{BpRule, Rule, RuleKind};

use super::elf::{CALLED, Cfi, TEXT, TEXT_OFFSET, object};
use crate::unwind::UnwindTable;

const UNSUPPORTED: Rule = Rule::new(RuleKind::Unsupported, 0);

/// The rule that these instructions state.
fn rule(instructions: &[u8]) -> Rule {
    rule_in("", CALLED, instructions)
}

fn rule_in(augmentation: &str, initial: &[u8], instructions: &[u8]) -> Rule {
    let mut cfi = Cfi::eh_frame();
    let cie = cfi.cie(augmentation, initial);
    cfi.fde(cie, TEXT, 16, instructions);
    let table = UnwindTable::read(&object(&[0x90; 16], &[&cfi])[..]).expect("it is sound");
    table.rule_at(TEXT_OFFSET as u32).expect("it is code")
}

#[test]
fn the_cfa_is_at_an_offset_from_a_register() {
    assert_eq!(rule(&[]), Rule::new(RuleKind::Sp, 8));
    assert_eq!(rule(&[0x0e, 24]), Rule::new(RuleKind::Sp, 24));
    let framed = Rule::new(RuleKind::Bp, 16).with_bp(BpRule::AtCfa, -16);
    assert_eq!(rule(&[0x0c, 6, 16, 0x86, 2]), framed);
    assert_eq!(
        rule(&[0x0e, 0xf0, 0xa2, 0x04]),
        Rule::new(RuleKind::Sp, 70_000)
    );
    // DW_CFA_def_cfa_offset_sf -2, in units of -8 bytes
    assert_eq!(rule(&[0x13, 0x7e]), Rule::new(RuleKind::Sp, 16));
}

#[test]
fn a_cfa_in_another_register_is_unsupported() {
    for register in [0, 5, 10, 11] {
        assert_eq!(rule(&[0x0d, register]), UNSUPPORTED);
    }
}

#[test]
fn an_offset_that_no_rule_can_hold_is_unsupported() {
    assert_eq!(rule(&[0x0e, 0x80, 0x80, 0x80, 0x80, 0x08]), UNSUPPORTED);
    assert_eq!(rule(&[0x86, 0x80, 0x80, 0x80, 0x80, 0x08]), UNSUPPORTED);
}

#[test]
fn a_cfa_may_be_in_memory() {
    let realigned = Rule::new(RuleKind::BpDeref, -8);
    assert_eq!(rule(&[0x0f, 3, 0x76, 0x78, 0x06]), realigned);
    let saved = Rule::new(RuleKind::SpDeref, 40).with_addend(8);
    assert_eq!(rule(&[0x0f, 5, 0x77, 40, 0x06, 0x23, 8]), saved);
    // breg7 40; deref; lit8; plus: the same in other words
    assert_eq!(rule(&[0x0f, 5, 0x77, 40, 0x06, 0x38, 0x22]), saved);
    // breg7 40; deref; deref
    assert_eq!(rule(&[0x0f, 4, 0x77, 40, 0x06, 0x06]), UNSUPPORTED);
}

#[test]
fn a_linkage_table_stub_has_its_own_rule() {
    for threshold in [10, 11] {
        let stub = [
            0x0f,
            11,
            0x77,
            8,
            0x80,
            0,
            0x3f,
            0x1a,
            0x30 + threshold,
            0x2a,
            0x33,
            0x24,
            0x22,
        ];
        let expected = Rule::new(RuleKind::Plt, 8).with_addend(threshold.into());
        assert_eq!(rule(&stub), expected);
    }
}

#[test]
fn the_frame_pointer_is_where_the_row_says() {
    let sp = Rule::new(RuleKind::Sp, 8);
    assert_eq!(rule(&[0x08, 6]), sp, "same value");
    assert_eq!(rule(&[0x07, 6]), sp, "undefined: nobody knows");
    assert_eq!(rule(&[0x86, 3]), sp.with_bp(BpRule::AtCfa, -24));
    assert_eq!(rule(&[0x10, 6, 2, 0x76, 0]), sp.with_bp(BpRule::AtBp, 0));
    assert_eq!(rule(&[0x10, 6, 2, 0x77, 32]), sp.with_bp(BpRule::AtSp, 32));
    assert_eq!(rule(&[0x09, 6, 3]), UNSUPPORTED, "in rbx");
    assert_eq!(rule(&[0x14, 6, 2]), UNSUPPORTED, "a value, not a place");
}

#[test]
fn a_frame_without_return_address_is_the_bottom() {
    assert_eq!(rule(&[0x07, 16]), Rule::new(RuleKind::Bottom, 0));
    let said_nothing = rule_in("", &[0x0c, 7, 8], &[]);
    assert_eq!(said_nothing, Rule::new(RuleKind::Bottom, 0));
}

#[test]
fn a_return_address_elsewhere_is_unsupported() {
    assert_eq!(rule(&[0x90, 2]), UNSUPPORTED);
    assert_eq!(rule(&[0x09, 16, 5]), UNSUPPORTED, "in rdi, as in vfork");
}

/// cfa = *(rsp + 160), rbp at rsp + 120, rip at rsp + `ip`
fn sigcontext(ip: u8) -> Vec<u8> {
    let cfa = [0x0f, 4, 0x77, 0xa0, 1, 0x06];
    let bp = [0x10, 6, 3, 0x77, 0xf8, 0];
    let ra = [0x10, 16, 3, 0x77, ip, 1];
    [&cfa[..], &bp, &ra].concat()
}

#[test]
fn a_signal_frame_is_what_its_expressions_say() {
    let rule = |augmentation, ip| rule_in(augmentation, CALLED, &sigcontext(ip));
    assert_eq!(rule("zRS", 0xa8), Rule::new(RuleKind::Signal, 40));
    assert_eq!(rule("zRS", 0xb0), UNSUPPORTED, "rip is not in its place");
    assert_eq!(
        rule("zR", 0xa8),
        UNSUPPORTED,
        "it does not say that it is one"
    );
    assert_eq!(
        rule_in("zRS", CALLED, &[]),
        UNSUPPORTED,
        "it says nothing else"
    );
}
