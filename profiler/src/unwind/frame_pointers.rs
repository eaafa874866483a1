//! Tells from its bytes whether code without call frame information keeps frame pointers. A walk must not follow
//! rbp in code that uses rbp as just another register: rbp may still hold the frame pointer of a caller further
//! out, so the stack would lack frames, and nobody would notice.

use residue_ebpf::abi::unwind::{Rule, RuleKind};

/// The rule for code that keeps frame pointers.
pub(super) const RULE: Rule = Rule::new(RuleKind::FramePointer, 0);

/// `push %rbp; mov %rsp, %rbp`, in both encodings of the second instruction.
const SETUP: [&[u8]; 2] = [&[0x55, 0x48, 0x89, 0xe5], &[0x55, 0x48, 0x8b, 0xec]];
/// `ret`. Other instructions contain this byte too.
const RETURN: u8 = 0xc3;
/// The most bytes of `ret` for each function that sets up a frame pointer. Code that keeps frame pointers has 2 to
/// 5, other code more than 100 (docs/design/0008).
const MAX_RETURNS: usize = 8;

/// Whether this code keeps frame pointers.
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
