//! The program that a process runs: new code, exec, and the ends of threads.

use aya_ebpf::{helpers::generated::bpf_send_signal, programs::TracePointContext};
use aya_log_ebpf::info;
use residue_ebpf::abi::{
    event::{Event, EventKind},
    heap::{PROCESS_LAUNCHING, ProcessState},
};

use crate::{
    events::send,
    kernel::{process::target, syscall::field, task::current_tid},
    maps::{PROCESSES, THREADS},
    requests, threads,
};

/// The offset of the id that the thread had before its exec, in the tracepoint `sched:sched_process_exec`
/// (include/trace/events/sched.h).
const OLD_PID: usize = 16;

/// asm/signal.h
const SIGSTOP: u32 = 19;

/// A process has replaced its program: the memory of the old program is gone, and the probes may sit in the new one.
#[inline(always)]
pub fn executed(ctx: &TracePointContext) -> Option<()> {
    // The thread's open calls went with the old program. Whichever thread called exec has the first thread's id now.
    forget_thread(field(ctx, OLD_PID));
    let (slot, process) = target()?;
    if process.flags & PROCESS_LAUNCHING != 0 {
        code_appeared(slot, process);
        return Some(());
    }
    info!(ctx, "pid {} replaced its program", process.tgid);
    if let Some(state) = PROCESSES.get_ptr_mut(slot) {
        // SAFETY: the pointer leads to a map value, which user space writes only while no event of the
        // process counts.
        unsafe { (*state).flags = 0 };
    }
    send(&Event {
        kind: EventKind::Executed as u32,
        process: slot,
        ..Event::default()
    });
    Some(())
}

/// The current thread ends. Its state goes, so that another thread can have the id.
#[inline(always)]
pub fn thread_exited() {
    forget_thread(current_tid());
}

#[inline(always)]
fn forget_thread(tid: u32) {
    // Most threads of the machine are in no target and have no entry.
    if let Some(thread) = threads::state_of(tid) {
        requests::thread_exited(thread);
        let _ = THREADS.remove(tid);
    }
}

/// The current process has loaded code. Stops a process that is being launched until its new code is probed.
#[inline(always)]
pub fn code_appeared(slot: u32, process: &ProcessState) {
    if process.flags & PROCESS_LAUNCHING != 0 {
        // SAFETY: a plain helper call. The process is residue's own child.
        unsafe { bpf_send_signal(SIGSTOP) };
    }
    send(&Event {
        kind: EventKind::CodeMapped as u32,
        process: slot,
        ..Event::default()
    });
}
