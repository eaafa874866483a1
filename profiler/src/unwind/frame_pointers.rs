//! Whether code that no call frame information covers keeps frame pointers, told from its bytes. A
//! walk must not follow rbp where it is just another register: it may well hold the frame pointer of
//! a caller further out, and the stack would lack frames without a sign.

use residue_ebpf::abi::unwind::{Rule, RuleKind};

/// What holds in code that keeps them.
pub(super) const RULE: Rule = Rule::new(RuleKind::FramePointer, 0);

/// `push %rbp; mov %rsp, %rbp`, in both encodings of the second instruction.
const SETUP: [&[u8]; 2] = [&[0x55, 0x48, 0x89, 0xe5], &[0x55, 0x48, 0x8b, 0xec]];
/// `ret`. The byte is also part of other instructions.
const RETURN: u8 = 0xc3;
/// Return bytes for each function that sets up a frame pointer: 2 to 5 in code that keeps them, above
/// 100 in code that does not (docs/design/0008).
const MAX_RETURNS: usize = 8;

/// Whether this code does.
pub(super) fn are_kept(code: &[u8]) -> bool {
    let setups = code
        .windows(4)
        .filter(|bytes| SETUP.contains(bytes))
        .count();
    let returns = code.iter().filter(|byte| **byte == RETURN).count();
    setups > 0 && returns <= setups * MAX_RETURNS
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH: &[u8] = &[0x55, 0x48, 0x89, 0xe5, 0xe8, 0, 0, 0, 0, 0x5d, 0xc3];
    const WITHOUT: &[u8] = &[
        0x48, 0x83, 0xec, 8, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 8, 0xc3,
    ];

    #[test]
    fn code_keeps_frame_pointers_if_most_of_its_functions_set_one_up() {
        assert!(are_kept(WITH));
        assert!(!are_kept(WITHOUT));
        assert!(!are_kept(&[]));
        assert!(are_kept(&[WITH, WITHOUT, WITHOUT].concat()));
        let one_among_many = [WITH, &WITHOUT.repeat(20)].concat();
        assert!(!are_kept(&one_among_many));
    }
}
