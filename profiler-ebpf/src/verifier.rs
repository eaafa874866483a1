//! Bounds that the compiler knows already and that the verifier has to be shown.

use core::arch::asm;

/// `array[index % N]`, for `N` a power of two, with the mask as an instruction that the compiler cannot
/// optimize away. The compiler may have proven that the index is in bounds, and would drop the mask then. The
/// verifier reasons about less and needs the mask.
#[inline(always)]
pub fn element<T, const N: usize>(array: &mut [T; N], index: usize) -> &mut T {
    const { assert!(N.is_power_of_two()) };
    let mut index = index;
    // SAFETY: arithmetic on one register.
    unsafe { asm!("{0} &= {1}", inout(reg) index, const N - 1) };
    // SAFETY: masked to below N.
    unsafe { array.get_unchecked_mut(index) }
}

/// `value & MASK`, as an instruction that the compiler cannot optimize away either. The verifier of Linux 6.1
/// forgets what it knew of a number that the program has put on the stack meanwhile.
#[inline(always)]
pub fn masked<const MASK: u64>(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: arithmetic on one register.
    unsafe { asm!("{0} &= {1}", inout(reg) value, const MASK) };
    value
}
