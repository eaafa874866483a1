//! The fields of syscall tracepoints: the arguments and the result of the syscall.

use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    programs::TracePointContext,
};
/// The offset of a syscall's number (events/syscalls/sys_enter_mmap/format).
const NUMBER: usize = 8;
/// The offset of the first argument, and of the result.
const FIRST_FIELD: usize = 16;

/// An argument of a syscall, which must have as many arguments.
#[inline(always)]
pub fn argument(ctx: &TracePointContext, index: usize) -> u64 {
    field(ctx, FIRST_FIELD + 8 * index)
}

/// The syscall's result, unless it failed: the kernel returns -4095..=-1 for errors.
#[inline(always)]
pub fn result(ctx: &TracePointContext) -> Option<u64> {
    let result = raw_result(ctx);
    (!(-4095..0).contains(&result)).then_some(result as u64)
}

/// The syscall's number.
#[inline(always)]
pub fn number(ctx: &TracePointContext) -> u32 {
    field(ctx, NUMBER)
}

/// The syscall's result. The kernel returns -4095..=-1 for errors.
#[inline(always)]
pub fn raw_result(ctx: &TracePointContext) -> i64 {
    field(ctx, FIRST_FIELD)
}

/// A field of the tracepoint, by a plain load. The load costs a tenth of the helper that reads any address.
#[inline(always)]
pub fn field<T: Copy>(ctx: &TracePointContext, offset: usize) -> T {
    // SAFETY: the kernel refuses to attach a program that reads beyond the tracepoint's fields.
    unsafe { ctx.as_ptr().byte_add(offset).cast::<T>().read_volatile() }
}

/// The registers with which the current thread entered the kernel. At a syscall's end the registers still hold the
/// syscall's arguments. The verifier knows the structure, so its fields are read by plain loads.
#[inline(always)]
pub fn saved_registers() -> &'static pt_regs {
    // SAFETY: plain helper calls; the kernel gives the current task's saved registers, which stay where
    // they are while the program runs.
    unsafe { &*(bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs) }
}
