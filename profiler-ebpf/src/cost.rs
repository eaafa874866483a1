//! How often the probes of each process are hit, and how long our programs take in them.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use residue_ebpf::abi::cost::{ProbeTime, TIMED_AT_MOST_NS, TIMED_EVERY};

use crate::{atomic, kernel::process::cookie, maps::PROBE_TIMES};

/// Where a probe was hit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    Entry,
    /// Where a function returns that allocates.
    Return,
    /// Where another one does.
    OtherReturn,
}

/// Runs what a probe is there for, and accounts for it.
#[inline(always)]
pub fn measured(ctx: *mut c_void, hit: Hit, run: impl FnOnce() -> Option<()>) -> u32 {
    begin(ctx, hit);
    let _ = run();
    end(ctx);
    0
}

#[inline(always)]
fn begin(ctx: *mut c_void, hit: Hit) {
    let Some(time) = of_process(ctx) else {
        return;
    };
    let count = match hit {
        Hit::Entry => &raw mut time.entries,
        Hit::Return => &raw mut time.returns,
        Hit::OtherReturn => &raw mut time.other_returns,
    };
    // SAFETY: a field of a map value.
    unsafe { atomic::add(count, 1) };
    let began = match (time.entries + time.returns + time.other_returns) % TIMED_EVERY {
        // SAFETY: a plain helper call.
        0 => unsafe { bpf_ktime_get_ns() },
        _ => 0,
    };
    // In the map, where the verifier does not know it: it would walk the program twice. A thread that
    // interrupts this one spoils no more than a sample.
    // SAFETY: a field of a map value.
    unsafe { ptr::write_volatile(&raw mut time.began_ns, began) };
}

#[inline(always)]
fn end(ctx: *mut c_void) {
    let Some(time) = of_process(ctx) else {
        return;
    };
    // SAFETY: a field of a map value.
    let began = unsafe { ptr::read_volatile(&raw const time.began_ns) };
    if began == 0 {
        return;
    }
    // SAFETY: a plain helper call.
    let took = unsafe { bpf_ktime_get_ns() }.wrapping_sub(began);
    // SAFETY: fields of a map value.
    unsafe {
        ptr::write_volatile(&raw mut time.began_ns, 0);
        if took < TIMED_AT_MOST_NS {
            atomic::add(&raw mut time.timed, 1);
            atomic::add(&raw mut time.timed_ns, took);
        }
    }
}

#[inline(always)]
fn of_process(ctx: *mut c_void) -> Option<&'static mut ProbeTime> {
    let time = PROBE_TIMES.get_ptr_mut(u32::from(cookie(ctx).process))?;
    // SAFETY: a map value.
    Some(unsafe { &mut *time })
}
