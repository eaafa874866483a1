//! What is sent of a window.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_user},
};
use residue_ebpf::abi::{
    counters::Counter,
    window::{HEAD_BYTES, WindowEvent, WindowEventKind, WindowRecord, WindowState},
};

use super::{socket, transfer::Data};
use crate::{
    count,
    maps::{PROCESS_WINDOWS, WINDOW_EVENTS},
    thread::ThreadState,
    verifier::masked,
};

/// Bytes that were read before it was known that they begin a head.
#[derive(Clone, Copy, Default)]
pub struct Begun {
    /// At most eight, as a little-endian word.
    pub word: u64,
    /// How many.
    pub len: u64,
}

/// Sends what a window is now, with a fragment of a head, of which it may send `room` bytes. Returns how
/// many it has sent.
#[inline(always)]
pub fn send(
    thread: &mut ThreadState,
    kind: WindowEventKind,
    window: &WindowState,
    begun: Begun,
    data: Data,
    room: u64,
) -> u64 {
    let WindowRecord { event, fragment } = &mut thread.window_record;
    event.kind = kind as u32;
    event.window = window.id();
    event.state = *window;
    // SAFETY: a plain helper call.
    event.at_ns = unsafe { bpf_ktime_get_ns() };
    // Before, nobody asks for it.
    event.rss = match kind {
        WindowEventKind::Closed => socket::resident_set(),
        _ => 0,
    };
    if let Some(process) = PROCESS_WINDOWS.get(window.process) {
        event.unbound_open = process.unbound_open;
        event.unbound_opened = process.unbound_opened;
        event.ambiguous = process.ambiguous;
    }
    event.transferred = data.transferred + begun.len;
    event.fragment_len = fill(fragment, begun, data, room);
    output(&thread.window_record);
    thread.window_record.event.fragment_len
}

#[inline(always)]
fn fill(fragment: &mut [u8; HEAD_BYTES], begun: Begun, data: Data, room: u64) -> u64 {
    let start = begun.len & 7;
    let [first, ..] = fragment.as_chunks_mut::<8>().0 else {
        return 0;
    };
    *first = begun.word.to_le_bytes();
    let room = if room < HEAD_BYTES as u64 - 8 {
        room
    } else {
        HEAD_BYTES as u64 - 8
    };
    let len = if data.len < room { data.len } else { room };
    let Some(rest) = fragment.get_mut(start as usize..) else {
        return 0;
    };
    // SAFETY: the helper checks the address, and there is room for `len` bytes: at most 248, behind at
    // most 7.
    let read = unsafe {
        bpf_probe_read_user(
            rest.as_mut_ptr().cast(),
            masked::<0xff>(len) as u32,
            data.address as *const _,
        )
    };
    if read == 0 { start + len } else { start }
}

#[inline(always)]
fn output(record: &WindowRecord) {
    let len = record.event.fragment_len;
    let len = if len < HEAD_BYTES as u64 {
        len
    } else {
        HEAD_BYTES as u64
    };
    let bytes = masked::<0x1ff>(size_of::<WindowEvent>() as u64 + len) as usize;
    // SAFETY: `bytes` is at most the size of a WindowRecord.
    let bytes = unsafe { core::slice::from_raw_parts((&raw const *record).cast::<u8>(), bytes) };
    if WINDOW_EVENTS
        .output::<[u8]>(bytes, u64::from(BPF_RB_NO_WAKEUP))
        .is_err()
    {
        count(Counter::WindowEventsLost, 1);
    }
}
