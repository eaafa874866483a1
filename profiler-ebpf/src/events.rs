//! Sends events about ranges and processes.

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use residue_ebpf::abi::{
    counters::Counter,
    event::{Event, EventKind},
};

use crate::{counters::count, maps::EVENTS};

/// Sends an event. To wake user space costs more than all else here, so only new code does so, which user space must
/// know of soon.
#[inline(always)]
pub fn send(event: &Event) {
    let wakeup = match event.kind == EventKind::CodeMapped as u32 {
        true => BPF_RB_FORCE_WAKEUP,
        false => BPF_RB_NO_WAKEUP,
    };
    if EVENTS.output::<Event>(event, u64::from(wakeup)).is_err() {
        count(Counter::EventBufferFull, 1);
    }
}
