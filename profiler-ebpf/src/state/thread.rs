//! What the kernel side remembers of a thread between two probe hits, and the thread's scratch space.
//!
//! Scratch space belongs to a thread and never to a CPU, because uprobe programs can be preempted.

use residue_ebpf::abi::{event::StackEvent, heap::LiveAllocation, window::WindowRecord};

use super::{
    request::{Item, Stay, TlsCall, WindowCall},
    walk::{Registers, Walk},
};

/// How many allocator calls may be open in a thread at once. Allocator functions call each other two or three deep,
/// and a longjmp may leave further calls behind. A power of two.
pub const MAX_OPEN_CALLS: usize = 8;

/// An allocator call between its entry and its return.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct OpenCall {
    /// The stack pointer at entry, where the return address lies, AVMA.
    pub sp: u64,
    /// Requested bytes.
    pub size: u64,
    /// The old block of a reallocation, or the out-pointer of posix_memalign, AVMA.
    pub pointer: u64,
    /// The old block's entry, which the probe at entry has taken out of the live set until the call returns: as soon
    /// as the allocator has freed the block, the allocator may give the block's address to another thread.
    pub held: LiveAllocation,
    /// Function index.
    pub function: u32,
    /// `CALL_…` bits.
    pub flags: u32,
}

/// The call is the outermost one, so the call's result counts.
pub const CALL_COUNTS: u32 = 1;
/// `held` is in use.
pub const CALL_HOLDS: u32 = 2;

/// A memory-mapping syscall between its entry and its exit.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct OpenSyscall {
    /// Address argument, AVMA.
    pub address: u64,
    /// Length of the new range, bytes.
    pub length: u64,
    /// mmap's protection and flags: `protection << 32 | flags`.
    pub flags: u64,
}

/// A call of Python's own allocator between its entry and its return. Such a call stands apart from the other calls,
/// because a call that Python's allocator makes to malloc is an outermost call of malloc.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct OpenObjectCall {
    /// Stack pointer at entry, AVMA; zero when no call is open.
    pub sp: u64,
    /// Requested bytes.
    pub size: u64,
    /// The old block of a reallocation, AVMA; else zero.
    pub pointer: u64,
}

/// How many stacks a thread remembers. A power of two.
const RECENT_STACKS: usize = 128;

/// A stack that has an id.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RecentStack {
    /// The hash of the stack's frames and of the stack's kind; zero if this place holds no stack.
    pub hash: u64,
    /// The stack's id.
    pub id: u32,
}

/// The state of a thread.
#[repr(C)]
pub struct ThreadState {
    /// How many of `calls` are open.
    pub depth: u32,
    /// Not zero when nobody has used `noted_caller` yet.
    pub noted: u32,
    /// The open calls, outermost first.
    pub calls: [OpenCall; MAX_OPEN_CALLS],
    /// The last caller of a function that makes a memory-mapping syscall.
    pub noted_caller: Registers,
    /// The memory-mapping syscall under way.
    pub syscall: OpenSyscall,
    /// The call of Python's own allocator under way.
    pub object: OpenObjectCall,
    /// Where the thread keeps its thread-local storage, AVMA; zero before anybody has looked. The address
    /// never changes.
    pub fsbase: u64,
    /// The context that the thread was in when the kernel side last looked.
    pub stay: Stay,
    /// The context that the thread was in when data last arrived on a socket.
    pub arrival: Stay,
    /// The window that the thread is bound to, unless somebody has closed the window meanwhile; zero if there
    /// is none.
    pub window: u32,
    /// The thread's id.
    pub tid: u32,
    /// The last syscall by which the thread waited for something to do; zero before the first.
    pub last_wait: u64,
    /// The last such syscall before the request of `window` arrived.
    pub request_wait: u64,
    /// Not zero once the thread has shown that the thread has work of its own: the thread was bound to a
    /// window, or has waited for connections or for the clock.
    pub has_own_work: u32,
    /// Not zero once the thread has worked in a context that belonged to a window.
    pub has_worked: u32,
    /// The object that the thread has last taken out of a queue.
    pub item: Item,
    /// How often the thread had waited when a probe first saw the thread.
    pub waits_at_first: u64,
    /// The window that the thread's own code has open.
    pub call: WindowCall,
    /// The read or write through TLS under way.
    pub tls: TlsCall,
    /// What happened to a window, ready to be sent.
    pub window_record: WindowRecord,
    /// The ids of stacks that the thread has used lately, by a few bits of their hash. An id is never taken back.
    pub recent_stacks: [RecentStack; RECENT_STACKS],
    /// The walk under way.
    pub walk: Walk,
    /// The frames that the walk has entered, ready to be sent.
    pub stack: StackEvent,
}
