//! Return addresses that a return probe has replaced.
//!
//! A return probe, residue's or another tool's, overwrites a return address on the stack by the address of
//! the kernel's trampoline. The kernel keeps the original address in the task.

use aya_ebpf::helpers::generated::bpf_get_current_task;

use crate::{kernel::memory::read_kernel, maps::TASK_OFFSETS};

/// How many return probes may be under way in a thread. This is the kernel's own limit (`MAX_URETPROBE_DEPTH`,
/// kernel/events/uprobes.c).
const MAX_DEPTH: u32 = 64;

/// The original return address of the place `slot`, AVMA; zero if no return probe has replaced the address, or if the
/// kernel's structures are not known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn original_return_address(slot: u64) -> u64 {
    let offsets = TASK_OFFSETS.load();
    if offsets.utask == 0 {
        return 0;
    }
    // SAFETY: a plain helper call.
    let task = unsafe { bpf_get_current_task() };
    let utask = read_kernel(task, offsets.utask);
    let mut instance = read_kernel(utask, offsets.return_instances);
    for _ in 0..MAX_DEPTH {
        if instance == 0 {
            return 0;
        }
        if read_kernel(instance, offsets.stack) == slot {
            return read_kernel(instance, offsets.orig_ret_vaddr);
        }
        instance = read_kernel(instance, offsets.next);
    }
    0
}
