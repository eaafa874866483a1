//! The connections on which a process reads requests, by their keys, and how a connection ends.

use aya_ebpf::programs::TracePointContext;
use residue_ebpf::abi::{
    counters::Counter,
    window::{WINDOW_RESET, WindowStage, WindowState},
};

use super::{
    lifecycle::{advance, close, set},
    window::{now, open},
};
use crate::{
    counters::count,
    kernel::{syscall::argument, task::current_tgid},
    maps::CONNECTIONS,
    state::connection::Connection,
    threads,
};

/// The key of a socket of the current process.
#[inline(always)]
pub fn socket_key(descriptor: u32) -> u64 {
    u64::from(current_tgid()) << 32 | u64::from(descriptor)
}

/// The connection of a key, if a request was read on the connection.
#[inline(always)]
pub fn connection(key: u64) -> Option<&'static mut Connection> {
    let connection = CONNECTIONS.get_ptr_mut(key)?;
    // SAFETY: the pointer leads to a map value. One thread at a time uses a connection; otherwise the target
    // itself is confused.
    Some(unsafe { &mut *connection })
}

/// Enters a connection of which nothing but its file is known; `None`, counted, if there is no room.
#[inline(always)]
pub fn new_connection(key: u64, file: u64) -> Option<&'static mut Connection> {
    if CONNECTIONS.insert(key, Connection::on(file), 0).is_err() {
        count(Counter::WindowsFull, 1);
        return None;
    }
    connection(key)
}

/// The current process is about to close a descriptor.
#[inline(always)]
pub fn descriptor_closes(ctx: &TracePointContext) -> Option<()> {
    let connection = connection(socket_key(argument(ctx, 0) as u32))?;
    let window = connection.window;
    // The entry stays, because another connection is likely to get the descriptor soon.
    *connection = Connection::default();
    over(window)
}

/// A connection is over whose key hardly any other connection will have.
#[inline(always)]
pub fn ended(key: u64) -> Option<()> {
    let window = connection(key)?.window;
    let _ = CONNECTIONS.remove(key);
    over(window)
}

/// The connection of a window is over.
#[inline(always)]
fn over(window: u32) -> Option<()> {
    let window = open(window)?;
    // Whatever the thread cleans up after the connection belongs to the request as well.
    if !finish_later(window) {
        close(threads::current()?, window, now());
    }
    Some(())
}

/// Leaves an answered window to the thread or the tasks that still work on the window. Returns whether there are any.
#[inline(always)]
pub fn finish_later(window: &mut WindowState) -> bool {
    let is_answered = window.stage() == WindowStage::Responding as u32;
    let goes_on = window.bound() != 0 || window.tasks != 0;
    is_answered && goes_on && advance(window, WindowStage::Finished)
}

/// A read or a write has failed because the peer is gone. Behind the response, that is nothing unusual.
#[inline(always)]
pub fn note_reset(connection: &Connection, last: WindowStage) -> Option<()> {
    let window = open(connection.window)?;
    if window.stage() <= last as u32 {
        set(window, WINDOW_RESET);
    }
    Some(())
}
