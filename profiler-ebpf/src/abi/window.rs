//! Request windows: what the kernel side keeps of them, and what it sends.

use super::heap::{ADDRESS_BITS, live_key};

/// How many windows are kept at a time, a power of two: those of a second or more at any rate that a
/// server reaches. An older one's place is taken when it is closed.
pub const WINDOWS: u32 = 65_536;

/// The window of an allocation that was made while no request was worked on.
pub const BACKGROUND: u32 = 0;
/// The window of an allocation that may belong to one of several windows, or to none.
pub const AMBIGUOUS: u32 = u32::MAX;

/// Set in the number that stands for a task instead of a window, while it is not known which one the task
/// works for.
pub const TASK: u32 = 1 << 31;
/// How many such tasks are kept at a time, a power of two: the latest.
pub const TASKS: u32 = 65_536;

/// Most bytes of one head that are sent.
pub const HEAD_BYTES: usize = 256;

/// Where a window is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum WindowStage {
    /// It is over.
    Closed,
    /// The request's head has begun to arrive.
    Open,
    /// The response has begun to be sent.
    Responding,
    /// The connection is closed, or has the next request; the thread or the tasks that are bound to it have
    /// not turned to something else yet.
    Finished,
}

impl WindowStage {
    /// From its number, if there is such a stage.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits {
            0 => Self::Closed,
            1 => Self::Open,
            2 => Self::Responding,
            3 => Self::Finished,
            _ => return None,
        })
    }
}

/// Allocations and what of them was released since, by anyone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Amounts {
    /// Bytes allocated.
    pub alloc_bytes: u64,
    /// Allocations.
    pub alloc_objects: u64,
    /// Bytes of those that were released.
    pub freed_bytes: u64,
    /// How many were released.
    pub freed_objects: u64,
}

/// A thread was bound to the window at first, but another one works on it: its allocations are not the
/// window's alone.
pub const WINDOW_HANDED_OVER: u64 = 1 << 32;
/// The peer was gone.
pub const WINDOW_RESET: u64 = 2 << 32;
/// The last bytes sent may be the end of a chunked body.
pub const WINDOW_CHUNKS_ENDED: u64 = 8 << 32;
/// The last fragment of a response began with a status line though a response was under way: it answers
/// a request that arrived together with the one before.
pub const WINDOW_NEXT_RESPONSE: u64 = 4 << 32;

/// Tasks of an event loop were bound to the window.
pub const WINDOW_HAS_TASKS: u64 = 16 << 32;
/// So were tasks that those have made.
pub const WINDOW_TASKS_INHERITED: u64 = 32 << 32;

/// The window is closed: no thread is bound to it or taken from it any more, and whether it counts in
/// [`ProcessWindows::unbound_open`] is settled by who has set this.
pub const WINDOW_IS_OVER: u64 = 64 << 32;

/// A window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WindowState {
    /// Its number, which is never zero, and its [`WindowStage`] in the upper half: in one word, so that
    /// whoever closes it is the only one.
    pub id_and_stage: u64,
    /// The process slot.
    pub process: u32,
    /// The thread that opened it.
    pub tid: u32,
    /// The thread that is bound to it, zero if there is none, and `WINDOW_…` bits in the upper half.
    pub bound_and_flags: u64,
    /// When the first byte of the head was read, nanoseconds of the monotonic clock.
    pub opened_ns: u64,
    /// When the last bytes of the response were sent; zero before the first.
    pub responded_ns: u64,
    /// Bytes sent on its connection.
    pub sent_bytes: u64,
    /// Resident set of the process when it opened, bytes.
    pub rss_open: u64,
    /// The same when the last bytes were sent.
    pub rss_responded: u64,
    /// Its allocations.
    pub amounts: Amounts,
    /// Tasks that work for it and have not ended.
    pub tasks: u64,
    /// One more than the index of the function that makes such windows; zero for a request on a socket.
    pub source: u32,
    /// How many requests of the process had opened before, modulo 2^32; zero for any other window.
    pub number: u32,
    /// How many of its allocations were made by threads that are bound to nothing, while no other window was
    /// under way.
    pub others: u64,
    /// The context of the task that has answered the request and was there before the request, AVMA; zero if
    /// there is none.
    pub answerer: u64,
}

impl WindowState {
    /// Its number.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id_and_stage as u32
    }

    /// A [`WindowStage`].
    #[must_use]
    pub const fn stage(&self) -> u32 {
        (self.id_and_stage >> 32) as u32
    }

    /// The thread that is bound to it; zero if there is none.
    #[must_use]
    pub const fn bound(&self) -> u32 {
        self.bound_and_flags as u32
    }

    /// Whether some `WINDOW_…` bits are set.
    #[must_use]
    pub const fn has(&self, flags: u64) -> bool {
        self.bound_and_flags & flags != 0
    }
}

/// A window's number and stage in one word.
#[must_use]
pub const fn id_and_stage(id: u32, stage: WindowStage) -> u64 {
    (stage as u64) << 32 | id as u64
}

/// A task that was bound to no window when it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TaskState {
    /// Its number, which has [`TASK`].
    pub id: u32,
    /// The window that it works for; zero while that is not known.
    pub window: u32,
    /// The number of the task that follows: behind each task are those that it has made, the last first,
    /// each with its own behind it.
    pub next: u32,
    /// How many tasks led to this one.
    pub depth: u32,
    /// The process slot.
    pub process: u32,
    /// How many windows of the process had opened when it was told apart, modulo 2^32.
    pub opened: u32,
    /// Not zero if the task had been there before it was told apart.
    pub is_older: u32,
    /// The number of the task that has made it; zero if there is none.
    pub parent: u32,
    /// Its allocations, while its window is not known.
    pub amounts: Amounts,
}

/// The process reads requests of HTTP/2.
pub const SPEAKS_HTTP2: u64 = 1;
/// The process reads TLS.
pub const SPEAKS_TLS: u64 = 2;

/// What the windows of a process have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessWindows {
    /// Windows that are open and that no thread is bound to. While there is one, what an unbound
    /// thread allocates is ambiguous.
    pub unbound_open: u64,
    /// All windows so far that no thread was bound to at some time.
    pub unbound_opened: u64,
    /// Allocations of [`BACKGROUND`].
    pub background: Amounts,
    /// Allocations of [`AMBIGUOUS`].
    pub ambiguous: Amounts,
    /// `SPEAKS_…` bits.
    pub speaks: u64,
    /// The requests that are under way: the sum of their [`under_way`] words.
    pub under_way: u64,
    /// All requests so far.
    pub opened: u64,
    /// Allocations so far of threads that worked for some window, and nobody knows for which.
    pub escaped: u64,
    /// Not zero if the process has an io_uring: the requests that it reads through it are not seen.
    pub has_ring: u64,
    /// Zero. Fills two cache lines.
    pub reserved: u64,
}

impl ProcessWindows {
    /// Whether the process may have read requests that have no windows. That a window is alone under way then
    /// does not tell whose an allocation is. (TLS tells nothing: whoever asks a server by TLS reads it as well.)
    #[must_use]
    pub const fn may_miss_requests(&self) -> bool {
        self.has_ring != 0 || self.speaks & SPEAKS_HTTP2 != 0
    }
}

/// From this bit on, a sum of [`under_way`] words has how many they are; below, the sum of their numbers: at most
/// 2^16 windows are open, and each number is below 2^31.
const COUNT_BIT: u32 = 47;

/// A request's window that is under way, that is, from the head's first byte until its connection is closed or has the
/// next request, in [`ProcessWindows::under_way`]. One word, so that both parts change at once.
#[must_use]
pub const fn under_way(window: u32) -> u64 {
    1 << COUNT_BIT | window as u64
}

/// How many windows are under way.
#[must_use]
pub const fn count_under_way(sum: u64) -> u64 {
    sum >> COUNT_BIT
}

/// The number of the window that alone is under way; zero if there is none, or another one.
#[must_use]
pub const fn alone_under_way(sum: u64) -> u32 {
    match count_under_way(sum) {
        1 => sum as u32,
        _ => 0,
    }
}

/// Marks the key of a connection of TLS: process ids end far below, and so do slots.
const TLS: u64 = 1 << 63;

/// The key of a connection of TLS by the process slot and the address of its `SSL`.
#[must_use]
pub const fn tls_key(process: u16, ssl: u64) -> u64 {
    TLS | live_key(process, ssl)
}

/// The process slot of a connection's key; none if it is that of a socket, which begins with the process's id.
#[must_use]
pub const fn tls_slot(key: u64) -> Option<u16> {
    if key & TLS == 0 {
        return None;
    }
    Some(((key & !TLS) >> ADDRESS_BITS) as u16)
}

/// Words of what the kernel side keeps of a connection.
pub const CONNECTION_WORDS: usize = 7;

/// What happened to a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WindowEventKind {
    /// It opened; a fragment of the request's head.
    Opened,
    /// A further fragment of it.
    Request,
    /// A fragment of the response's head.
    Response,
    /// It closed.
    Closed,
}

impl WindowEventKind {
    /// From its number, if there is such a kind.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits {
            0 => Self::Opened,
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Closed,
            _ => return None,
        })
    }
}

/// See [`WindowEventKind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WindowEvent {
    /// A [`WindowEventKind`].
    pub kind: u32,
    /// The window.
    pub window: u32,
    /// The window as it is now.
    pub state: WindowState,
    /// When, nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// Resident set of the process when the window closed, bytes; zero before, and if it is not known.
    pub rss: u64,
    /// [`ProcessWindows::unbound_open`] now, itself included.
    pub unbound_open: u64,
    /// [`ProcessWindows::unbound_opened`] now.
    pub unbound_opened: u64,
    /// [`ProcessWindows::ambiguous`] now.
    pub ambiguous: Amounts,
    /// How many requests are under way now, itself included.
    pub under_way: u64,
    /// [`ProcessWindows::opened`] now.
    pub opened: u64,
    /// [`ProcessWindows::escaped`] now.
    pub escaped: u64,
    /// Bytes that were read or sent, of which the fragment has the first.
    pub transferred: u64,
    /// Bytes of the fragment; at most [`HEAD_BYTES`].
    pub fragment_len: u64,
}

/// An event with its fragment, of which no more is sent than there is.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WindowRecord {
    /// What happened.
    pub event: WindowEvent,
    /// The fragment.
    pub fragment: [u8; HEAD_BYTES],
}

/// Where the kernel keeps what windows need: offsets of fields, bytes, from the kernel's BTF. All zero
/// where it does not say; there are no windows then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketOffsets {
    /// `task_struct.files`
    pub files: u32,
    /// `files_struct.fdt`
    pub fdt: u32,
    /// `fdtable.fd`
    pub fd: u32,
    /// `file.f_flags`
    pub f_flags: u32,
    /// `file.f_inode`
    pub f_inode: u32,
    /// `inode.i_mode`
    pub i_mode: u32,
    /// `inode.i_sb`
    pub i_sb: u32,
    /// `super_block.s_magic`
    pub s_magic: u32,
    /// `task_struct.mm`
    pub mm: u32,
    /// The first of the counters of resident pages in `mm_struct.rss_stat`; zero if not known.
    pub rss: u32,
    /// From one counter to the next.
    pub rss_stride: u32,
    /// `task_struct.nvcsw`
    pub nvcsw: u32,
    /// `task_struct.start_time`
    pub start_time: u32,
}

const _: () = {
    assert!(size_of::<Amounts>() == 32);
    assert!(size_of::<WindowState>() == 128);
    assert!(size_of::<TaskState>() == 64);
    assert!(TASKS.is_power_of_two());
    assert!(size_of::<ProcessWindows>() == 128);
    assert!(size_of::<SocketOffsets>() == 52);
    assert!(size_of::<WindowEvent>() == 240);
    assert!(size_of::<WindowRecord>() == 240 + HEAD_BYTES);
    assert!(WINDOWS.is_power_of_two());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_that_is_left_alone_is_known() {
        let (first, last) = (1, TASK - 1);
        let mut sum = under_way(last);
        assert_eq!((count_under_way(sum), alone_under_way(sum)), (1, last));
        sum += under_way(first);
        assert_eq!((count_under_way(sum), alone_under_way(sum)), (2, 0));
        sum -= under_way(last);
        assert_eq!((count_under_way(sum), alone_under_way(sum)), (1, first));
        assert_eq!(alone_under_way(sum - under_way(first)), 0);
    }

    #[test]
    fn connections_of_tls_are_told_from_sockets() {
        assert_eq!(tls_slot(tls_key(1023, 0x7fff_ffff_f000)), Some(1023));
        assert_eq!(tls_slot(tls_key(0, u64::MAX)), Some(0));
        let socket = 4_194_304 << 32 | 7;
        assert_eq!(tls_slot(socket), None);
    }

    #[test]
    fn as_many_windows_as_there_are_can_be_under_way() {
        let most = u64::from(WINDOWS);
        let sum = most * under_way(TASK - 1);
        assert_eq!(count_under_way(sum), most);
    }
}
