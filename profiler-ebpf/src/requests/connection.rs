//! What a process reads and sends on a socket, and where requests begin and end in it.

use aya_ebpf::programs::TracePointContext;
use residue_ebpf::abi::{
    counters::Counter,
    http::{self, Status},
    window::{
        HEAD_BYTES, SPEAKS_HTTP2, SPEAKS_TLS, WINDOW_CHUNKS_ENDED, WINDOW_NEXT_RESPONSE,
        WINDOW_RESET, WindowEventKind, WindowStage, WindowState,
    },
};

use super::{
    contexts,
    lifecycle::{Beginning, advance, begin, close, hand_over, set, unset},
    now, open,
    send::{Begun, Fragment, send},
    tls,
    transfer::{self, Data, Transfer},
};
use crate::{
    atomic,
    counters::count,
    kernel::{
        files::{self, Socket},
        process::open_target,
        syscall::argument,
        task::current_tgid,
    },
    maps::{CONNECTIONS, PROCESS_WINDOWS},
    state::{connection::Connection, thread::ThreadState},
    threads,
};

/// How a chunked body ends (RFC 9112, section 7.1), without trailers, as a little-endian word.
const LAST_CHUNK: u64 = BLANK_LINE << 8 | b'0' as u64;

/// A blank line behind the end of another, as a little-endian word.
const BLANK_LINE: u64 = u32::from_le_bytes(*b"\r\n\r\n") as u64;

/// An interim response that is sent alone is not longer than this, but for early hints.
const LONGEST_INTERIM: u64 = 64;

/// Of the current process.
#[inline(always)]
fn connection_key(descriptor: u32) -> u64 {
    u64::from(current_tgid()) << 32 | u64::from(descriptor)
}

/// A thread has read.
#[inline(always)]
pub fn data_read(ctx: &TracePointContext) -> Option<()> {
    let result = transfer::result(ctx)?;
    let process = open_target()?;
    let transfer = Transfer::of(ctx, result);
    if transfer.is_peek() {
        return None;
    }
    let key = connection_key(transfer.descriptor);
    let known = connection(key);
    if result < 0 {
        return note_reset(known?, WindowStage::Open);
    }
    let known_file = known.as_ref().map_or(0, |known| known.file);
    let socket = files::socket(transfer.descriptor, known_file)?;
    let thread = threads::current()?;
    if tls::socket_read(thread, &socket, transfer.sp()) {
        return None;
    }
    arrived(thread, process, key, known, &socket, &transfer.data());
    Some(())
}

/// Data was read on a connection, which was `known` by its key.
#[inline(always)]
pub fn arrived(
    thread: &mut ThreadState,
    process: u32,
    key: u64,
    known: Option<&'static mut Connection>,
    socket: &Socket,
    data: &Data,
) {
    let known = known.map(|known| known.now_on(socket.file));
    let reading = known.as_ref().and_then(|known| open(known.window));
    let connection = match (known, reading) {
        (Some(known), Some(window)) if window.stage() == WindowStage::Open as u32 => {
            let kind = WindowEventKind::Request;
            send_more(thread, kind, window, &mut known.request_room, data);
            Some(known)
        }
        (Some(known), _) if known.upgraded != 0 => Some(known),
        (known, _) => look_for_head(thread, process, key, socket, known, data),
    };
    if !socket.blocks {
        let window = connection.and_then(|connection| open(connection.window));
        let window = window.map_or(0, |window| window.id());
        contexts::data_arrived(thread, process as u16, window);
    }
}

/// Sends more of a head, if there is room.
#[inline(always)]
fn send_more(
    thread: &mut ThreadState,
    kind: WindowEventKind,
    window: &WindowState,
    room: &mut u32,
    data: &Data,
) {
    if *room != 0 {
        let fragment = Fragment::read(thread, Begun::default(), data, u64::from(*room));
        send(thread, kind, window, now(), fragment);
        *room = room_behind(*room, fragment);
    }
}

/// How much room is left: none behind a gap.
#[inline(always)]
const fn room_behind(room: u32, sent: Fragment) -> u32 {
    if sent.len < sent.transferred {
        return 0;
    }
    room.saturating_sub(sent.len as u32)
}

/// Between requests: what was read may begin one. Returns the connection, if it is known now.
#[inline(always)]
fn look_for_head(
    thread: &mut ThreadState,
    process: u32,
    key: u64,
    socket: &Socket,
    known: Option<&'static mut Connection>,
    data: &Data,
) -> Option<&'static mut Connection> {
    let begun = known.as_ref().map_or(Begun::default(), |known| Begun {
        word: known.begun,
        len: u64::from(known.begun_len),
    });
    let fragment = Fragment::read(thread, begun, data, HEAD_BYTES as u64);
    let (word, len) = fragment.word_at(thread, 0);
    let (word, len) = fragment.word_at(thread, http::leading_line_ends(word, len));
    match http::beginning(word, len) {
        http::Beginning::Request => open_window(thread, process, key, socket, known, fragment),
        http::Beginning::Partial if len == 0 => known,
        http::Beginning::Partial => keep_beginning(key, socket, known, word, len),
        beginning => {
            note_protocol(process, beginning);
            let known = known?;
            known.begun_len = 0;
            Some(known)
        }
    }
}

#[inline(always)]
fn open_window(
    thread: &mut ThreadState,
    process: u32,
    key: u64,
    socket: &Socket,
    known: Option<&'static mut Connection>,
    fragment: Fragment,
) -> Option<&'static mut Connection> {
    let connection = match known {
        Some(known) => known,
        None => new_connection(key, socket.file)?,
    };
    let now = now();
    if let Some(previous) = open(connection.window) {
        contexts::answers_next(previous);
        let tasks_go_on = previous.bound() == 0 && finish_later(previous);
        if !tasks_go_on {
            close(thread, previous, now);
        }
    }
    let beginning = Beginning {
        process,
        binds: socket.blocks,
        at: match connection.begun_len {
            0 => now,
            _ => connection.begun_at,
        },
        source: 0,
    };
    connection.begun_len = 0;
    let window = begin(thread, &beginning, now)?;
    connection.window = window.id();
    connection.blocks = u32::from(socket.blocks);
    send(thread, WindowEventKind::Opened, window, now, fragment);
    connection.request_room = room_behind(HEAD_BYTES as u32, fragment);
    connection.response_room = HEAD_BYTES as u32;
    Some(connection)
}

/// Keeps bytes that are too few to tell what they begin.
#[inline(always)]
fn keep_beginning(
    key: u64,
    socket: &Socket,
    known: Option<&'static mut Connection>,
    word: u64,
    len: usize,
) -> Option<&'static mut Connection> {
    let connection = match known {
        Some(known) => known,
        None => new_connection(key, socket.file)?,
    };
    if connection.begun_len == 0 {
        connection.begun_at = now();
    }
    connection.begun = word & http::low_bytes(len);
    connection.begun_len = len as u32 & 7;
    Some(connection)
}

#[inline(always)]
fn note_protocol(process: u32, beginning: http::Beginning) {
    let protocol = match beginning {
        http::Beginning::Http2 => SPEAKS_HTTP2,
        http::Beginning::Tls => SPEAKS_TLS,
        _ => return,
    };
    if let Some(process) = PROCESS_WINDOWS.get_ptr_mut(process) {
        // SAFETY: a field of a map value.
        unsafe { atomic::fetch_or(&raw mut (*process).speaks, protocol) };
    }
}

/// A thread has sent.
#[inline(always)]
pub fn data_written(ctx: &TracePointContext) -> Option<()> {
    let result = transfer::result(ctx)?;
    let transfer = Transfer::of(ctx, result);
    let connection = connection(connection_key(transfer.descriptor))?;
    if result < 0 {
        return note_reset(connection, WindowStage::Responding);
    }
    let window = open(connection.window)?;
    if files::file(transfer.descriptor)? != connection.file {
        return None;
    }
    sent(connection, window, &transfer.data())
}

/// Data was sent on a connection that is what it was, if it is known at all.
#[inline(always)]
pub fn departed(key: u64, data: &Data) -> Option<()> {
    let connection = connection(key)?;
    let window = open(connection.window)?;
    sent(connection, window, data)
}

#[inline(always)]
fn sent(connection: &mut Connection, window: &mut WindowState, data: &Data) -> Option<()> {
    let thread = threads::current()?;
    let mut room = connection.response_room;
    // Short data is read whole, with its end: each time costs more than all the bytes.
    let fragment = Fragment::read(thread, Begun::default(), data, HEAD_BYTES as u64);
    let status = fragment.status(thread);
    if status == Status::Interim && data.transferred <= LONGEST_INTERIM {
        return None;
    }
    if window.stage() == WindowStage::Open as u32 {
        advance(window, WindowStage::Responding);
        unset(window, WINDOW_NEXT_RESPONSE);
    } else if status == Status::None {
        unset(window, WINDOW_NEXT_RESPONSE);
    } else {
        set(window, WINDOW_NEXT_RESPONSE);
        room = HEAD_BYTES as u32;
    }
    if status == Status::Upgrade {
        connection.upgraded = 1;
    }
    let bound = window.bound();
    if bound != thread.tid {
        if status != Status::None {
            contexts::answered(thread, window.process as u16, window.id());
        }
        if bound != 0 {
            hand_over(window);
        }
    }
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
        // What follows a blank line is the body, which is nobody's business.
        let ends_head = last >> 8 == BLANK_LINE;
        connection.response_room = if ends_head {
            0
        } else {
            room_behind(room, fragment)
        };
    }
    Some(())
}

/// Reading or sending failed because the peer is gone. Behind the response, that is nothing unusual.
#[inline(always)]
fn note_reset(connection: &Connection, last: WindowStage) -> Option<()> {
    let window = open(connection.window)?;
    if window.stage() <= last as u32 {
        set(window, WINDOW_RESET);
    }
    Some(())
}

/// A descriptor is about to be closed.
#[inline(always)]
pub fn descriptor_closes(ctx: &TracePointContext) -> Option<()> {
    let connection = connection(connection_key(argument(ctx, 0) as u32))?;
    let window = connection.window;
    // The descriptor is likely to be another connection's soon, so its entry stays.
    *connection = Connection::default();
    over(window)
}

/// The connection with a key that will hardly be another one's is over.
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
    // What the thread cleans up behind the connection is the request's as well.
    if !finish_later(window) {
        close(threads::current()?, window, now());
    }
    Some(())
}

/// Leaves an answered window to whoever still works on it, if somebody does.
#[inline(always)]
fn finish_later(window: &mut WindowState) -> bool {
    let is_answered = window.stage() == WindowStage::Responding as u32;
    let goes_on = window.bound() != 0 || window.tasks != 0;
    is_answered && goes_on && advance(window, WindowStage::Finished)
}

/// What is known of a connection.
#[inline(always)]
pub fn connection(key: u64) -> Option<&'static mut Connection> {
    let connection = CONNECTIONS.get_ptr_mut(key)?;
    // SAFETY: a map value; one thread at a time uses a connection, or the target itself is confused.
    Some(unsafe { &mut *connection })
}

#[inline(always)]
fn new_connection(key: u64, file: u64) -> Option<&'static mut Connection> {
    if CONNECTIONS.insert(key, Connection::on(file), 0).is_err() {
        count(Counter::WindowsFull, 1);
        return None;
    }
    connection(key)
}
