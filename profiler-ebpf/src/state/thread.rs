//! What is known of a thread between two probe hits: its open allocator calls, and scratch space.
//!
//! A call is opened at entry and closed at return. Some never return: `longjmp` and C++ exceptions
//! skip them. So a call's stack pointer is kept, and an open call is dropped as soon as the thread
//! is seen above it.

use residue_ebpf::abi::{
    counters::Counter, event::StackEvent, heap::LiveAllocation, window::WindowRecord,
};

use crate::{
    counters::count,
    heap::restore,
    kernel::{
        memory::read_word,
        process::trampoline,
        task::{current_tid, waits},
    },
    maps::{EMPTY_THREAD, FUNCTIONS, THREADS},
    requests::{Item, Stay, TlsCall, WindowCall},
    stack::native::Walk,
    verifier::element,
};

/// How many allocator calls may be open in a thread at once: an allocator function that calls
/// another (two or three deep), and those that a longjmp left behind. A power of two.
pub const MAX_OPEN_CALLS: usize = 8;

/// How far below an open call's frame an allocator's inner call is looked for, bytes. Allocators
/// keep small frames; what lies deeper is not their own call.
const MAX_ALLOCATOR_FRAME: u64 = 16 << 10;

/// How far below its caller a function that wraps a syscall can make it, bytes.
const MAX_WRAPPER_FRAME: u64 = 512;

/// An allocator call between its entry and its return.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct OpenCall {
    /// Stack pointer at entry: where the return address lies. AVMA.
    pub sp: u64,
    /// Requested bytes.
    pub size: u64,
    /// Old block (reallocations) or out-pointer (posix_memalign). AVMA.
    pub pointer: u64,
    /// The old block's entry, taken out of the live set until the call returns: as soon as the
    /// allocator has freed the block, another thread may be given its address.
    pub held: LiveAllocation,
    /// Function index.
    pub function: u32,
    /// `CALL_…` bits.
    pub flags: u32,
}

/// The call is the outermost: its result counts.
pub const CALL_COUNTS: u32 = 1;
/// `held` is in use.
pub const CALL_HOLDS: u32 = 2;

/// The registers a stack walk starts from. AVMAs.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Registers {
    /// The leaf-most frame's address: a return address, or where a syscall returns to.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
}

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

/// A call of Python's own allocator between its entry and its return. It stands apart from the other
/// calls: those that it makes to malloc are the outermost ones of malloc.
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
    /// Of its frames and what it stands for; zero where there is none.
    pub hash: u64,
    /// Its id.
    pub id: u32,
}

/// See the module documentation.
#[repr(C)]
pub struct ThreadState {
    /// How many of `calls` are open.
    pub depth: u32,
    /// Not zero when `noted_caller` is new.
    noted: u32,
    /// Open calls, outermost first.
    pub calls: [OpenCall; MAX_OPEN_CALLS],
    /// Who called a function last that makes a memory-mapping syscall.
    noted_caller: Registers,
    /// The memory-mapping syscall under way.
    pub syscall: OpenSyscall,
    /// The call of Python's own allocator under way.
    pub object: OpenObjectCall,
    /// What thread-local storage is found by, once it was looked up: it stays as it is.
    pub fsbase: u64,
    /// The context that the thread was in when it was last looked at.
    pub stay: Stay,
    /// The one that it was in when data arrived on a socket.
    pub arrival: Stay,
    /// The window that the thread is bound to, unless that was closed meanwhile; zero if there is none.
    pub window: u32,
    /// The thread's id.
    pub tid: u32,
    /// The last syscall by which the thread waited for something to do; zero before the first.
    pub last_wait: u64,
    /// The one before the request of `window` arrived.
    pub request_wait: u64,
    /// Not zero once the thread has shown that it has work of its own: it was bound to a window, or waited for
    /// connections or for the clock.
    pub has_own_work: u32,
    /// Not zero once it has worked in a context that belonged to a window.
    pub has_worked: u32,
    /// What it has last taken out of a queue.
    pub item: Item,
    /// How often it had waited when it was first seen.
    pub waits_at_first: u64,
    /// The window that the thread's own code has open.
    pub call: WindowCall,
    /// The read or write through TLS under way.
    pub tls: TlsCall,
    /// What happened to a window, ready to be sent.
    pub window_record: WindowRecord,
    /// Ids of stacks that were of use lately, by a few bits of their hash. Ids are never taken back.
    pub recent_stacks: [RecentStack; RECENT_STACKS],
    /// The walk under way.
    pub walk: Walk,
    /// Where a stack is walked into, ready to be sent.
    pub stack: StackEvent,
}

/// The current thread's state, if it has one.
#[inline(always)]
pub fn existing() -> Option<&'static mut ThreadState> {
    state_of(current_tid())
}

/// The current thread's state, made if there is none; `None`, counted, when the table is full.
#[inline(always)]
pub fn current() -> Option<&'static mut ThreadState> {
    let tid = current_tid();
    if let Some(thread) = state_of(tid) {
        return Some(thread);
    }
    let empty = EMPTY_THREAD.get(0)?;
    if THREADS.insert(tid, empty, 0).is_err() {
        count(Counter::ThreadTableFull, 1);
        return None;
    }
    let thread = state_of(tid)?;
    thread.tid = tid;
    thread.waits_at_first = waits();
    Some(thread)
}

/// A thread's state by its id, if it has one.
#[inline(always)]
pub fn state_of(tid: u32) -> Option<&'static mut ThreadState> {
    let thread = THREADS.get_ptr_mut(tid)?;
    // SAFETY: the entry belongs to the current thread, by the id that it has or had before its exec. It alone uses the
    // entry, which is deleted only when that thread has exited or has another id.
    Some(unsafe { &mut *thread })
}

/// Where a new call stands to those that are open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Nesting {
    /// No allocator call is under way: this one counts.
    Outermost,
    /// An allocator function made this call for its own purposes.
    Inner,
}

impl ThreadState {
    /// Closes the calls that can no longer return, and says whether a call with the stack pointer
    /// `sp` is made by one that is still open.
    #[inline(always)]
    pub fn nesting(&mut self, process_slot: u16, sp: u64) -> Nesting {
        if self.depth == 0 {
            return Nesting::Outermost;
        }
        self.nesting_below_open_calls(process_slot, sp)
    }

    #[inline(always)]
    fn nesting_below_open_calls(&mut self, process_slot: u16, sp: u64) -> Nesting {
        self.abandon_below(process_slot, sp);
        let Some(top) = self.top() else {
            return Nesting::Outermost;
        };
        let caller = read_word(sp);
        let trampoline = trampoline(process_slot);
        if top.sp == sp {
            // A jump from the end of an allocator function leaves the kernel's trampoline where a
            // call would have put its own return address.
            if trampoline == 0 || caller == trampoline {
                return Nesting::Inner;
            }
            self.abandon_top(process_slot);
            return Nesting::Outermost;
        }
        let in_allocator = FUNCTIONS
            .get(top.function)
            .is_some_and(|f| caller >= f.text_start && caller < f.text_end);
        if in_allocator && is_under_way(&top, trampoline, sp) {
            Nesting::Inner
        } else {
            Nesting::Outermost
        }
    }

    /// Whether code at the stack pointer `sp` runs on behalf of an open allocator call.
    #[inline(always)]
    pub fn is_in_allocator(&mut self, process_slot: u16, sp: u64) -> bool {
        self.abandon_below(process_slot, sp);
        self.top()
            .is_some_and(|top| is_under_way(&top, trampoline(process_slot), sp))
    }

    /// Whether code at the stack pointer `sp` runs on behalf of an open call of Python's allocator.
    /// Forgets a call that can no longer return.
    #[inline(always)]
    pub fn is_in_object_call(&mut self, process_slot: u16, sp: u64) -> bool {
        let open = self.object.sp;
        if open == 0 {
            return false;
        }
        let trampoline = trampoline(process_slot);
        let returns = trampoline == 0 || read_word(open) == trampoline;
        let inside = open.wrapping_sub(sp) < MAX_ALLOCATOR_FRAME
            && (open != sp || read_word(sp) == trampoline);
        if !(returns && inside) {
            self.object.sp = 0;
        }
        returns && inside
    }

    /// Notes who is about to map memory.
    #[inline(always)]
    pub fn note_caller(&mut self, caller: Registers) {
        self.noted_caller = caller;
        self.noted = 1;
    }

    /// The noted caller, if code at the stack pointer `sp` runs just below it: its frame still
    /// holds the return address. A note serves once.
    #[inline(always)]
    pub fn take_noted_caller(&mut self, sp: u64) -> Option<Registers> {
        if self.noted == 0 {
            return None;
        }
        self.noted = 0;
        let caller = self.noted_caller;
        let is_near = caller.sp.wrapping_sub(sp) <= MAX_WRAPPER_FRAME;
        (is_near && read_word(caller.sp.wrapping_sub(8)) == caller.ip).then_some(caller)
    }

    /// Opens a call. When too many are open, the outermost gives way: allocators nest two or three
    /// calls deep, so it must be one that a longjmp left behind.
    #[inline(always)]
    pub fn open(&mut self, process_slot: u16, call: OpenCall) {
        if self.depth as usize >= MAX_OPEN_CALLS {
            abandon(process_slot, &self.calls[0]);
            for index in 1..MAX_OPEN_CALLS {
                self.calls[index - 1] = self.calls[index];
            }
            self.depth = MAX_OPEN_CALLS as u32 - 1;
        }
        *element(&mut self.calls, self.depth as usize) = call;
        self.depth += 1;
    }

    /// Closes and returns the call of `function` whose return address lay at `sp`, if it was seen.
    #[inline(always)]
    pub fn close(&mut self, process_slot: u16, sp: u64, function: u32) -> Option<OpenCall> {
        if self.top()?.sp < sp {
            self.abandon_below(process_slot, sp);
        }
        let call = self.top()?;
        if call.sp != sp || call.function != function {
            return None;
        }
        self.depth -= 1;
        Some(call)
    }

    #[inline(always)]
    fn top(&mut self) -> Option<OpenCall> {
        let depth = self.depth as usize;
        (depth > 0).then(|| *element(&mut self.calls, depth - 1))
    }

    /// Drops the open calls whose frames lie below `sp`: the thread has left them.
    #[inline(always)]
    fn abandon_below(&mut self, process_slot: u16, sp: u64) {
        for _ in 0..MAX_OPEN_CALLS {
            match self.top() {
                Some(top) if top.sp < sp => self.abandon_top(process_slot),
                _ => break,
            }
        }
    }

    #[inline(always)]
    fn abandon_top(&mut self, process_slot: u16) {
        if let Some(call) = self.top() {
            self.depth -= 1;
            abandon(process_slot, &call);
        }
    }
}

/// A call will not return. A block that it held is as it was before, as far as can be known.
#[inline(always)]
fn abandon(process_slot: u16, call: &OpenCall) {
    if call.flags & CALL_COUNTS != 0 {
        count(Counter::CallsAbandoned, 1);
    }
    if call.flags & CALL_HOLDS != 0 {
        restore(process_slot, call.pointer, &call.held);
    }
}

/// Whether an open call can still return, and code at `sp` is close enough below it to be its own:
/// its return address must still be the kernel's trampoline.
#[inline(always)]
fn is_under_way(call: &OpenCall, trampoline: u64, sp: u64) -> bool {
    call.sp.wrapping_sub(sp) < MAX_ALLOCATOR_FRAME
        && (trampoline == 0 || read_word(call.sp) == trampoline)
}
