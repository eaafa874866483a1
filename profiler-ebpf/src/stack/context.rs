//! Which allocations have their stack walked: count everything, walk what tells something new.
//!
//! A walk costs several times what counting costs, and nearly all allocations of a server are freed
//! within their request. So each allocation first finds its *shallow context*: which function was
//! called from where, and which Python frame was running. That tells apart well enough what grows. The
//! stack is walked for the first allocations of a context, for a random sample of the others, and for
//! all of them while user space suspects the context of growing. What is not walked counts for the
//! context itself, so that a context and the stacks that belong to it together are exact.
//!
//! Large allocations are walked always, and belong to no context: what is not walked then never
//! mixes with them, and the sample of a context is a plain one, whatever the sizes in it.

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
    state::thread::{Registers, ThreadState},
    verifier::element,
};

/// So many allocations of a context are walked at first: its common stacks are known then.
const FIRST_WALKS: u64 = 32;
/// Of those after that, one in so many is walked at random.
const SAMPLED: u32 = 128;
/// From this size on, bytes, an allocation is walked always: touching its memory costs more than the
/// walk.
const LARGE: u64 = 16 << 10;

/// The id and totals under which an allocation of `size` bytes by `function` counts, whose `caller`
/// is given.
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
        // SAFETY: a field of a map value.
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

/// Hashes who called the allocator, `ip`, and which Python frame runs, and enters the latter as the
/// second frame of the thread's stack event.
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
    mix(mix(u64::from(process) + 1, ip), frame)
}
