//! Counts what was lost or is worth knowing.

use residue_ebpf::abi::counters::Counter;

use crate::{atomic, maps::COUNTERS};

/// Adds to a counter.
#[inline(always)]
pub fn count(counter: Counter, amount: u64) {
    count_number(counter as u32, amount);
}

/// Adds to a counter that the caller knows by its number.
#[inline(always)]
pub fn count_number(counter: u32, amount: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: the pointer leads to this CPU's own value. A task that preempts this one may add to the value
        // meanwhile, so the addition is atomic.
        unsafe { atomic::add(value, amount) };
    }
}
