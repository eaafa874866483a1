//! The registers that a uprobe or a uretprobe is given.

use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    programs::{ProbeContext, RetProbeContext},
};

use crate::state::walk::Registers;

/// What a stack walk needs of the registers.
#[inline(always)]
pub const fn walk_start(regs: &pt_regs) -> Registers {
    Registers {
        ip: regs.rip,
        sp: regs.rsp,
        bp: regs.rbp,
    }
}

/// The thread's registers where a uprobe was hit.
#[inline(always)]
pub fn registers(ctx: &ProbeContext) -> Registers {
    // SAFETY: a uprobe's context is the thread's pt_regs.
    walk_start(unsafe { &*ctx.as_ptr().cast::<pt_regs>() })
}

/// The thread's registers as they are after the return of a function that has a uretprobe.
#[inline(always)]
pub fn returned(ctx: &RetProbeContext) -> &pt_regs {
    // SAFETY: a uretprobe's context is the thread's pt_regs.
    unsafe { &*ctx.regs }
}
