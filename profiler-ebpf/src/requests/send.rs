//! Sends events about windows to user space.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, helpers::generated::bpf_probe_read_user};
use residue_ebpf::abi::{
    counters::Counter,
    http,
    window::{
        HEAD_BYTES, WindowEvent, WindowEventKind, WindowRecord, WindowState, count_under_way,
    },
};

use super::transfer::Data;
use crate::{
    counters::count,
    maps::{PROCESS_WINDOWS, WINDOW_EVENTS},
    state::{connection::Moment, thread::ThreadState},
    verifier::{element, masked},
};

/// The most bytes that are read at once. [`Begun`] bytes have room besides.
const MOST_READ: u64 = HEAD_BYTES as u64 - 8;

/// Bytes that were read before it was known that they begin a head.
#[derive(Clone, Copy, Default)]
pub struct Begun {
    /// At most seven bytes, as a little-endian word.
    pub word: u64,
    /// How many bytes there are.
    pub len: u64,
}

/// The first bytes of a message, in the thread's record, ready to be sent.
#[derive(Clone, Copy, Default)]
pub struct Fragment {
    /// How many bytes the fragment has.
    pub len: u64,
    /// How many bytes of the message were transferred.
    pub transferred: u64,
}

impl Fragment {
    /// Reads the first bytes of a message, at most `room`, and puts them behind the bytes that have `begun`
    /// the message.
    #[inline(always)]
    pub fn read(thread: &mut ThreadState, begun: Begun, data: &Data, room: u64) -> Self {
        let start = masked::<7>(begun.len);
        let room = if room < MOST_READ { room } else { MOST_READ };
        let len = if data.len < room { data.len } else { room };
        let fragment = &mut thread.window_record.fragment;
        let (first, _) = fragment.as_chunks_mut::<8>();
        first[0] = begun.word.to_le_bytes();
        // SAFETY: there is room for `len` bytes, at most 248, behind at most 7 bytes; the helper checks the
        // address that it reads.
        let is_read = unsafe {
            let rest = fragment.as_mut_ptr().add(start as usize);
            let len = masked::<0xff>(len) as u32;
            bpf_probe_read_user(rest.cast(), len, data.address as *const _) == 0
        };
        Self {
            len: if is_read { start + len } else { start },
            transferred: start + data.transferred,
        }
    }

    /// The fragment's first bytes, at most `room`.
    #[inline(always)]
    pub fn within(self, room: u32) -> Self {
        let room = u64::from(room);
        Self {
            len: if self.len < room { self.len } else { room },
            ..self
        }
    }

    /// How much of `room` is left after the fragment was sent. There is no room behind a gap.
    #[inline(always)]
    pub const fn room_behind(self, room: u32) -> u32 {
        if self.len < self.transferred {
            return 0;
        }
        room.saturating_sub(self.len as u32)
    }

    /// Up to eight bytes from `index`, a small number, as a little-endian word, and how many bytes these are.
    #[inline(always)]
    pub fn word_at(self, thread: &ThreadState, index: usize) -> (u64, usize) {
        let [first, second] = first_words(thread);
        let word = match 8 * index {
            0 => first,
            bits => first >> bits | second << (64 - bits),
        };
        let len = (self.len as usize).saturating_sub(index);
        (word, if len < 8 { len } else { 8 })
    }

    /// What the fragment says of the response that begins with it.
    #[inline(always)]
    pub fn status(self, thread: &ThreadState) -> http::Status {
        let [first, second] = first_words(thread);
        http::status(first, second, self.len as usize)
    }

    /// The message's last five bytes, as a little-endian word; zero if these bytes do not lie in one piece.
    /// `data` is the whole message.
    #[inline(always)]
    pub fn last_five(self, thread: &mut ThreadState, data: &Data) -> u64 {
        let mut word = 0_u64;
        if self.len == data.transferred && self.len >= 5 {
            let fragment = &mut thread.window_record.fragment;
            for index in 1..=5 {
                let byte = *element(fragment, (self.len - index) as usize);
                word = word << 8 | u64::from(byte);
            }
            return word;
        }
        // Without an address there is no read, because a read at zero costs a page fault.
        if let Some(last) = data.last(5) {
            // SAFETY: the helper checks the address.
            unsafe { bpf_probe_read_user((&raw mut word).cast(), 5, last as *const _) };
        }
        word
    }
}

/// The first 16 bytes of the thread's fragment as little-endian words. Bytes behind the fragment's end mean nothing.
#[inline(always)]
fn first_words(thread: &ThreadState) -> [u64; 2] {
    let (words, _) = thread.window_record.fragment.as_chunks::<8>();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

/// Sends the present state of a window, with a fragment of a head.
#[inline(always)]
pub fn send(
    thread: &mut ThreadState,
    kind: WindowEventKind,
    window: &WindowState,
    now: Moment,
    fragment: Fragment,
) {
    let WindowRecord { event, .. } = &mut thread.window_record;
    event.kind = kind as u32;
    event.window = window.id();
    event.state = *window;
    event.at_ns = now.ns;
    // Before the window closes, user space does not ask for the resident set.
    event.rss = match kind {
        WindowEventKind::Closed => now.rss,
        _ => 0,
    };
    if let Some(process) = PROCESS_WINDOWS.get(window.process) {
        event.unbound_open = process.unbound_open;
        event.unbound_opened = process.unbound_opened;
        event.ambiguous = process.ambiguous;
        event.under_way = count_under_way(process.under_way);
        event.opened = process.opened;
        event.escaped = process.escaped;
    }
    event.transferred = fragment.transferred;
    event.fragment_len = fragment.len;
    output(&thread.window_record);
}

/// Sends a record, with as many bytes of the fragment as there are.
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
