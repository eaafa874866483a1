//! Request windows: which request a thread works on. The kernel side decides that where it happens, because
//! allocations run at the same time.
//!
//! A window opens when a thread reads the head of a request, and closes when the worker turns to something
//! else. It does not close with the first byte of the response, because streams allocate later, nor with the
//! last byte, because what the worker cleans up afterwards belongs to the request.
//!
//! A thread that reads from a blocking socket serves one request at a time and is *bound* to the request's
//! window. A thread whose sockets do not block is an event loop's; no thread is bound to the loop's windows.
//! Where the loop runs tasks of asyncio, the tasks are bound to the windows instead ([`contexts`]). Anything
//! else that the process allocates while such a window is open is ambiguous.

mod amounts;
mod arrivals;
mod code_window;
mod connection;
mod contexts;
mod items;
mod lifecycle;
mod nobody;
mod responses;
mod send;
mod tasks;
pub mod tls;
mod transfer;
mod waits;
mod window;
mod worker;

use residue_ebpf::abi::window::{BACKGROUND, TASK};

use crate::state::{thread::ThreadState, walk::Registers};

pub use amounts::{account_alloc, account_free};
pub use arrivals::data_read;
pub use code_window::{closed, entered, opened, returned, returns};
pub use connection::descriptor_closes;
pub use contexts::{freed as context_freed, made as context_made};
pub use items::{item_put, item_taken};
pub use responses::data_written;
pub use waits::{thread_waited, thread_waits};

/// The window to which an allocation of `size` bytes belongs that a thread has just made for `caller`, or the number
/// of the task for which the thread made the allocation.
#[inline(always)]
pub fn of_allocation(thread: &mut ThreadState, process: u16, size: u64, caller: Registers) -> u32 {
    code_window::seen_at(thread, process, caller);
    match worker::works_for(thread, process) {
        BACKGROUND if thread.item.is_contested() => items::of_contested(process, size),
        BACKGROUND => nobody::of_allocation(thread, process, size),
        task if task & TASK != 0 => nobody::of_task(thread, process, task),
        window => window,
    }
}

/// A thread ends.
#[inline(always)]
pub fn thread_exited(thread: &mut ThreadState) {
    code_window::thread_exited(thread);
    lifecycle::turn_away(thread, window::now());
}
