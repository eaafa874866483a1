//! The allocator calls that a thread has open, and the code that runs on behalf of them.
//!
//! A probe opens a call at entry and closes the call at return. Some calls never return, because `longjmp`
//! and C++ exceptions skip them. So an open call keeps its stack pointer, and is dropped as soon as a probe
//! finds the thread's stack above the call.

use residue_ebpf::abi::counters::Counter;

use super::blocks::restore;
use crate::{
    counters::count,
    kernel::{memory::read_word, process::trampoline},
    maps::FUNCTIONS,
    state::thread::{CALL_COUNTS, CALL_HOLDS, MAX_OPEN_CALLS, OpenCall, ThreadState},
    verifier::element,
};

/// How far below an open call's frame an inner call of the allocator may lie, bytes. Allocators keep small
/// frames, so a deeper call is not their own.
const MAX_ALLOCATOR_FRAME: u64 = 16 << 10;

/// How a new call relates to the calls that are open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nesting {
    /// No allocator call is under way, so the new call counts.
    Outermost,
    /// An allocator function has made the new call for its own purposes.
    Inner,
}

impl ThreadState {
    /// Drops the calls that can no longer return. Says whether one of the calls that are still open has made
    /// the call with the stack pointer `sp`.
    #[inline(always)]
    pub(super) fn nesting(&mut self, process_slot: u16, sp: u64) -> Nesting {
        if self.depth == 0 {
            return Nesting::Outermost;
        }
        self.nesting_below_open_calls(process_slot, sp)
    }

    #[inline(always)]
    fn nesting_below_open_calls(&mut self, process_slot: u16, sp: u64) -> Nesting {
        self.abandon_below(process_slot, sp);
        let Some(top) = self.top() else {
            return Nesting::Outermost;
        };
        let caller = read_word(sp);
        let trampoline = trampoline(process_slot);
        if top.sp == sp {
            // A jump from the end of an allocator function leaves the kernel's trampoline where a
            // call would have put its own return address.
            if trampoline == 0 || caller == trampoline {
                return Nesting::Inner;
            }
            self.abandon_top(process_slot);
            return Nesting::Outermost;
        }
        let in_allocator = FUNCTIONS
            .get(top.function)
            .is_some_and(|f| caller >= f.text_start && caller < f.text_end);
        if in_allocator && is_under_way(&top, trampoline, sp) {
            Nesting::Inner
        } else {
            Nesting::Outermost
        }
    }

    /// Whether code at the stack pointer `sp` runs on behalf of an open allocator call.
    #[inline(always)]
    pub(super) fn is_in_allocator(&mut self, process_slot: u16, sp: u64) -> bool {
        self.abandon_below(process_slot, sp);
        self.top()
            .is_some_and(|top| is_under_way(&top, trampoline(process_slot), sp))
    }

    /// Whether code at the stack pointer `sp` runs on behalf of an open call of Python's allocator.
    /// Forgets a call that can no longer return.
    #[inline(always)]
    pub(super) fn is_in_object_call(&mut self, process_slot: u16, sp: u64) -> bool {
        let open = self.object.sp;
        if open == 0 {
            return false;
        }
        let trampoline = trampoline(process_slot);
        let returns = trampoline == 0 || read_word(open) == trampoline;
        let inside = open.wrapping_sub(sp) < MAX_ALLOCATOR_FRAME
            && (open != sp || read_word(sp) == trampoline);
        if !(returns && inside) {
            self.object.sp = 0;
        }
        returns && inside
    }

    /// Opens a call. If too many calls are open, the outermost gives way: allocators nest two or three calls
    /// deep, so a longjmp must have left the outermost call behind.
    #[inline(always)]
    pub(super) fn open(&mut self, process_slot: u16, call: OpenCall) {
        if self.depth as usize >= MAX_OPEN_CALLS {
            abandon(process_slot, &self.calls[0]);
            for index in 1..MAX_OPEN_CALLS {
                self.calls[index - 1] = self.calls[index];
            }
            self.depth = MAX_OPEN_CALLS as u32 - 1;
        }
        *element(&mut self.calls, self.depth as usize) = call;
        self.depth += 1;
    }

    /// Closes and returns the call of `function` whose return address lay at `sp`, if a probe has seen the call.
    #[inline(always)]
    pub(super) fn close(&mut self, process_slot: u16, sp: u64, function: u32) -> Option<OpenCall> {
        if self.top()?.sp < sp {
            self.abandon_below(process_slot, sp);
        }
        let call = self.top()?;
        if call.sp != sp || call.function != function {
            return None;
        }
        self.depth -= 1;
        Some(call)
    }

    #[inline(always)]
    fn top(&mut self) -> Option<OpenCall> {
        let depth = self.depth as usize;
        (depth > 0).then(|| *element(&mut self.calls, depth - 1))
    }

    /// Drops the open calls whose frames lie below `sp`, because the thread has left them.
    #[inline(always)]
    fn abandon_below(&mut self, process_slot: u16, sp: u64) {
        for _ in 0..MAX_OPEN_CALLS {
            match self.top() {
                Some(top) if top.sp < sp => self.abandon_top(process_slot),
                _ => break,
            }
        }
    }

    #[inline(always)]
    fn abandon_top(&mut self, process_slot: u16) {
        if let Some(call) = self.top() {
            self.depth -= 1;
            abandon(process_slot, &call);
        }
    }
}

/// Accounts for a call that will not return. A block that the call holds is as it was before, as far as can be known.
#[inline(always)]
fn abandon(process_slot: u16, call: &OpenCall) {
    if call.flags & CALL_COUNTS != 0 {
        count(Counter::CallsAbandoned, 1);
    }
    if call.flags & CALL_HOLDS != 0 {
        restore(process_slot, call.pointer, &call.held);
    }
}

/// Whether an open call can still return, and code at `sp` is close enough below the call to run on its
/// behalf. A call that can return still has the kernel's trampoline as its return address.
#[inline(always)]
fn is_under_way(call: &OpenCall, trampoline: u64, sp: u64) -> bool {
    call.sp.wrapping_sub(sp) < MAX_ALLOCATOR_FRAME
        && (trampoline == 0 || read_word(call.sp) == trampoline)
}
