//! Memory mappings, from syscall tracepoints, which see direct syscalls and static programs, too.
//!
//! Mappings are rare, so each is sent as an event, and user space keeps the ranges. An event says that a
//! range is *taken* before the kernel gives the range up, and that a range is *mapped* after the kernel has
//! handed the range out. So the events about one address are in the order in which they happened, whichever
//! threads caused them.

use aya_ebpf::programs::TracePointContext;
use residue_ebpf::abi::{
    UNKNOWN_STACK,
    event::{
        Event, EventKind, RANGE_BACKS_ALLOCATOR, RANGE_IS_FILE, RANGE_IS_MOVED, RANGE_IS_SHARED,
        RANGE_STAYS,
    },
    heap::PROCESS_OPEN,
};

use super::noted_caller;
use crate::{
    events::send,
    kernel::{
        files::is_memory,
        probe::walk_start,
        process::{open_target, target},
        syscall::{argument, result, saved_registers},
        task::current_tid,
    },
    process::code_appeared,
    stack::{native, stack_at},
    state::thread::{OpenSyscall, ThreadState},
    threads,
};

/// asm-generic/mman-common.h
const PROT_EXEC: u64 = 4;
/// asm-generic/mman-common.h
const MAP_ANONYMOUS: u64 = 0x20;
/// uapi/linux/mman.h: the bits that say whether a mapping is shared.
const MAP_TYPE: u64 = 0x0f;
/// uapi/linux/mman.h: the only value of these bits for a mapping that is not shared.
const MAP_PRIVATE: u64 = 2;
/// uapi/linux/mman.h
const MREMAP_DONTUNMAP: u64 = 4;

/// mmap(address, length, protection, flags, …) begins.
#[inline(always)]
pub fn enter_mmap(ctx: &TracePointContext) -> Option<()> {
    target()?;
    threads::current()?.syscall = OpenSyscall {
        address: argument(ctx, 0),
        length: argument(ctx, 1),
        flags: argument(ctx, 2) << 32 | argument(ctx, 3) & 0xffff_ffff,
    };
    Some(())
}

/// mmap ends.
#[inline(always)]
pub fn leave_mmap(ctx: &TracePointContext) -> Option<()> {
    let (slot, process) = target()?;
    let thread = threads::existing()?;
    let OpenSyscall { length, flags, .. } = thread.syscall;
    let address = result(ctx)?;
    let anonymous = flags & MAP_ANONYMOUS != 0;
    if !anonymous && (flags >> 32) & PROT_EXEC != 0 {
        code_appeared(slot, process);
    }
    if process.flags & PROCESS_OPEN == 0 {
        return None;
    }
    send_with_stack(
        thread,
        Event {
            kind: EventKind::RangeMapped as u32,
            process: slot,
            address,
            length,
            flags: backing(flags),
            ..Event::default()
        },
    )
}

/// What backs the mapping that mmap has just made. The flags tell so, or else the descriptor.
#[inline(always)]
fn backing(flags: u64) -> u32 {
    let is_shared = flags & MAP_TYPE != MAP_PRIVATE;
    match flags & MAP_ANONYMOUS != 0 {
        true if is_shared => RANGE_IS_SHARED,
        true => 0,
        // The fifth argument of a system call is in r8.
        false if is_shared && is_memory(saved_registers().r8 as u32) => RANGE_IS_SHARED,
        false => RANGE_IS_FILE,
    }
}

/// munmap(address, length) begins.
#[inline(always)]
pub fn enter_munmap(ctx: &TracePointContext) -> Option<()> {
    let slot = open_target()?;
    take_range(slot, argument(ctx, 0), argument(ctx, 1), 0);
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

/// mremap(address, old_length, new_length, flags, …) begins.
#[inline(always)]
pub fn enter_mremap(ctx: &TracePointContext) -> Option<()> {
    let slot = open_target()?;
    threads::current()?.syscall = OpenSyscall {
        address: argument(ctx, 0),
        length: argument(ctx, 2),
        flags: 0,
    };
    let stays = match argument(ctx, 3) & MREMAP_DONTUNMAP {
        0 => 0,
        _ => RANGE_STAYS,
    };
    take_range(slot, argument(ctx, 0), argument(ctx, 1), stays);
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
    let thread = threads::existing()?;
    let length = thread.syscall.length;
    send_with_stack(
        thread,
        Event {
            kind: EventKind::RangeMapped as u32,
            process: slot,
            address,
            length,
            flags: RANGE_IS_MOVED,
            ..Event::default()
        },
    )
}

/// shmat ends: the process has attached a segment of shared memory.
#[inline(always)]
pub fn leave_shmat(ctx: &TracePointContext) -> Option<()> {
    let slot = open_target()?;
    let address = result(ctx)?;
    send_with_stack(
        threads::current()?,
        Event {
            kind: EventKind::SegmentAttached as u32,
            process: slot,
            address,
            flags: RANGE_IS_SHARED,
            ..Event::default()
        },
    )
}

/// shmdt(address) begins. The call fails only if there is no segment at the address.
#[inline(always)]
pub fn enter_shmdt(ctx: &TracePointContext) -> Option<()> {
    let process = open_target()?;
    send(&Event {
        kind: EventKind::SegmentDetached as u32,
        process,
        tid: current_tid(),
        address: argument(ctx, 0),
        ..Event::default()
    });
    Some(())
}

/// brk ends. The kernel's brk returns the program break, moved or not.
#[inline(always)]
pub fn leave_brk(ctx: &TracePointContext) -> Option<()> {
    let slot = open_target()?;
    let address = result(ctx)?;
    send_with_stack(
        threads::current()?,
        Event {
            kind: EventKind::BreakMoved as u32,
            process: slot,
            address,
            ..Event::default()
        },
    )
}

#[inline(always)]
fn take_range(process: u32, address: u64, length: u64, flags: u32) {
    send(&Event {
        kind: EventKind::RangeTaken as u32,
        process,
        tid: current_tid(),
        address,
        length,
        flags,
        ..Event::default()
    });
}

#[inline(always)]
fn restore_range(process: u32) {
    send(&Event {
        kind: EventKind::RangeRestored as u32,
        process,
        tid: current_tid(),
        ..Event::default()
    });
}

/// Sends `event` with the stack of the code that made the syscall, and says whether an allocator made the syscall.
#[inline(always)]
fn send_with_stack(thread: &mut ThreadState, mut event: Event) -> Option<()> {
    let user = walk_start(saved_registers());
    let slot = event.process as u16;
    if thread.depth != 0 && thread.is_in_allocator(slot, user.sp) {
        event.flags |= RANGE_BACKS_ALLOCATOR;
    }
    let noted = noted_caller::take(thread, user.sp);
    let start = match noted {
        Some(caller) if !native::has_rule(slot, user.ip) => caller,
        _ => user,
    };
    event.tid = thread.tid;
    event.stack = stack_at(thread, slot, start, UNKNOWN_STACK).map_or(UNKNOWN_STACK, |(id, _)| id);
    send(&event);
    Some(())
}
