//! Signal trampolines that no call frame information covers, such as musl's. They are known by
//! their code, as libgcc knows them (libgcc/config/i386/linux-unwind.h, `x86_64_fallback_frame_state`):
//! whoever calls `rt_sigreturn` has the signal frame on top of the stack.

use std::ops::Range;

use residue_ebpf::abi::unwind::{Rule, RuleKind};

/// `mov $15, %eax; syscall`, and the same with `%rax`.
const CODE: [&[u8]; 2] = [
    &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05],
    &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
];
/// What both end with; few other instructions contain it.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// From the stack pointer to the sigcontext, in bytes: `uc_flags`, `uc_link` and `uc_stack` lie
/// before it (struct ucontext in include/uapi/asm-generic/ucontext.h).
const SIGCONTEXT: i32 = 40;

/// What holds in a trampoline.
pub(super) const RULE: Rule = Rule::new(RuleKind::Signal, SIGCONTEXT);

/// Where trampolines are in `code`, in bytes from its start, in order.
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
