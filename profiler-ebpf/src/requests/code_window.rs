//! Windows that a program's own code makes: calls of a function, or the time between two static probes.
//!
//! Such a window is bound to the thread that opens it, within whatever window the thread works on besides.
//! The window of a call is over when the call returns. If a longjmp or an exception leaves the call, the
//! window is over when a probe finds the thread's stack above the call. Whatever the code calls within a
//! window, the same function included, is part of the window.

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
    send::{Fragment, send},
    window::{now, open},
};
use crate::{
    kernel::{
        memory::read_word,
        probe::{self, registers},
        process::{open_process, trampoline},
    },
    state::{
        request::{ANYWHERE, WindowCall},
        thread::ThreadState,
        walk::Registers,
    },
    threads,
};

/// The current thread has entered a function each call of which is a window.
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

/// Such a function has returned.
#[inline(always)]
pub fn returned(ctx: &RetProbeContext) -> Option<()> {
    let sp = probe::returned(ctx).rsp.wrapping_sub(8);
    open_process(ctx.as_ptr())?;
    left(threads::existing()?, sp)
}

/// Such a function is about to return, by this instruction.
#[inline(always)]
pub fn returns(ctx: &ProbeContext) -> Option<()> {
    open_process(ctx.as_ptr())?;
    let thread = threads::existing()?;
    left(thread, registers(ctx).sp)
}

/// A call returns whose return address lies at `sp`. The call may be one within the window's call.
#[inline(always)]
fn left(thread: &mut ThreadState, sp: u64) -> Option<()> {
    if thread.call.sp != 0 && sp >= thread.call.sp {
        end(thread);
    }
    Some(())
}

/// The current thread has passed the static probe that opens a window. A window that is still open is over.
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

/// The current thread has passed the static probe that closes a window.
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
    // The window has no request to wait for: whatever the code does is the answer.
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

/// Whether the thread is still in a call, seen from code at `sp`, which is not above the call: the return
/// address is as it was at entry, or is the kernel's trampoline. Otherwise something else than a return has
/// left the call.
#[inline(always)]
fn is_under_way(call: &WindowCall, process: u16, sp: u64) -> bool {
    if call.sp == ANYWHERE {
        return true;
    }
    let word = read_word(call.sp);
    if call.has_return_probe == 0 {
        // The end of such a call jumps nowhere. So a call in the same place was made after the window's call.
        return sp != call.sp && word == call.caller;
    }
    // A jump from the end of a call leaves the trampoline where a call would have put its own return address.
    match trampoline(process) {
        0 => sp != call.sp,
        trampoline => word == trampoline,
    }
}

/// A function that the thread has called returns to `caller`. Ends the window if the thread has left the
/// window's call.
#[inline(always)]
pub fn seen_at(thread: &mut ThreadState, process: u16, caller: Registers) {
    let call = &thread.call;
    if call.sp == 0 || call.sp == ANYWHERE {
        return;
    }
    let outside = call.sp + 8;
    let is_inside = if caller.sp == outside {
        // Either the end of the window's call has jumped to the function, or the function was called in that
        // call's place.
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
