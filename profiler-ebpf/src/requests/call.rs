//! Windows that a program's own code makes: calls of a function, or the time between two static probes.
//!
//! They are bound to the thread that opens them, within whatever window it works on besides. A call is
//! over when it returns; one that is left by a longjmp or an exception, when the thread is seen above it.
//! What is called within a window, itself included, is part of it.

use aya_ebpf::{
    EbpfContext as _,
    programs::{ProbeContext, RetProbeContext},
};
use residue_ebpf::abi::{
    call_shape::Cookie,
    window::{WindowEventKind, WindowStage},
};

use super::{
    lifecycle::{self, Beginning, advance},
    now, open,
    send::{Fragment, send},
};
use crate::{
    kernel::{
        memory::read_word,
        probe::{self, registers},
        process::{open_process, trampoline},
    },
    state::{
        request::{ANYWHERE, WindowCall},
        thread::{Registers, ThreadState},
    },
    threads,
};

/// A function was entered, each call of which is a window.
#[inline(always)]
pub fn entered(ctx: &ProbeContext, has_return_probe: bool) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let thread = threads::current()?;
    let sp = registers(ctx).sp;
    if thread.call.sp != 0 {
        if sp <= thread.call.sp && is_under_way(&thread.call, cookie.process, sp) {
            return None;
        }
        end(thread);
    }
    begin(thread, cookie, sp, has_return_probe)
}

/// It returned.
#[inline(always)]
pub fn returned(ctx: &RetProbeContext) -> Option<()> {
    let sp = probe::returned(ctx).rsp.wrapping_sub(8);
    open_process(ctx.as_ptr())?;
    left(threads::existing()?, sp)
}

/// It is about to, by this instruction.
#[inline(always)]
pub fn returns(ctx: &ProbeContext) -> Option<()> {
    open_process(ctx.as_ptr())?;
    let thread = threads::existing()?;
    left(thread, registers(ctx).sp)
}

/// A call returns whose return address lies at `sp`. It may be one within the window.
#[inline(always)]
fn left(thread: &mut ThreadState, sp: u64) -> Option<()> {
    if thread.call.sp != 0 && sp >= thread.call.sp {
        end(thread);
    }
    Some(())
}

/// The static probe that opens a window was passed. A window that was not closed is over.
#[inline(always)]
pub fn opened(ctx: &ProbeContext) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    let thread = threads::current()?;
    if thread.call.sp != 0 {
        let sp = registers(ctx).sp;
        let is_call = thread.call.sp != ANYWHERE;
        if is_call && sp < thread.call.sp && is_under_way(&thread.call, cookie.process, sp) {
            return None;
        }
        end(thread);
    }
    begin(thread, cookie, ANYWHERE, false)
}

/// The static probe that closes it was passed.
#[inline(always)]
pub fn closed(ctx: &ProbeContext) -> Option<()> {
    open_process(ctx.as_ptr())?;
    let thread = threads::existing()?;
    if thread.call.sp == ANYWHERE {
        end(thread);
    }
    Some(())
}

#[inline(always)]
fn begin(thread: &mut ThreadState, cookie: Cookie, sp: u64, has_return_probe: bool) -> Option<()> {
    let outer = thread.window;
    let now = now();
    let beginning = Beginning {
        process: u32::from(cookie.process),
        binds: true,
        at: now,
        source: cookie.function + 1,
    };
    let window = lifecycle::open(thread, &beginning)?;
    // There is nothing to wait for: what it does is the answer.
    advance(window, WindowStage::Responding);
    thread.call = WindowCall {
        sp,
        caller: read_word(sp),
        window: window.id(),
        outer,
        has_return_probe: u64::from(has_return_probe),
    };
    send(
        thread,
        WindowEventKind::Opened,
        window,
        now,
        Fragment::default(),
    );
    Some(())
}

/// Closes the thread's window.
#[inline(always)]
fn end(thread: &mut ThreadState) {
    let WindowCall { window, outer, .. } = thread.call;
    thread.call.sp = 0;
    if let Some(window) = open(window) {
        let now = now();
        (window.responded_ns, window.rss_responded) = (now.ns, now.rss);
        lifecycle::close(thread, window, now);
    }
    thread.window = outer;
}

/// Whether a call has not been left in another way than by returning, seen from code at `sp`, which is not
/// above it: its return address is as it was, or is the kernel's trampoline.
#[inline(always)]
fn is_under_way(call: &WindowCall, process: u16, sp: u64) -> bool {
    if call.sp == ANYWHERE {
        return true;
    }
    let word = read_word(call.sp);
    if call.has_return_probe == 0 {
        // Nothing is jumped to from the end of such a call: what is at its place was called after it.
        return sp != call.sp && word == call.caller;
    }
    // Such a jump leaves the trampoline where a call would have put its own return address.
    match trampoline(process) {
        0 => sp != call.sp,
        trampoline => word == trampoline,
    }
}

/// A function that the thread has called returns to `caller`: ends the window of a call that it has left.
#[inline(always)]
pub fn seen_at(thread: &mut ThreadState, process: u16, caller: Registers) {
    let call = &thread.call;
    if call.sp == 0 || call.sp == ANYWHERE {
        return;
    }
    let outside = call.sp + 8;
    let is_inside = if caller.sp == outside {
        // It was jumped to from the end of the call; or it was called in the place of that.
        caller.ip == call.caller
    } else {
        caller.sp < outside && is_under_way(call, process, caller.sp)
    };
    if !is_inside {
        end(thread);
    }
}

/// A thread ends.
#[inline(always)]
pub fn thread_exited(thread: &mut ThreadState) {
    if thread.call.sp != 0 {
        end(thread);
    }
}
