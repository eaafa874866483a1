//! Atomic changes of map values.
//!
//! rustc's BPF target has no read-modify-write atomics in `core::sync::atomic` (`atomic_cas` is
//! off), though the instruction set has them; hence the assembly.

use core::arch::asm;

/// Adds `value` to what `target` points to.
///
/// # Safety
///
/// `target` must point to an aligned `u64` in a map value.
#[inline(always)]
pub unsafe fn add(target: *mut u64, value: u64) {
    // SAFETY: the caller vouches for the pointer.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) target, in(reg) value) }
}

/// Sets bits of what `target` points to, and returns what was there before.
///
/// # Safety
///
/// `target` must point to an aligned `u64` in a map value.
#[inline(always)]
pub unsafe fn fetch_or(target: *mut u64, bits: u64) -> u64 {
    let mut previous = bits;
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        asm!(
            "{1} = atomic_fetch_or((u64 *)({0} + 0), {1})",
            in(reg) target,
            inout(reg) previous,
        );
    }
    previous
}

/// Keeps only `bits` of what `target` points to.
///
/// # Safety
///
/// `target` must point to an aligned `u64` in a map value.
#[inline(always)]
pub unsafe fn and(target: *mut u64, bits: u64) {
    // SAFETY: the caller vouches for the pointer.
    unsafe { asm!("lock *(u64 *)({0} + 0) &= {1}", in(reg) target, in(reg) bits) }
}

/// Writes `new` where `target` points to if `expected` is there, and returns what was there.
///
/// # Safety
///
/// `target` must point to an aligned `u64` in a map value.
#[inline(always)]
pub unsafe fn compare_exchange(target: *mut u64, expected: u64, new: u64) -> u64 {
    let found;
    // The instruction compares with, and returns in, r0.
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({0} + 0, r0, {1})",
            in(reg) target,
            in(reg) new,
            inlateout("r0") expected => found,
        );
    }
    found
}

/// Adds `value` to what `target` points to and returns what was there before.
///
/// # Safety
///
/// `target` must point to an aligned `u64` in a map value.
#[inline(always)]
pub unsafe fn fetch_add(target: *mut u64, value: u64) -> u64 {
    let mut previous = value;
    // SAFETY: the caller vouches for the pointer.
    unsafe {
        asm!(
            "{1} = atomic_fetch_add((u64 *)({0} + 0), {1})",
            in(reg) target,
            inout(reg) previous,
        );
    }
    previous
}
