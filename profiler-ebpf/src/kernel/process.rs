//! Which process runs the program, and whether the process is recorded.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_attach_cookie;
use residue_ebpf::abi::{
    call_shape::Cookie,
    heap::{PROCESS_OPEN, PROCESS_UNPROBED, ProcessState},
};

use super::task::current_tgid;
use crate::maps::{PROCESSES, TARGETS, TRAMPOLINES};

/// The probe's cookie, if events of its process count.
#[inline(always)]
pub fn open_process(ctx: *mut c_void) -> Option<Cookie> {
    let cookie = cookie(ctx);
    let process = PROCESSES.get(u32::from(cookie.process))?;
    (process.flags & (PROCESS_OPEN | PROCESS_UNPROBED) == PROCESS_OPEN).then_some(cookie)
}

/// The probe's cookie, whether or not events of its process count.
#[inline(always)]
pub fn cookie(ctx: *mut c_void) -> Cookie {
    // SAFETY: a plain helper call on the program's own context.
    Cookie::from_bits(unsafe { bpf_get_attach_cookie(ctx) })
}

/// The current process's slot and state, if the process is a target.
#[inline(always)]
pub fn target() -> Option<(u32, &'static ProcessState)> {
    // SAFETY: the value is copied at once.
    let slot = *unsafe { TARGETS.get(current_tgid()) }?;
    Some((slot, PROCESSES.get(slot)?))
}

/// The current process's slot, if the process is a target whose events count.
#[inline(always)]
pub fn open_target() -> Option<u32> {
    let (slot, process) = target()?;
    (process.flags & PROCESS_OPEN != 0).then_some(slot)
}

/// The AVMA of the kernel's return trampoline in a process; zero while the address is not known.
#[inline(always)]
pub fn trampoline(process_slot: u16) -> u64 {
    TRAMPOLINES
        .get(u32::from(process_slot))
        .copied()
        .unwrap_or(0)
}
