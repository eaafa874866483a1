//! What a thread waits for tells whether the thread works on a request.

use aya_ebpf::{helpers::bpf_probe_read_user, programs::TracePointContext};
use residue_ebpf::abi::window::WindowStage;

use super::{
    lifecycle::{bound, turn_away},
    window::now,
};
use crate::{
    kernel::{
        process::open_target,
        syscall::{argument, number, saved_registers},
    },
    state::thread::ThreadState,
    threads,
};

/// Numbers of syscalls on x86-64 (asm/unistd_64.h).
mod nr {
    pub const POLL: u32 = 7;
    pub const SELECT: u32 = 23;
    pub const ACCEPT: u32 = 43;
    pub const EPOLL_WAIT: u32 = 232;
    pub const PSELECT6: u32 = 270;
    pub const PPOLL: u32 = 271;
    pub const EPOLL_PWAIT: u32 = 281;
    pub const ACCEPT4: u32 = 288;
    pub const EPOLL_PWAIT2: u32 = 441;
}

/// A thread is about to wait. If the thread waits for the same thing as before its request arrived, the thread waits
/// between requests. If the thread waits for anything else, such as a database, it waits within a request.
#[inline(always)]
pub fn thread_waits(ctx: &TracePointContext) -> Option<()> {
    let thread = threads::existing()?;
    let number = number(ctx);
    let wait = u64::from(number) << 32 | u64::from(waits_for(ctx, number));
    let accepts = number == nr::ACCEPT || number == nr::ACCEPT4;
    if let Some(window) = bound(thread) {
        let responded = window.stage() != WindowStage::Open as u32;
        let finished = window.stage() == WindowStage::Finished as u32;
        if accepts || finished || responded && wait == thread.request_wait {
            turn_away(thread, now());
        }
    }
    thread.last_wait = wait;
    Some(())
}

/// A thread has waited for a connection or for the clock, so the thread has work of its own
/// ([`nobody`](super::nobody)). The kernel side looks when the wait is over, so that a wait counts which was
/// under way when the recording began.
#[inline(always)]
pub fn thread_waited(ctx: &TracePointContext) -> Option<()> {
    let number = number(ctx);
    let selects = number == nr::SELECT || number == nr::PSELECT6;
    // A select without descriptors waits for the clock. Python sleeps that way until 3.10.
    if selects && saved_registers().rdi as u32 != 0 {
        return None;
    }
    open_target()?;
    threads::current()?.has_own_work = 1;
    Some(())
}

/// Whether a thread waits for several descriptors, as a loop does. A thread that waits for the answer to its own
/// question reads, or polls.
#[inline(always)]
pub const fn waits_as_loop(thread: &ThreadState) -> bool {
    matches!(
        (thread.last_wait >> 32) as u32,
        nr::SELECT | nr::PSELECT6 | nr::EPOLL_WAIT | nr::EPOLL_PWAIT | nr::EPOLL_PWAIT2
    )
}

/// What tells one wait from another: the descriptor, or the first of several descriptors, or the bound of a select's
/// descriptors.
#[inline(always)]
fn waits_for(ctx: &TracePointContext, number: u32) -> u32 {
    let first = argument(ctx, 0);
    if number != nr::POLL && number != nr::PPOLL {
        return first as u32;
    }
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(first as *const u32) }.unwrap_or(0)
}
