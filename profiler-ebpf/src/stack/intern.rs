//! Gives each different stack a small id, and hands its frames to user space once.

use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP};
use residue_ebpf::abi::{
    MAX_FRAMES, UNKNOWN_STACK,
    counters::Counter,
    event::StackEvent,
    heap::{StackKind, StackTotals},
};

use super::{
    native::{self, mix},
    sample,
};
use crate::{
    atomic,
    counters::count,
    maps::{NEXT_STACK, STACK_IDS, STACKS, TOTALS},
    state::{
        thread::{RecentStack, ThreadState},
        walk::Registers,
    },
    verifier::element,
};

/// Keeps the hashes of stacks of different kinds apart. An odd number whose multiples differ in all bits.
const KIND_SALT: u64 = 0x9e37_79b9_7f4a_7c15;

/// Walks the stack at `start` and returns the stack's id and totals. `context` is the shallow context that the stack
/// belongs to, or `UNKNOWN_STACK`. A stack that belongs to two contexts has two ids.
#[inline(always)]
pub fn stack_at(
    thread: &mut ThreadState,
    process: u16,
    start: Registers,
    context: u32,
) -> Option<(u32, &'static mut StackTotals)> {
    stack_of_kind(thread, process, start, StackKind::Full, context)
}

/// [`stack_at`], for totals of any kind. Each kind has ids of its own.
#[inline(always)]
pub fn stack_of_kind(
    thread: &mut ThreadState,
    process: u16,
    start: Registers,
    kind: StackKind,
    context: u32,
) -> Option<(u32, &'static mut StackTotals)> {
    let hash = native::walk(start, process, thread);
    let mut hash = hash ^ (kind as u64).wrapping_mul(KIND_SALT);
    thread.stack.process = u32::from(process);
    thread.stack.kind = kind as u32;
    thread.stack.context = context;
    sample::take(start, thread);
    if context != UNKNOWN_STACK {
        hash = mix(hash, u64::from(context));
    }
    let id = intern(thread, hash);
    let totals = totals(id)?;
    if totals.delivered == 0 {
        deliver(thread, id, totals);
    }
    Some((id, totals))
}

/// Hands the thread's stack event to user space, as the frames of the stack `id`.
#[inline(always)]
pub fn deliver(thread: &mut ThreadState, id: u32, totals: &mut StackTotals) {
    if id == UNKNOWN_STACK {
        return;
    }
    thread.stack.stack = id;
    if send(&thread.stack) {
        totals.delivered = 1;
    }
}

/// The totals of a stack.
#[inline(always)]
pub fn totals(id: u32) -> Option<&'static mut StackTotals> {
    let totals = TOTALS.get_ptr_mut(id)?;
    // SAFETY: the pointer leads to a map value. Its figures change only by atomic additions, and two threads may set
    // `delivered` without harm.
    Some(unsafe { &mut *totals })
}

/// The id of a stack by its hash; `UNKNOWN_STACK`, counted, if there is no room for one.
#[inline(always)]
pub fn intern(thread: &mut ThreadState, hash: u64) -> u32 {
    let recent = element(&mut thread.recent_stacks, hash as usize);
    if recent.hash == hash {
        return recent.id;
    }
    let Some(id) = known(hash).or_else(|| assign(hash)) else {
        count(Counter::StackTableFull, 1);
        return UNKNOWN_STACK;
    };
    *recent = RecentStack { hash, id };
    id
}

#[inline(always)]
fn known(hash: u64) -> Option<u32> {
    // SAFETY: entries are never removed, so the reference stays valid.
    unsafe { STACK_IDS.get(hash) }.copied()
}

/// Gives `hash` the next id, unless another thread was faster.
#[inline(always)]
fn assign(hash: u64) -> Option<u32> {
    let next = NEXT_STACK.get_ptr_mut(0)?;
    // If there is no room, the next id stays, or the ids would begin anew in the end.
    // SAFETY: the pointer leads to a map value.
    totals(u32::try_from(unsafe { next.read_volatile() }).ok()?)?;
    // SAFETY: the pointer leads to a map value.
    let id = unsafe { atomic::fetch_add(next, 1) } as u32;
    totals(id)?;
    if STACK_IDS.insert(hash, id, u64::from(BPF_NOEXIST)).is_ok() {
        return Some(id);
    }
    known(hash)
}

#[inline(always)]
fn send(stack: &StackEvent) -> bool {
    let len = (stack.walked as usize).min(MAX_FRAMES);
    let bytes = StackEvent::HEADER_BYTES + 8 * len;
    // SAFETY: `bytes` is at most the size of a StackEvent, and the walk has written every frame below `len`.
    let event = unsafe { core::slice::from_raw_parts((&raw const *stack).cast::<u8>(), bytes) };
    STACKS
        .output::<[u8]>(event, u64::from(BPF_RB_NO_WAKEUP))
        .is_ok()
}
