//! Memory mappings, from syscall tracepoints: they see direct syscalls and static programs too.
//!
//! Their rate is low, so each is sent as an event and user space keeps the ranges. A range is
//! *taken* before the kernel gives it up and *mapped* after the kernel has handed it out, so that
//! events about one address are in the order in which they happened, whichever thread made them.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, pt_regs},
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{bpf_get_current_task_btf, bpf_send_signal, bpf_task_pt_regs},
    },
    programs::TracePointContext,
};
use aya_log_ebpf::info;
use residue_ebpf::abi::{
    UNKNOWN_STACK,
    counters::Counter,
    event::{Event, EventKind, RANGE_BACKS_ALLOCATOR, RANGE_IS_FILE},
    heap::{PROCESS_LAUNCHING, PROCESS_OPEN, ProcessState},
};

use crate::{
    count,
    maps::{EVENTS, PROCESSES, TARGETS, THREADS},
    stack::{native, stack_at},
    thread::{self, OpenSyscall, Registers, ThreadState},
};

/// Arguments of a syscall tracepoint begin here, and so does the result
/// (events/syscalls/sys_enter_mmap/format).
const FIRST_FIELD: usize = 16;
/// asm-generic/mman-common.h
const PROT_EXEC: u64 = 4;
/// asm-generic/mman-common.h
const MAP_ANONYMOUS: u64 = 0x20;
/// asm/signal.h
const SIGSTOP: u32 = 19;

/// mmap(address, length, protection, flags, …) begins.
#[inline(always)]
pub fn enter_mmap(ctx: &TracePointContext) -> Option<()> {
    target()?;
    thread::current()?.syscall = OpenSyscall {
        address: argument(ctx, 0)?,
        length: argument(ctx, 1)?,
        flags: argument(ctx, 2)? << 32 | argument(ctx, 3)? & 0xffff_ffff,
    };
    Some(())
}

/// mmap ends.
#[inline(always)]
pub fn leave_mmap(ctx: &TracePointContext) -> Option<()> {
    let (slot, process) = target()?;
    let thread = thread::existing(thread::current_tid())?;
    let OpenSyscall { length, flags, .. } = thread.syscall;
    let address = result(ctx)?;
    let anonymous = flags & MAP_ANONYMOUS != 0;
    if !anonymous && (flags >> 32) & PROT_EXEC != 0 {
        code_appeared(slot, process);
    }
    if process.flags & PROCESS_OPEN == 0 {
        return None;
    }
    let file = if anonymous { 0 } else { RANGE_IS_FILE };
    send_with_stack(
        thread,
        Event {
            kind: EventKind::RangeMapped as u32,
            process: slot,
            address,
            length,
            flags: file,
            ..Event::default()
        },
    )
}

/// munmap(address, length) begins.
#[inline(always)]
pub fn enter_munmap(ctx: &TracePointContext) -> Option<()> {
    let slot = open_target()?;
    take_range(slot, argument(ctx, 0)?, argument(ctx, 1)?);
    Some(())
}

/// munmap ends.
#[inline(always)]
pub fn leave_munmap(ctx: &TracePointContext) -> Option<()> {
    let slot = open_target()?;
    if result(ctx).is_none() {
        restore_range(slot);
    }
    Some(())
}

/// mremap(address, old_length, new_length, …) begins.
#[inline(always)]
pub fn enter_mremap(ctx: &TracePointContext) -> Option<()> {
    let slot = open_target()?;
    thread::current()?.syscall = OpenSyscall {
        address: argument(ctx, 0)?,
        length: argument(ctx, 2)?,
        flags: 0,
    };
    take_range(slot, argument(ctx, 0)?, argument(ctx, 1)?);
    Some(())
}

/// mremap ends.
#[inline(always)]
pub fn leave_mremap(ctx: &TracePointContext) -> Option<()> {
    let slot = open_target()?;
    let Some(address) = result(ctx) else {
        restore_range(slot);
        return None;
    };
    let thread = thread::existing(thread::current_tid())?;
    let length = thread.syscall.length;
    send_with_stack(
        thread,
        Event {
            kind: EventKind::RangeMapped as u32,
            process: slot,
            address,
            length,
            ..Event::default()
        },
    )
}

/// brk ends. The kernel's brk returns the program break, moved or not.
#[inline(always)]
pub fn leave_brk(ctx: &TracePointContext) -> Option<()> {
    let slot = open_target()?;
    let address = result(ctx)?;
    send_with_stack(
        thread::current()?,
        Event {
            kind: EventKind::BreakMoved as u32,
            process: slot,
            address,
            ..Event::default()
        },
    )
}

/// A process replaced its program: what it had is gone, and the probes may sit in the new one.
#[inline(always)]
pub fn executed(ctx: &TracePointContext) -> Option<()> {
    let (slot, process) = target()?;
    if process.flags & PROCESS_LAUNCHING != 0 {
        code_appeared(slot, process);
        return Some(());
    }
    info!(ctx, "pid {} replaced its program", process.tgid);
    if let Some(state) = PROCESSES.get_ptr_mut(slot) {
        // SAFETY: a map value; user space writes it only while no event of the process counts.
        unsafe { (*state).flags = 0 };
    }
    // Its open calls went with the old program.
    thread_exited();
    send(&Event {
        kind: EventKind::Executed as u32,
        process: slot,
        ..Event::default()
    });
    Some(())
}

/// A thread ended: its state goes, so that its id can be used again.
#[inline(always)]
pub fn thread_exited() {
    // Most threads of the host are not followed and have no entry.
    let _ = THREADS.remove(thread::current_tid());
}

#[inline(always)]
fn code_appeared(slot: u32, process: &ProcessState) {
    if process.flags & PROCESS_LAUNCHING != 0 {
        // SAFETY: a plain helper call. The process is our own child.
        unsafe { bpf_send_signal(SIGSTOP) };
    }
    send(&Event {
        kind: EventKind::CodeMapped as u32,
        process: slot,
        ..Event::default()
    });
}

#[inline(always)]
fn take_range(process: u32, address: u64, length: u64) {
    send(&Event {
        kind: EventKind::RangeTaken as u32,
        process,
        tid: thread::current_tid(),
        address,
        length,
        ..Event::default()
    });
}

#[inline(always)]
fn restore_range(process: u32) {
    send(&Event {
        kind: EventKind::RangeRestored as u32,
        process,
        tid: thread::current_tid(),
        ..Event::default()
    });
}

/// Sends `event` with the stack of whoever made the syscall, and whether an allocator made it.
#[inline(always)]
fn send_with_stack(thread: &mut ThreadState, mut event: Event) -> Option<()> {
    let user = user_registers()?;
    let slot = event.process as u16;
    if thread.depth != 0 && thread.is_in_allocator(slot, user.sp) {
        event.flags |= RANGE_BACKS_ALLOCATOR;
    }
    let noted = thread.take_noted_caller(user.sp);
    let start = match noted {
        Some(caller) if !native::has_rule(slot, user.ip) => caller,
        _ => user,
    };
    event.tid = thread::current_tid();
    event.stack = stack_at(thread, slot, start, UNKNOWN_STACK).map_or(UNKNOWN_STACK, |(id, _)| id);
    send(&event);
    Some(())
}

/// The registers with which the current thread entered the kernel.
#[inline(always)]
fn user_registers() -> Option<Registers> {
    // SAFETY: plain helper calls; the kernel gives the current task's saved registers.
    let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const pt_regs;
    // SAFETY: the helper checks the address.
    let regs = unsafe { bpf_probe_read_kernel(regs) }.ok()?;
    Some(Registers {
        ip: regs.rip,
        sp: regs.rsp,
        bp: regs.rbp,
    })
}

/// Waking user space costs more than all else here, so only new code, which it must know soon, does.
#[inline(always)]
fn send(event: &Event) {
    let wakeup = match event.kind == EventKind::CodeMapped as u32 {
        true => BPF_RB_FORCE_WAKEUP,
        false => BPF_RB_NO_WAKEUP,
    };
    if EVENTS.output::<Event>(event, u64::from(wakeup)).is_err() {
        count(Counter::EventBufferFull, 1);
    }
}

/// The current process's slot and state, if it is a target.
#[inline(always)]
fn target() -> Option<(u32, &'static ProcessState)> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: copied at once.
    let slot = *unsafe { TARGETS.get(tgid) }?;
    Some((slot, PROCESSES.get(slot)?))
}

#[inline(always)]
fn open_target() -> Option<u32> {
    let (slot, process) = target()?;
    (process.flags & PROCESS_OPEN != 0).then_some(slot)
}

#[inline(always)]
fn argument(ctx: &TracePointContext, index: usize) -> Option<u64> {
    // SAFETY: syscall tracepoints have up to six 8-byte arguments; a read outside them fails.
    unsafe { ctx.read_at::<u64>(FIRST_FIELD + 8 * index) }.ok()
}

/// The syscall's result, unless it failed: the kernel returns -4095..=-1 for errors.
#[inline(always)]
fn result(ctx: &TracePointContext) -> Option<u64> {
    // SAFETY: as for `argument`.
    let result = unsafe { ctx.read_at::<i64>(FIRST_FIELD) }.ok()?;
    (!(-4095..0).contains(&result)).then_some(result as u64)
}
