//! Python's own allocator: objects, by samples, and the pools that it takes for them.
//!
//! pymalloc serves requests of up to 512 bytes from pools in arenas, which malloc never sees. The kernel side
//! samples an object of `size` bytes with the probability `size / interval`, and each sample stands for
//! `interval` bytes. So the expected value of any sum of samples is the sum itself. pymalloc hands larger
//! requests on to malloc, whose probes count them. Here such a call is only noted, to tell the calls that the
//! allocator makes to itself from other calls.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_prandom_u32,
    programs::{ProbeContext, RetProbeContext},
};
use residue_ebpf::abi::{
    UNKNOWN_STACK,
    call_shape::CallShape,
    counters::Counter,
    heap::{
        LiveAllocation, MAX_PYTHON_OBJECT, StackKind, StackTotals, live_key, objects_of_sample,
        python_key,
    },
    window::BACKGROUND,
};

use crate::{
    atomic,
    counters::count,
    kernel::{
        probe::{registers, returned, walk_start},
        process::open_process,
    },
    live,
    maps::{PYTHON_OBJECT_INTERVAL, PYTHON_POOLS},
    stack::{stack_of_kind, totals},
    state::{
        thread::{OpenObjectCall, ThreadState},
        walk::Registers,
    },
    threads,
};

/// What an allocation or a free adds to the totals of its stack.
#[derive(Clone, Copy)]
struct Weight {
    bytes: u64,
    objects: u64,
}

/// The current thread has entered a function of Python's allocator that allocates.
#[inline(always)]
pub fn enter(ctx: &ProbeContext, shape: CallShape) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let thread = threads::current()?;
    let sp = registers(ctx).sp;
    if thread.is_in_object_call(cookie.process, sp) {
        return None;
    }
    let (size, pointer) = arguments(ctx, shape);
    thread.object = OpenObjectCall { sp, size, pointer };
    Some(())
}

/// A function of Python's allocator that allocates has returned.
#[inline(always)]
pub fn leave(ctx: &RetProbeContext) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let thread = threads::existing()?;
    let regs = returned(ctx);
    let call = thread.object;
    // The frame of an inner call lies below the open call. A call that lies above has left the open call behind.
    if call.sp == 0 || regs.rsp.wrapping_sub(8) < call.sp {
        return None;
    }
    thread.object.sp = 0;
    if call.sp != regs.rsp.wrapping_sub(8) || regs.rax == 0 {
        return None;
    }
    if call.pointer != 0 {
        release(cookie.process, call.pointer);
    }
    if call.size == 0 || call.size > MAX_PYTHON_OBJECT {
        return None;
    }
    count(Counter::PythonObjectCalls, 1);
    let caller = walk_start(regs);
    sample(thread, cookie.process, regs.rax, call.size, caller)
}

/// The current thread has asked Python's allocator to free a block.
#[inline(always)]
pub fn free(ctx: &ProbeContext) -> Option<()> {
    let block: u64 = ctx.arg(1)?;
    if block == 0 {
        return None;
    }
    let cookie = open_process(ctx.as_ptr())?;
    if let Some(thread) = threads::existing()
        && thread.is_in_object_call(cookie.process, registers(ctx).sp)
    {
        return None;
    }
    release(cookie.process, block);
    Some(())
}

/// The allocator has taken a pool, and returns the first block in it.
#[inline(always)]
pub fn new_pool(ctx: &RetProbeContext) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let regs = returned(ctx);
    if regs.rax == 0 {
        return None;
    }
    let bytes = *PYTHON_POOLS.get(u32::from(cookie.process))?;
    let pool = regs.rax & !bytes.wrapping_sub(1);
    let thread = threads::current()?;
    let caller = walk_start(regs);
    let (stack, totals) = known_stack(thread, cookie.process, caller, StackKind::PythonPools)?;
    let weight = Weight { bytes, objects: 1 };
    let allocation = unbound(bytes, stack);
    let inserted = live::insert(python_key(cookie.process, pool), allocation);
    // When all objects have left a pool, the pool goes back to its arena unseen, and may be taken again.
    if let Some(previous) = inserted.previous {
        account_free(previous.stack, weight);
    }
    account(totals, weight, inserted.placed);
    Some(())
}

/// The requested bytes of a call, and the old block.
#[inline(always)]
fn arguments(ctx: &ProbeContext, shape: CallShape) -> (u64, u64) {
    let arg = |n| ctx.arg::<u64>(n).unwrap_or(0);
    match shape {
        // The caller has made sure that the product does not wrap.
        CallShape::PythonCalloc => (arg(1).wrapping_mul(arg(2)), 0),
        CallShape::PythonRealloc => (arg(2), arg(1)),
        _ => (arg(1), 0),
    }
}

/// Enters a new object into the live set, if chance makes the object a sample.
#[inline(always)]
fn sample(
    thread: &mut ThreadState,
    process: u16,
    block: u64,
    size: u64,
    caller: Registers,
) -> Option<()> {
    let interval = u64::from(PYTHON_OBJECT_INTERVAL.load());
    // SAFETY: a plain helper call.
    let random = u64::from(unsafe { bpf_get_prandom_u32() });
    // Of 2^32 numbers, this takes size / interval of them, rounded up.
    if random * interval >= size << 32 {
        return None;
    }
    // A block of malloc stays malloc's, even if a reallocation has made the block small.
    if live::holds(live_key(process, block)) {
        return None;
    }
    let (stack, totals) = known_stack(thread, process, caller, StackKind::PythonObjects)?;
    let inserted = live::insert(python_key(process, block), unbound(size, stack));
    if let Some(previous) = inserted.previous {
        count(Counter::MissedFree, 1);
        account_free(previous.stack, weight(&previous, block));
    }
    let weight = weight(&unbound(size, stack), block);
    account(totals, weight, inserted.placed);
    Some(())
}

/// An allocation that belongs to no window, because objects and pools overlap with blocks and ranges that do.
#[inline(always)]
const fn unbound(size: u64, stack: u32) -> LiveAllocation {
    LiveAllocation {
        size,
        stack,
        window: BACKGROUND,
    }
}

/// Takes a block's sample back, if the block is a sample.
#[inline(always)]
fn release(process: u16, block: u64) {
    if let Some(object) = live::take(python_key(process, block)) {
        account_free(object.stack, weight(&object, block));
    }
}

/// What a sampled object stands for.
#[inline(always)]
fn weight(object: &LiveAllocation, block: u64) -> Weight {
    let interval = u64::from(PYTHON_OBJECT_INTERVAL.load());
    Weight {
        bytes: interval,
        objects: objects_of_sample(interval, object.size, block),
    }
}

/// Walks the stack of a sample. `None`, counted, if user space does not know the stack's kind: the totals of
/// such a stack would count as malloc's.
#[inline(always)]
fn known_stack(
    thread: &mut ThreadState,
    process: u16,
    caller: Registers,
    kind: StackKind,
) -> Option<(u32, &'static mut StackTotals)> {
    let known = stack_of_kind(thread, process, caller, kind, UNKNOWN_STACK)
        .filter(|(id, totals)| *id != UNKNOWN_STACK && totals.delivered != 0);
    if known.is_none() {
        count(Counter::PythonSamplesLost, 1);
    }
    known
}

#[inline(always)]
fn account(totals: &mut StackTotals, weight: Weight, placed: bool) {
    let (bytes, objects) = if placed {
        (&raw mut totals.alloc_bytes, &raw mut totals.alloc_objects)
    } else {
        count(Counter::LiveSetFull, 1);
        count(Counter::LiveSetFullBytes, weight.bytes);
        (&raw mut totals.lost_bytes, &raw mut totals.lost_objects)
    };
    // SAFETY: the pointers lead to fields of a map value.
    unsafe {
        atomic::add(bytes, weight.bytes);
        atomic::add(objects, weight.objects);
    }
}

#[inline(always)]
fn account_free(stack: u32, weight: Weight) {
    let Some(totals) = totals(stack) else {
        return;
    };
    // SAFETY: the pointers lead to fields of a map value.
    unsafe {
        atomic::add(&raw mut totals.freed_bytes, weight.bytes);
        atomic::add(&raw mut totals.freed_objects, weight.objects);
    }
}
