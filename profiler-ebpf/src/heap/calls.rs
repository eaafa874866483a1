//! Calls of allocators: what the probes do at entry, at return and at a free, by the shape of the call.

use aya_ebpf::{
    EbpfContext as _,
    programs::{ProbeContext, RetProbeContext},
};
use residue_ebpf::abi::{
    call_shape::CallShape,
    counters::Counter,
    heap::{LiveAllocation, live_key},
};

use super::{
    blocks::{account_free, restore, track},
    open_calls::Nesting,
};
use crate::{
    counters::count,
    kernel::{
        memory::read_word,
        probe::{registers, returned, walk_start},
        process::open_process,
    },
    live,
    maps::FUNCTIONS,
    state::{
        thread::{CALL_COUNTS, CALL_HOLDS, OpenCall, ThreadState},
        walk::Registers,
    },
    threads,
};

/// The current thread has entered an allocator function.
#[inline(always)]
pub fn enter(ctx: &ProbeContext, shape: CallShape) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let thread = threads::current()?;
    let sp = registers(ctx).sp;
    let nesting = thread.nesting(cookie.process, sp);
    let mut call = OpenCall {
        sp,
        size: size_argument(ctx, shape),
        pointer: ctx.arg(0).unwrap_or(0),
        held: LiveAllocation::default(),
        function: cookie.function,
        flags: 0,
    };
    if nesting == Nesting::Outermost {
        call.flags = CALL_COUNTS;
        if takes_old_block(shape)
            && call.pointer != 0
            && let Some(held) = live::take(live_key(cookie.process, call.pointer))
        {
            call.held = held;
            call.flags |= CALL_HOLDS;
        }
    }
    thread.open(cookie.process, call);
    Some(())
}

/// An allocator function has returned.
#[inline(always)]
pub fn leave(ctx: &RetProbeContext, shape: CallShape) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let thread = threads::existing()?;
    let regs = returned(ctx);
    let call = thread.close(cookie.process, regs.rsp.wrapping_sub(8), cookie.function)?;
    if call.flags & CALL_COUNTS == 0 {
        return None;
    }
    let caller = walk_start(regs);
    commit(thread, cookie.process, shape, &call, regs.rax, caller)
}

/// The current thread has entered a function that releases a block.
#[inline(always)]
pub fn free(ctx: &ProbeContext) -> Option<()> {
    let block: u64 = ctx.arg(0)?;
    if block == 0 {
        return None;
    }
    let cookie = open_process(ctx.as_ptr())?;
    if let Some(thread) = threads::existing()
        && thread.depth != 0
        && thread.nesting(cookie.process, registers(ctx).sp) == Nesting::Inner
    {
        return None;
    }
    match live::take(live_key(cookie.process, block)) {
        Some(allocation) => account_free(cookie.process, &allocation),
        None => count_unmatched(cookie.function),
    }
    Some(())
}

/// Counts that `function` frees a block of which no allocation is known.
#[inline(always)]
fn count_unmatched(function: u32) {
    let unpaired = FUNCTIONS
        .get(function)
        .is_some_and(|function| function.unpaired != 0);
    count(
        match unpaired {
            true => Counter::FreeUnseen,
            false => Counter::FreeUnmatched,
        },
        1,
    );
}

/// Changes the live set as the call did the heap, now that the call's result is known.
#[inline(always)]
fn commit(
    thread: &mut ThreadState,
    process: u16,
    shape: CallShape,
    call: &OpenCall,
    result: u64,
    caller: Registers,
) -> Option<()> {
    let block = match shape {
        CallShape::PosixMemalign => memalign_result(call, result)?,
        // The block stays where it is. If the result is less than the requested size, the block is as before.
        CallShape::ResizeInPlace if result < call.size => 0,
        CallShape::ResizeInPlace => call.pointer,
        _ => result,
    };
    if takes_old_block(shape) {
        let kept = block == 0 && (call.size != 0 || call.pointer == 0);
        if call.flags & CALL_HOLDS == 0 {
            if call.pointer != 0 && !kept {
                count_unmatched(call.function);
            }
        } else if kept {
            restore(process, call.pointer, &call.held);
        } else {
            account_free(process, &call.held);
        }
    }
    if block != 0 {
        track(thread, process, block, call, caller)?;
    }
    Some(())
}

/// The block that posix_memalign gives through its out-pointer. The function gives one only if it returns
/// zero. The result is an int, so the upper half of the register means nothing.
#[inline(always)]
fn memalign_result(call: &OpenCall, result: u64) -> Option<u64> {
    if result as u32 != 0 {
        return None;
    }
    let block = read_word(call.pointer);
    if block == 0 {
        count(Counter::ResultUnreadable, 1);
        return None;
    }
    Some(block)
}

#[inline(always)]
const fn takes_old_block(shape: CallShape) -> bool {
    matches!(
        shape,
        CallShape::Realloc
            | CallShape::ReallocArray
            | CallShape::ResizeInPlace
            | CallShape::RustRealloc
    )
}

/// The requested bytes of a call of this shape.
#[inline(always)]
fn size_argument(ctx: &ProbeContext, shape: CallShape) -> u64 {
    let arg = |n| ctx.arg::<u64>(n).unwrap_or(0);
    match shape {
        CallShape::Malloc => arg(0),
        // The call fails when the product wraps.
        CallShape::Calloc => arg(0).wrapping_mul(arg(1)),
        CallShape::Realloc | CallShape::AlignedAlloc | CallShape::ResizeInPlace => arg(1),
        CallShape::ReallocArray => product(arg(1), arg(2)),
        CallShape::PosixMemalign => arg(2),
        CallShape::RustRealloc => arg(3),
        CallShape::Free
        | CallShape::NoteCaller
        | CallShape::PythonCodeFreed
        | CallShape::PythonMalloc
        | CallShape::PythonCalloc
        | CallShape::PythonRealloc
        | CallShape::PythonFree
        | CallShape::PythonContextMade
        | CallShape::PythonContextFreed
        | CallShape::PythonItemPut
        | CallShape::PythonItemTaken
        | CallShape::PythonItemReturned
        | CallShape::PythonNewPool
        | CallShape::SslRead
        | CallShape::SslReadEx
        | CallShape::SslWrite
        | CallShape::SslWriteEx
        | CallShape::SslFree
        | CallShape::WindowFunction
        | CallShape::WindowEnter
        | CallShape::WindowLeave
        | CallShape::WindowOpen
        | CallShape::WindowClose => 0,
    }
}

/// `a * b`. If the product wraps, the call fails and the product means nothing. It must not be zero, though,
/// because a reallocation to the size zero frees the block.
#[inline(always)]
const fn product(a: u64, b: u64) -> u64 {
    let product = a.wrapping_mul(b);
    if product == 0 && a != 0 && b != 0 {
        return u64::MAX;
    }
    product
}
