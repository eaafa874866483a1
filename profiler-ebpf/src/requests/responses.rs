//! Data that a process sends on a connection, and where responses begin and end in the data.

use aya_ebpf::programs::TracePointContext;
use residue_ebpf::abi::{
    http::Status,
    window::{
        HEAD_BYTES, WINDOW_CHUNKS_ENDED, WINDOW_NEXT_RESPONSE, WindowEventKind, WindowStage,
        WindowState,
    },
};

use super::{
    connection::{connection, note_reset, socket_key},
    contexts,
    lifecycle::{advance, hand_over, set, unset},
    send::{Begun, Fragment, send},
    transfer::{self, Data, Transfer},
    window::{now, open},
};
use crate::{
    kernel::files,
    state::{connection::Connection, thread::ThreadState},
    threads,
};

/// How a chunked body without trailers ends (RFC 9112, section 7.1), as a little-endian word.
const LAST_CHUNK: u64 = BLANK_LINE << 8 | b'0' as u64;

/// The end of a line with a blank line behind it, as a little-endian word.
const BLANK_LINE: u64 = u32::from_le_bytes(*b"\r\n\r\n") as u64;

/// The most bytes of an interim response that is sent alone, except for early hints.
const LONGEST_INTERIM: u64 = 64;

/// The current thread has sent.
#[inline(always)]
pub fn data_written(ctx: &TracePointContext) -> Option<()> {
    let result = transfer::result(ctx)?;
    let transfer = Transfer::of(ctx, result);
    let connection = connection(socket_key(transfer.descriptor))?;
    if result < 0 {
        return note_reset(connection, WindowStage::Responding);
    }
    let window = open(connection.window)?;
    if files::file(transfer.descriptor)? != connection.file {
        return None;
    }
    sent(connection, window, &transfer.data())
}

/// Data was sent on a connection whose key no other connection has.
#[inline(always)]
pub fn departed(key: u64, data: &Data) -> Option<()> {
    let connection = connection(key)?;
    let window = open(connection.window)?;
    sent(connection, window, data)
}

#[inline(always)]
fn sent(connection: &mut Connection, window: &mut WindowState, data: &Data) -> Option<()> {
    let thread = threads::current()?;
    // Short data is read whole, with its end: each read costs more than all the bytes.
    let fragment = Fragment::read(thread, Begun::default(), data, HEAD_BYTES as u64);
    let status = fragment.status(thread);
    if status == Status::Interim && data.transferred <= LONGEST_INTERIM {
        return None;
    }
    let room = room_for(connection, window, status);
    if status == Status::Upgrade {
        connection.upgraded = 1;
    }
    note_who_answers(thread, window, status);
    window.sent_bytes += data.transferred;
    let now = now();
    (window.responded_ns, window.rss_responded) = (now.ns, now.rss);
    let last = fragment.last_five(thread, data);
    if last == LAST_CHUNK {
        set(window, WINDOW_CHUNKS_ENDED);
    } else {
        unset(window, WINDOW_CHUNKS_ENDED);
    }
    if room != 0 {
        let fragment = fragment.within(room);
        send(thread, WindowEventKind::Response, window, now, fragment);
        // The body follows a blank line, and is nobody's business.
        let ends_head = last >> 8 == BLANK_LINE;
        connection.response_room = if ends_head {
            0
        } else {
            fragment.room_behind(room)
        };
    }
    Some(())
}

/// How many bytes of the data may be sent to user space: the response's head may begin or go on here. Moves
/// the window to the stage of its response.
#[inline(always)]
fn room_for(connection: &Connection, window: &mut WindowState, status: Status) -> u32 {
    if window.stage() == WindowStage::Open as u32 {
        advance(window, WindowStage::Responding);
        unset(window, WINDOW_NEXT_RESPONSE);
    } else if status == Status::None {
        unset(window, WINDOW_NEXT_RESPONSE);
    } else {
        set(window, WINDOW_NEXT_RESPONSE);
        return HEAD_BYTES as u32;
    }
    connection.response_room
}

/// The current thread sends on a window's connection. If the window is bound to another thread, that one has
/// handed the request on; and if a response begins, the current task works for the window.
#[inline(always)]
fn note_who_answers(thread: &mut ThreadState, window: &mut WindowState, status: Status) {
    let bound = window.bound();
    if bound != thread.tid {
        if status != Status::None {
            contexts::answered(thread, window.process as u16, window.id());
        }
        if bound != 0 {
            hand_over(window);
        }
    }
}
