//! How often the probes of each process are hit, and how long our programs take in them.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use residue_ebpf::abi::cost::{ProbeTime, TIMED_AT_MOST_NS, TIMED_EVERY};

use crate::{atomic, kernel::process::cookie, maps::PROBE_TIMES};

/// What kind of probe was hit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// A probe at an instruction, most often at the entry of a function.
    Entry,
    /// A probe at the return of a function that allocates.
    Return,
    /// A probe at the return of another function.
    OtherReturn,
}

/// Runs the work of a probe, and accounts for the hit and for the time.
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
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { atomic::add(count, 1) };
    let began = match (time.entries + time.returns + time.other_returns) % TIMED_EVERY {
        // SAFETY: a plain helper call.
        0 => unsafe { bpf_ktime_get_ns() },
        _ => 0,
    };
    // The time goes into the map, where the verifier does not know its value. Otherwise the verifier would walk the
    // program twice. A thread that interrupts this one spoils no more than a sample.
    // SAFETY: the pointer leads to a field of a map value.
    unsafe { ptr::write_volatile(&raw mut time.began_ns, began) };
}

#[inline(always)]
fn end(ctx: *mut c_void) {
    let Some(time) = of_process(ctx) else {
        return;
    };
    // SAFETY: the pointer leads to a field of a map value.
    let began = unsafe { ptr::read_volatile(&raw const time.began_ns) };
    if began == 0 {
        return;
    }
    // SAFETY: a plain helper call.
    let took = unsafe { bpf_ktime_get_ns() }.wrapping_sub(began);
    // SAFETY: the pointers lead to fields of a map value.
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
    // SAFETY: the pointer leads to a map value.
    Some(unsafe { &mut *time })
}
