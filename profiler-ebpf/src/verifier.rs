//! What the verifier must be shown because the compiler knows it already.

use core::arch::asm;

/// `array[index % N]`, for `N` a power of two, with the mask as an instruction that the compiler
/// cannot optimize away. It may have proven the index to be in bounds, and so drop the very mask
/// by which the verifier, which reasons about less, would see it.
#[inline(always)]
pub fn element<T, const N: usize>(array: &mut [T; N], index: usize) -> &mut T {
    const { assert!(N.is_power_of_two()) };
    let mut index = index;
    // SAFETY: arithmetic on one register.
    unsafe { asm!("{0} &= {1}", inout(reg) index, const N - 1) };
    // SAFETY: masked to below N.
    unsafe { array.get_unchecked_mut(index) }
}

/// `value & MASK`, as an instruction that the compiler cannot optimize away either. The kernel forgets what
/// it knew of a number that was put on the stack meanwhile (6.1).
#[inline(always)]
pub fn masked<const MASK: u64>(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: arithmetic on one register.
    unsafe { asm!("{0} &= {1}", inout(reg) value, const MASK) };
    value
}
