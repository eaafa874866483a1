//! Single words of the kernel's memory and of the target's.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_probe_read_user, generated::bpf_probe_read_kernel};

/// Reads a word of the target; zero if the word cannot be read.
#[inline(always)]
pub fn read_word(avma: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(avma as *const u64) }.unwrap_or(0)
}

/// Reads a word of the kernel; zero if the word cannot be read. The helper itself clears what it cannot
/// read. A branch on the helper's result would double the verifier's paths at each step of a loop.
#[inline(always)]
pub fn read_kernel(base: u64, offset: u32) -> u64 {
    let mut word = 0_u64;
    let address = base.wrapping_add(u64::from(offset)) as *const c_void;
    // SAFETY: the helper checks the address, and writes as many bytes as a word has.
    unsafe { bpf_probe_read_kernel((&raw mut word).cast(), size_of::<u64>() as u32, address) };
    word
}

/// Loads a word of a kernel structure whose type the verifier knows, at an offset that the verifier knows
/// as well: a plain load, which yields zero where nothing can be read.
#[inline(always)]
pub(super) fn load(base: u64, offset: u32) -> u64 {
    let address = base.wrapping_add(u64::from(offset)) as *const u64;
    // SAFETY: the verifier refuses any program whose base or offset is not as described above.
    unsafe { address.read_volatile() }
}
