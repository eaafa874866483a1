//! A socket or a TLS connection on which a process reads requests.

use residue_ebpf::abi::window::CONNECTION_WORDS;

/// A point in a process's life.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Moment {
    /// Nanoseconds of the monotonic clock.
    pub ns: u64,
    /// The resident set, bytes; zero if the kernel does not say.
    pub rss: u64,
}

/// A connection on which a process has read a request, or the first bytes of one.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Connection {
    /// The `struct file` of the socket. The descriptor alone does not name a socket: another socket may get the
    /// same descriptor later. For TLS, the address of the `SSL`.
    pub file: u64,
    /// Bytes that may begin a head, as a little-endian word.
    pub begun: u64,
    /// When the process read the first byte of `begun`.
    pub begun_at: Moment,
    /// How many bytes `begun` has; fewer than eight.
    pub begun_len: u32,
    /// The last window.
    pub window: u32,
    /// How many more bytes of the request's head may be sent to user space.
    pub request_room: u32,
    /// How many more bytes of the response's head may be sent to user space.
    pub response_room: u32,
    /// Not zero if a read of the socket waits for data.
    pub blocks: u32,
    /// Not zero once the connection speaks another protocol: nothing that the process reads then begins a request.
    pub upgraded: u32,
}

const _: () = assert!(size_of::<Connection>() == CONNECTION_WORDS * size_of::<u64>());

impl Connection {
    /// Makes the connection of this `struct file`, of which nothing else is known.
    #[inline(always)]
    pub fn on(file: u64) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }

    /// Returns what is known of the connection of this `struct file`: nothing, if the entry was another file's.
    #[inline(always)]
    pub fn now_on(&'static mut self, file: u64) -> &'static mut Self {
        if self.file != file {
            *self = Self::on(file);
        }
        self
    }

    /// Whether the last read of the socket would have waited for data.
    #[inline(always)]
    pub const fn blocks(&self) -> bool {
        self.blocks != 0
    }
}
