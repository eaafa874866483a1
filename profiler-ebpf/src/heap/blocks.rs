//! Blocks of allocators in the live set, and what they add to the totals of stacks and of windows.

use residue_ebpf::abi::{
    counters::Counter,
    heap::{LiveAllocation, StackTotals, live_key},
};

use crate::{
    atomic,
    counters::count,
    live, requests,
    stack::{stack_of_allocation, totals},
    state::{
        thread::{OpenCall, ThreadState},
        walk::Registers,
    },
};

/// Enters a new block into the live set and counts it under the stack of `caller`.
#[inline(always)]
pub(super) fn track(
    thread: &mut ThreadState,
    process: u16,
    block: u64,
    call: &OpenCall,
    caller: Registers,
) -> Option<()> {
    let size = call.size;
    let (stack, totals) = stack_of_allocation(thread, process, call.function, size, caller)?;
    let window = requests::of_allocation(thread, process, size, caller);
    let allocation = LiveAllocation {
        size,
        stack,
        window,
    };
    let inserted = live::insert(live_key(process, block), allocation);
    if let Some(previous) = inserted.previous {
        count(Counter::MissedFree, 1);
        account_free(process, &previous);
    }
    if inserted.placed {
        account_alloc(totals, size);
        requests::account_alloc(process, &allocation);
    } else {
        account_lost(totals, size);
    }
    Some(())
}

/// Puts a block back into the live set whose reallocation has failed, or has never returned.
#[inline(always)]
pub(super) fn restore(process: u16, block: u64, allocation: &LiveAllocation) {
    let inserted = live::insert(live_key(process, block), *allocation);
    if let Some(previous) = inserted.previous {
        account_free(process, &previous);
    }
    if inserted.previous.is_some() || !inserted.placed {
        count(Counter::MapUpdateFailed, 1);
    }
}

#[inline(always)]
fn account_alloc(totals: &mut StackTotals, size: u64) {
    // SAFETY: the pointers lead to fields of a map value.
    unsafe {
        atomic::add(&raw mut totals.alloc_bytes, size);
        atomic::add(&raw mut totals.alloc_objects, 1);
    }
}

#[inline(always)]
fn account_lost(totals: &mut StackTotals, size: u64) {
    count(Counter::LiveSetFull, 1);
    count(Counter::LiveSetFullBytes, size);
    // SAFETY: the pointers lead to fields of a map value.
    unsafe {
        atomic::add(&raw mut totals.lost_bytes, size);
        atomic::add(&raw mut totals.lost_objects, 1);
    }
}

#[inline(always)]
pub(super) fn account_free(process: u16, allocation: &LiveAllocation) {
    requests::account_free(process, allocation);
    let Some(totals) = totals(allocation.stack) else {
        return;
    };
    // SAFETY: the pointers lead to fields of a map value.
    unsafe {
        atomic::add(&raw mut totals.freed_bytes, allocation.size);
        atomic::add(&raw mut totals.freed_objects, 1);
    }
}
