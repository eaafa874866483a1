//! Request windows: the data that the kernel side keeps of a window, and the records that it sends.

use super::heap::{ADDRESS_BITS, live_key};

/// How many windows are kept at a time, a power of two. At any rate that a server reaches, these are the
/// windows of a second or more. A new window takes the place of an older one that is closed.
pub const WINDOWS: u32 = 65_536;

/// The window of an allocation that was made while nobody worked on a request.
pub const BACKGROUND: u32 = 0;
/// The window of an allocation that may belong to one of several windows, or to none.
pub const AMBIGUOUS: u32 = u32::MAX;

/// Set in the number of a task, which stands for a window while it is not known which window the task works for.
pub const TASK: u32 = 1 << 31;
/// How many such tasks, the latest ones, are kept at a time. A power of two.
pub const TASKS: u32 = 65_536;

/// How many bytes of one head are sent, at most.
pub const HEAD_BYTES: usize = 256;

/// The stages of a window's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum WindowStage {
    /// The window is over.
    Closed,
    /// The request's head has begun to arrive.
    Open,
    /// The process has begun to send the response.
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

/// Allocations, and how many of them were released since, by any code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Amounts {
    /// Bytes allocated.
    pub alloc_bytes: u64,
    /// Allocations.
    pub alloc_objects: u64,
    /// Bytes of the allocations that were released.
    pub freed_bytes: u64,
    /// How many of the allocations were released.
    pub freed_objects: u64,
}

/// A thread was bound to the window at first, but another thread works on the window, whose allocations are not the
/// window's alone.
pub const WINDOW_HANDED_OVER: u64 = 1 << 32;
/// The peer was gone when the process read or sent on the connection.
pub const WINDOW_RESET: u64 = 2 << 32;
/// The last bytes sent may be the end of a chunked body.
pub const WINDOW_CHUNKS_ENDED: u64 = 8 << 32;
/// The last fragment of a response began with a status line though a response was under way. The fragment
/// answers a request that arrived together with the one before.
pub const WINDOW_NEXT_RESPONSE: u64 = 4 << 32;

/// Tasks of an event loop were bound to the window.
pub const WINDOW_HAS_TASKS: u64 = 16 << 32;
/// Tasks that those tasks have made were bound to the window as well.
pub const WINDOW_TASKS_INHERITED: u64 = 32 << 32;

/// The window is closed. No thread is bound to the window or taken from it any more. The thread that has set
/// this bit settles whether the window counts in [`ProcessWindows::unbound_open`].
pub const WINDOW_IS_OVER: u64 = 64 << 32;

/// A window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WindowState {
    /// The window's number, which is never zero, and in the upper half its [`WindowStage`]. Both are in one
    /// word, so that only one thread closes the window.
    pub id_and_stage: u64,
    /// The process slot.
    pub process: u32,
    /// The thread that opened the window.
    pub tid: u32,
    /// The thread that is bound to the window, zero if there is none, and in the upper half `WINDOW_…` bits.
    pub bound_and_flags: u64,
    /// When the process read the first byte of the head, nanoseconds of the monotonic clock.
    pub opened_ns: u64,
    /// When the process last sent bytes of the response; zero before the first ones.
    pub responded_ns: u64,
    /// Bytes sent on the window's connection.
    pub sent_bytes: u64,
    /// The resident set of the process when the window opened, bytes.
    pub rss_open: u64,
    /// The resident set of the process when it last sent bytes of the response, bytes.
    pub rss_responded: u64,
    /// The window's allocations.
    pub amounts: Amounts,
    /// How many tasks work for the window and have not ended.
    pub tasks: u64,
    /// One more than the index of the function that makes such windows; zero for a request on a connection.
    pub source: u32,
    /// How many requests of the process had opened before, modulo 2^32; zero for any other window.
    pub number: u32,
    /// How many of the window's allocations come from threads that were bound to nothing, while no other
    /// window was under way.
    pub others: u64,
    /// The context of the task that has answered the request and was there before the request, AVMA; zero if
    /// there is none.
    pub answerer: u64,
}

impl WindowState {
    /// The window's number.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id_and_stage as u32
    }

    /// The window's [`WindowStage`].
    #[must_use]
    pub const fn stage(&self) -> u32 {
        (self.id_and_stage >> 32) as u32
    }

    /// The thread that is bound to the window; zero if there is none.
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

/// A task whose window was not known when the task began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TaskState {
    /// The task's number, which has [`TASK`].
    pub id: u32,
    /// The window that the task works for; zero while that is not known.
    pub window: u32,
    /// The number of the task that follows. Behind each task are the tasks that it has made, the last one
    /// first, and each of them has its own tasks behind it.
    pub next: u32,
    /// How many tasks led to this one.
    pub depth: u32,
    /// The process slot.
    pub process: u32,
    /// How many windows of the process had opened when the task got its number, modulo 2^32.
    pub opened: u32,
    /// Not zero if the task had been there before it got its number.
    pub is_older: u32,
    /// The number of the task that has made this task; zero if there is none.
    pub parent: u32,
    /// The task's allocations, while its window is not known.
    pub amounts: Amounts,
}

/// The process reads requests of HTTP/2.
pub const SPEAKS_HTTP2: u64 = 1;
/// The process reads TLS.
pub const SPEAKS_TLS: u64 = 2;

/// The counts that the windows of a process have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessWindows {
    /// How many open windows have no thread that is bound to them. While there is such a window, an
    /// allocation of an unbound thread is ambiguous.
    pub unbound_open: u64,
    /// How many windows so far had no thread that was bound to them, at some time.
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
    /// How many allocations so far come from threads that worked for a window of which nobody knows which one it is.
    pub escaped: u64,
    /// Not zero if the process has an io_uring, through which it may read requests that no program sees.
    pub has_ring: u64,
    /// Zero. Fills two cache lines.
    pub reserved: u64,
}

impl ProcessWindows {
    /// Whether the process may have read requests that have no windows. If so, an allocation need not belong
    /// to the only window under way. (TLS says nothing about this, because every client of a server that
    /// speaks TLS reads TLS, too.)
    #[must_use]
    pub const fn may_miss_requests(&self) -> bool {
        self.has_ring != 0 || self.speaks & SPEAKS_HTTP2 != 0
    }
}

/// The bits of a sum of [`under_way`] words from this one on are the count of the words; the bits below are
/// the sum of their windows' numbers. There is room for both, because at most 2^16 windows are open, and each
/// number is below 2^31.
const COUNT_BIT: u32 = 47;

/// The word that a request's window adds to [`ProcessWindows::under_way`] while the window is under way: from
/// the head's first byte until its connection is closed or has the next request. One word has both parts, so
/// that both change at once.
#[must_use]
pub const fn under_way(window: u32) -> u64 {
    1 << COUNT_BIT | window as u64
}

/// How many windows are under way.
#[must_use]
pub const fn count_under_way(sum: u64) -> u64 {
    sum >> COUNT_BIT
}

/// The number of the only window under way; zero if none is under way, or several are.
#[must_use]
pub const fn alone_under_way(sum: u64) -> u32 {
    match count_under_way(sum) {
        1 => sum as u32,
        _ => 0,
    }
}

/// Marks the key of a connection of TLS. Process ids end far below this bit, and so do slots.
const TLS: u64 = 1 << 63;

/// The key of a connection of TLS by the process slot and the address of its `SSL`.
#[must_use]
pub const fn tls_key(process: u16, ssl: u64) -> u64 {
    TLS | live_key(process, ssl)
}

/// The process slot of a connection's key; none if the key is a socket's, which begins with the process's id.
#[must_use]
pub const fn tls_slot(key: u64) -> Option<u16> {
    if key & TLS == 0 {
        return None;
    }
    Some(((key & !TLS) >> ADDRESS_BITS) as u16)
}

/// How many words the kernel side keeps of a connection.
pub const CONNECTION_WORDS: usize = 7;

/// The kinds of events that a window has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WindowEventKind {
    /// The window opened. The fragment begins the request's head.
    Opened,
    /// The fragment goes on with the request's head.
    Request,
    /// The fragment is one of the response's head.
    Response,
    /// The window closed.
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

/// An event of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WindowEvent {
    /// A [`WindowEventKind`].
    pub kind: u32,
    /// The window.
    pub window: u32,
    /// The state of the window now.
    pub state: WindowState,
    /// When the event happened, nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// Resident set of the process when the window closed, bytes; zero before, and if it is not known.
    pub rss: u64,
    /// [`ProcessWindows::unbound_open`] now, with this window.
    pub unbound_open: u64,
    /// [`ProcessWindows::unbound_opened`] now.
    pub unbound_opened: u64,
    /// [`ProcessWindows::ambiguous`] now.
    pub ambiguous: Amounts,
    /// How many requests are under way now, with this one.
    pub under_way: u64,
    /// [`ProcessWindows::opened`] now.
    pub opened: u64,
    /// [`ProcessWindows::escaped`] now.
    pub escaped: u64,
    /// How many bytes were read or sent. The fragment has the first of them.
    pub transferred: u64,
    /// How many bytes the fragment has; at most [`HEAD_BYTES`].
    pub fragment_len: u64,
}

/// An event with its fragment. Only the bytes that the fragment has are sent.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WindowRecord {
    /// The event.
    pub event: WindowEvent,
    /// The fragment.
    pub fragment: [u8; HEAD_BYTES],
}

/// The offsets of the fields that windows need of the kernel's structures, bytes, from the kernel's BTF. All
/// are zero if the kernel does not say; there are no windows then.
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
    /// The first of the counters of resident pages in `mm_struct.rss_stat`; zero if the place is not known.
    pub rss: u32,
    /// The distance from one counter to the next.
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
