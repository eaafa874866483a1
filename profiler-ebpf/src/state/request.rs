//! What ties a thread, a context of Python's or an item of a queue to the window of a request.

use residue_ebpf::abi::window::AMBIGUOUS;

/// One stay of a thread in a context of `contextvars`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// The thread's `PyThreadState`, AVMA.
    pub state: u64,
    /// The context, AVMA; zero if the thread is in no context.
    pub context: u64,
    /// How often the thread has entered or left a context so far. The number tells one entry of a context from all
    /// others.
    pub switches: u64,
}

/// Whom a context belongs to.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Owner {
    /// The number of a window or of a task, which may be over; zero if the context belongs to neither.
    pub window: u32,
    /// Not zero if the context is a task's.
    pub is_task: u32,
}

/// A stay of a thread in a context, and for which window the thread works meanwhile.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Stay {
    /// The stay.
    pub entry: Entry,
    /// The number of the window or of the task; zero if there is neither.
    pub window: u32,
    /// Not zero if the other fields mean anything.
    pub known: u32,
}

impl Stay {
    /// Whether there was a stay.
    #[inline(always)]
    pub const fn is_known(&self) -> bool {
        self.known != 0
    }
}

/// The owner of an item that several threads have put in which do not work for the same window. No task has this
/// number.
pub const CONTESTED: u32 = AMBIGUOUS;

/// The owner of an item that a thread has put in for work of the thread's own. No task has this number, either.
pub const NOBODYS: u32 = AMBIGUOUS - 1;

/// An object that is in queues.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Queued {
    /// The window or task of the thread that put the object in, zero if that is not known; [`NOBODYS`] or
    /// [`CONTESTED`].
    pub owner: u32,
    /// How many places in queues hold the object.
    pub times: u32,
}

/// An object that a thread has taken out of a queue.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Item {
    /// The window or task of the thread that put the object in; zero if that is not known; [`NOBODYS`] or
    /// [`CONTESTED`].
    pub owner: u32,
    /// Not zero if it is known who put the object in.
    pub is_known: u32,
}

impl Item {
    /// Whether the item may belong to one of several windows.
    #[inline(always)]
    pub const fn is_contested(&self) -> bool {
        self.owner == CONTESTED
    }
}

/// The `sp` of a [`WindowCall`] that has nothing to do with the stack.
pub const ANYWHERE: u64 = u64::MAX;

/// The window that a thread's own code has open.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WindowCall {
    /// The stack pointer at entry, where the return address lies, AVMA. [`ANYWHERE`] between static probes; zero
    /// when no window is open.
    pub sp: u64,
    /// The return address as it was at entry, AVMA.
    pub caller: u64,
    /// The window.
    pub window: u32,
    /// The window that the thread was bound to before.
    pub outer: u32,
    /// Not zero if the kernel has put its trampoline in the place of the return address.
    pub has_return_probe: u64,
}

/// A thread's read or write through TLS that is under way.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TlsCall {
    /// The stack pointer at entry, AVMA; zero when no call is under way.
    pub sp: u64,
    /// The `SSL`, AVMA.
    pub ssl: u64,
    /// The data, AVMA.
    pub data: u64,
    /// Where the function writes how many bytes it has transferred, AVMA; zero if the function returns the number.
    pub count: u64,
    /// Whether the thread has read a socket during the call, and how: zero, [`READ_AT_ONCE`] or [`READ_BLOCKING`].
    pub read: u64,
}

/// The thread has read a socket that does not block.
pub const READ_AT_ONCE: u64 = 1;
/// The thread has read a socket that blocks.
pub const READ_BLOCKING: u64 = 2;
