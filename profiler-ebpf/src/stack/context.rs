//! Decides which allocations have their stacks walked: counts all allocations, and walks the stacks that tell
//! something new.
//!
//! A walk costs several times what counting costs, and a server frees nearly all of its allocations within
//! the request. So each allocation first finds its *shallow context*: which function was called from where,
//! and which Python frame was running. Contexts tell well enough which memory grows. The kernel side walks
//! the stack of the first allocations of a context, of a random sample of the others, and of all of them
//! while user space suspects the context of growing. An allocation whose stack is not walked counts for the
//! context itself. So the totals of a context and of the stacks that belong to the context are exact
//! together.
//!
//! Large allocations are always walked, and belong to no context. So allocations that are not walked never
//! mix with large ones, and the sample of a context is a plain one, whatever sizes the context has.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use residue_ebpf::abi::{
    UNKNOWN_STACK,
    heap::{StackKind, StackPolicy, StackTotals},
};

use super::{
    intern::{deliver, intern, stack_at, totals},
    native::{self, mix},
};
use crate::{
    atomic,
    maps::{STACK_POLICY, SUSPECTS},
    python,
    state::{thread::ThreadState, walk::Registers},
    verifier::element,
};

/// How many of the first allocations of a context are walked. The common stacks of the context are known then.
const FIRST_WALKS: u64 = 32;
/// Of the allocations after the first ones, one in this many is walked, at random.
const SAMPLED: u32 = 128;
/// The size from which on an allocation is always walked, bytes: to touch so much memory costs more than the walk.
const LARGE: u64 = 16 << 10;

/// The id and the totals of the stack or context that an allocation of `size` bytes counts for. `caller` has called
/// `function`.
#[inline(always)]
pub fn stack_of_allocation(
    thread: &mut ThreadState,
    process: u16,
    function: u32,
    size: u64,
    caller: Registers,
) -> Option<(u32, &'static mut StackTotals)> {
    let policy = STACK_POLICY.load();
    if policy == StackPolicy::All as u32 || policy == StackPolicy::Auto as u32 && size >= LARGE {
        return stack_at(thread, process, caller, UNKNOWN_STACK);
    }
    let context = context_at(thread, process, function, caller)?;
    let is_counted_alone = policy == StackPolicy::None as u32 || context == UNKNOWN_STACK;
    if is_counted_alone || !is_worth_a_walk(context) {
        return Some((context, totals(context)?));
    }
    let (stack, totals) = stack_at(thread, process, caller, context)?;
    if stack == UNKNOWN_STACK {
        return Some((context, self::totals(context)?));
    }
    Some((stack, totals))
}

#[inline(always)]
fn is_worth_a_walk(context: u32) -> bool {
    let Some(totals) = totals(context) else {
        return false;
    };
    if totals.walked < FIRST_WALKS {
        // SAFETY: the pointer leads to a field of a map value.
        unsafe { atomic::add(&raw mut totals.walked, 1) };
        return true;
    }
    // SAFETY: a plain helper call.
    SUSPECTS
        .get(context)
        .is_some_and(|suspected| *suspected != 0)
        || unsafe { bpf_get_prandom_u32() } % SAMPLED == 0
}

/// The id of the shallow context of a call.
#[inline(always)]
fn context_at(
    thread: &mut ThreadState,
    process: u16,
    function: u32,
    caller: Registers,
) -> Option<u32> {
    python::begin(thread, process);
    let is_python = thread.walk.python.is_enabled();
    let place = if is_python {
        python_place(thread, process, caller.ip)
    } else {
        native::walk_place(caller, process, thread)
    };
    // The lowest bit tells contexts from stacks.
    let id = intern(thread, mix(place, u64::from(function) << 1 | 1));
    let totals = totals(id)?;
    if totals.delivered == 0 {
        if is_python {
            let frame = native::frame_at(process, caller.ip);
            *element(&mut thread.stack.frames, 0) = frame.to_bits();
        }
        thread.stack.process = u32::from(process);
        thread.stack.kind = StackKind::Context as u32;
        thread.stack.context = UNKNOWN_STACK;
        deliver(thread, id, totals);
    }
    Some(id)
}

/// Hashes the caller of the allocator, `ip`, and the Python frame that runs, and enters the Python frame as
/// the second frame of the thread's stack event.
#[inline(always)]
fn python_place(thread: &mut ThreadState, process: u16, ip: u64) -> u64 {
    let ThreadState { walk, stack, .. } = thread;
    let mut frame = 0;
    stack.walked = 1;
    if let Some(running) = python::running(&mut walk.python) {
        frame = running.to_raw().to_bits();
        *element(&mut stack.frames, 1) = frame;
        stack.walked = 2;
    }
    stack.end = 0;
    mix(mix(native::seed(process), ip), frame)
}
