//! Finds signal trampolines that no call frame information covers, such as musl's. Like libgcc, this module
//! recognizes their code (libgcc/config/i386/linux-unwind.h, `x86_64_fallback_frame_state`): code that calls
//! `rt_sigreturn` has the signal frame on top of the stack.

use std::ops::Range;

use residue_ebpf::abi::unwind::{Rule, RuleKind};

/// The code of a trampoline: `mov $15, %eax; syscall`, or the same with `%rax`.
const CODE: [&[u8]; 2] = [
    &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05],
    &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
];
/// The end of both, `syscall`. Few other instructions contain these bytes.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// The distance from the stack pointer to the sigcontext, bytes: `uc_flags`, `uc_link` and `uc_stack` come first
/// (struct ucontext in include/uapi/asm-generic/ucontext.h).
const SIGCONTEXT: i32 = 40;

/// The rule for a trampoline.
pub(super) const RULE: Rule = Rule::new(RuleKind::Signal, SIGCONTEXT);

/// Where trampolines are in `code`, in order: ranges of bytes from the start of `code`.
pub(super) fn find(code: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let ends = code
        .windows(SYSCALL.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == SYSCALL)
        .map(|(at, _)| at + SYSCALL.len());
    ends.filter_map(|end| {
        let known = CODE.iter().find(|known| code[..end].ends_with(known))?;
        Some(end - known.len()..end)
    })
}
