//! Who called a function last that makes a memory-mapping syscall.
//!
//! A walk that starts in such a function loses the caller if no unwind table covers the function. So a probe at the
//! function's entry notes the caller, and the walk starts at the caller.

use aya_ebpf::{EbpfContext as _, programs::ProbeContext};

use crate::{
    kernel::{memory::read_word, probe::registers, process::open_process},
    state::{thread::ThreadState, walk::Registers},
    threads,
};

/// How far below its caller a function that wraps a syscall can make the syscall, bytes.
const MAX_WRAPPER_FRAME: u64 = 512;

/// A thread has entered a function that makes a memory-mapping syscall: notes the caller.
#[inline(always)]
pub fn note_caller(ctx: &ProbeContext) -> Option<()> {
    open_process(ctx.as_ptr())?;
    let regs = registers(ctx);
    let thread = threads::current()?;
    thread.noted_caller = Registers {
        ip: read_word(regs.sp),
        sp: regs.sp.wrapping_add(8),
        bp: regs.bp,
    };
    thread.noted = 1;
    Some(())
}

/// Takes the caller that was noted last, if code at the stack pointer `sp` runs just below that caller and the
/// caller's frame still holds the return address. Each note serves once.
#[inline(always)]
pub(super) fn take(thread: &mut ThreadState, sp: u64) -> Option<Registers> {
    if thread.noted == 0 {
        return None;
    }
    thread.noted = 0;
    let caller = thread.noted_caller;
    let is_near = caller.sp.wrapping_sub(sp) <= MAX_WRAPPER_FRAME;
    (is_near && read_word(caller.sp.wrapping_sub(8)) == caller.ip).then_some(caller)
}
