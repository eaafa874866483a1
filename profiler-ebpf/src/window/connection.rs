//! What a process reads and sends on a socket, and where requests begin and end in it.

use aya_ebpf::programs::TracePointContext;
use residue_ebpf::abi::{
    counters::Counter,
    http::{self, TOKEN_BYTES},
    window::{
        HEAD_BYTES, SPEAKS_HTTP2, SPEAKS_TLS, WINDOW_CHUNKS_ENDED, WINDOW_NEXT_RESPONSE,
        WINDOW_RESET, WindowEventKind, WindowStage, WindowState,
    },
};

use super::{
    contexts,
    lifecycle::{Beginning, advance, begin, close, hand_over},
    now, open,
    send::{Begun, send},
    socket::{self, Socket},
    tls,
    transfer::{Data, Transfer},
};
use crate::{
    count,
    maps::{CONNECTIONS, PROCESS_WINDOWS},
    syscall::{argument, open_target},
    thread::{self, ThreadState, current_tid},
};

/// uapi/asm-generic/errno-base.h
const EPIPE: i64 = -32;
/// uapi/asm-generic/errno.h
const ECONNRESET: i64 = -104;

/// How a chunked body ends (RFC 9112, section 7.1), without trailers.
const LAST_CHUNK: &[u8; 5] = b"0\r\n\r\n";

/// A blank line behind the end of another, as a little-endian word.
const BLANK_LINE: u64 = u32::from_le_bytes(*b"\r\n\r\n") as u64;

/// Where the digits of the status are in a status line.
const STATUS: u64 = 9;
/// An interim response that is sent alone is not longer than this, but for early hints.
const LONGEST_INTERIM: u64 = 64;

/// A socket on which a request was read, or began to be.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Connection {
    /// Its `struct file`: another one's descriptor may be the same.
    file: u64,
    /// Bytes that may begin a head, as a little-endian word.
    begun: u64,
    /// When the first of them was read, nanoseconds of the monotonic clock.
    begun_ns: u64,
    /// Resident set then, bytes.
    begun_rss: u64,
    /// How many bytes `begun` has; fewer than eight.
    begun_len: u32,
    /// The last window.
    window: u32,
    /// Bytes of the request's head that may still be sent to user space.
    request_room: u32,
    /// The same for the response.
    response_room: u32,
    /// Whether reading it waits for data.
    blocks: u32,
    /// Not zero once it speaks another protocol: whatever is read then begins no request.
    upgraded: u32,
}

const fn connection_key(process: u32, descriptor: u32) -> u64 {
    (process as u64) << 32 | descriptor as u64
}

/// A thread has read.
#[inline(always)]
pub fn data_read(ctx: &TracePointContext) -> Option<()> {
    let process = open_target()?;
    let transfer = Transfer::of(ctx)?;
    if transfer.is_peek() || transfer.result == 0 {
        return None;
    }
    let key = connection_key(process, transfer.descriptor);
    if transfer.result < 0 {
        return note_error(key, transfer.result, WindowStage::Open);
    }
    let socket = socket::socket(transfer.descriptor)?;
    if tls::socket_read(&socket, transfer.sp()) {
        return None;
    }
    arrived(process, key, &socket, transfer.data())
}

/// Data was read on a connection.
#[inline(always)]
pub fn arrived(process: u32, key: u64, socket: &Socket, data: Data) -> Option<()> {
    let known = connection(key, socket.file);
    let reading = known.as_ref().and_then(|known| open(known.window));
    let read = match (known, reading) {
        (Some(known), Some(window)) if window.stage() == WindowStage::Open as u32 => {
            more_of_request(known, window, data)
        }
        (Some(known), _) if known.upgraded != 0 => None,
        (known, _) => look_for_head(process, key, socket, known, data),
    };
    if !socket.blocks {
        let window = connection(key, socket.file).and_then(|known| open(known.window));
        tell_contexts(process, window.map_or(0, |window| window.id()));
    }
    read
}

/// Tells the contexts of an event loop what has arrived.
#[inline(always)]
fn tell_contexts(process: u32, window: u32) -> Option<()> {
    let thread = thread::existing(current_tid())?;
    contexts::data_arrived(thread, process as u16, window)
}

#[inline(always)]
fn more_of_request(
    connection: &mut Connection,
    window: &mut WindowState,
    data: Data,
) -> Option<()> {
    if connection.request_room == 0 {
        return None;
    }
    let kind = WindowEventKind::Request;
    let room = connection.request_room;
    connection.request_room = send_fragment(
        thread::current()?,
        kind,
        window,
        Begun::default(),
        data,
        room,
    );
    Some(())
}

/// Sends a fragment, and returns how much room is left: none behind a gap.
#[inline(always)]
fn send_fragment(
    thread: &mut ThreadState,
    kind: WindowEventKind,
    window: &WindowState,
    begun: Begun,
    data: Data,
    room: u32,
) -> u32 {
    let sent = send(thread, kind, window, begun, data, u64::from(room));
    if sent < data.transferred + begun.len {
        return 0;
    }
    room.saturating_sub(sent as u32)
}

/// Between requests: what was read may begin one.
#[inline(always)]
fn look_for_head(
    process: u32,
    key: u64,
    socket: &Socket,
    known: Option<&mut Connection>,
    data: Data,
) -> Option<()> {
    let (mut word, mut len) = data.first_word();
    let mut begun = Begun::default();
    if let Some(known) = &known
        && known.begun_len != 0
    {
        begun.word = known.begun;
        begun.len = u64::from(known.begun_len & 7);
        word = known.begun | word << (8 * begun.len);
        len += begun.len as usize;
    }
    let skipped = http::leading_line_ends(word, len);
    word >>= 8 * skipped;
    len -= skipped;
    let len = if len < TOKEN_BYTES { len } else { TOKEN_BYTES };
    match http::beginning(word, len) {
        http::Beginning::Request => open_window(process, key, socket, known, begun, data),
        http::Beginning::Partial if len == 0 => None,
        http::Beginning::Partial => keep_beginning(key, socket, known, word, len),
        http::Beginning::Http2 => speaks(process, SPEAKS_HTTP2),
        http::Beginning::Tls => speaks(process, SPEAKS_TLS),
        http::Beginning::Other => {
            known?.begun_len = 0;
            None
        }
    }
}

#[inline(always)]
fn open_window(
    process: u32,
    key: u64,
    socket: &Socket,
    known: Option<&mut Connection>,
    begun: Begun,
    data: Data,
) -> Option<()> {
    let thread = thread::current()?;
    let connection = match known {
        Some(known) => known,
        None => new_connection(key, socket.file)?,
    };
    if let Some(previous) = open(connection.window) {
        let tasks_go_on = previous.bound() == 0 && finish_later(previous);
        if !tasks_go_on {
            close(thread, previous);
        }
    }
    let (at_ns, rss) = match begun.len {
        0 => now(),
        _ => (connection.begun_ns, connection.begun_rss),
    };
    connection.begun_len = 0;
    let beginning = Beginning {
        process,
        binds: socket.blocks,
        at_ns,
        rss,
    };
    let window = begin(thread, &beginning)?;
    connection.window = window.id();
    connection.blocks = u32::from(socket.blocks);
    let kind = WindowEventKind::Opened;
    connection.request_room = send_fragment(thread, kind, window, begun, data, HEAD_BYTES as u32);
    connection.response_room = HEAD_BYTES as u32;
    Some(())
}

/// Keeps bytes that are too few to tell what they begin.
#[inline(always)]
fn keep_beginning(
    key: u64,
    socket: &Socket,
    known: Option<&mut Connection>,
    word: u64,
    len: usize,
) -> Option<()> {
    let connection = match known {
        Some(known) => known,
        None => new_connection(key, socket.file)?,
    };
    if connection.begun_len == 0 {
        (connection.begun_ns, connection.begun_rss) = now();
    }
    connection.begun = word & http::low_bytes(len);
    connection.begun_len = len as u32 & 7;
    Some(())
}

#[inline(always)]
fn speaks(process: u32, protocol: u64) -> Option<()> {
    let process = PROCESS_WINDOWS.get_ptr_mut(process)?;
    // SAFETY: a map value; a bit that is lost is set again by the next connection.
    unsafe { (*process).speaks |= protocol };
    Some(())
}

/// A thread has sent.
#[inline(always)]
pub fn data_written(ctx: &TracePointContext) -> Option<()> {
    let process = open_target()?;
    let transfer = Transfer::of(ctx)?;
    let key = connection_key(process, transfer.descriptor);
    if transfer.result <= 0 {
        return note_error(key, transfer.result, WindowStage::Responding);
    }
    let connection = CONNECTIONS.get_ptr_mut(key)?;
    // SAFETY: a map value; one thread at a time uses a connection, or the target itself is confused.
    let connection = unsafe { &mut *connection };
    let window = open(connection.window)?;
    if socket::file(transfer.descriptor)? != connection.file {
        return None;
    }
    let end = transfer.last(LAST_CHUNK.len() as u64);
    sent(connection, window, transfer.data(), end)
}

/// Data was sent on a connection that is what it was, if it is known at all.
#[inline(always)]
pub fn departed(key: u64, data: Data) -> Option<()> {
    let connection = CONNECTIONS.get_ptr_mut(key)?;
    // SAFETY: as in `data_written`.
    let connection = unsafe { &mut *connection };
    let window = open(connection.window)?;
    sent(connection, window, data, data.last(LAST_CHUNK.len() as u64))
}

/// Whether reading the connection has waited for data, when it was last told.
#[inline(always)]
pub fn blocked(key: u64) -> bool {
    // SAFETY: as in `data_written`.
    CONNECTIONS
        .get_ptr(key)
        .is_some_and(|connection| unsafe { (*connection).blocks } != 0)
}

#[inline(always)]
fn sent(
    connection: &mut Connection,
    window: &mut WindowState,
    data: Data,
    end: Data,
) -> Option<()> {
    let (word, len) = data.first_word();
    let is_head = http::is_status_line(word, len);
    if is_head && is_interim(data) {
        return None;
    }
    if window.stage() == WindowStage::Open as u32 {
        advance(window, WindowStage::Responding);
        window.bound_and_flags &= !WINDOW_NEXT_RESPONSE;
    } else if is_head {
        window.bound_and_flags |= WINDOW_NEXT_RESPONSE;
        connection.response_room = HEAD_BYTES as u32;
    } else {
        window.bound_and_flags &= !WINDOW_NEXT_RESPONSE;
    }
    if is_head && is_upgrade(data) {
        connection.upgraded = 1;
    }
    if is_head && let Some(thread) = thread::existing(current_tid()) {
        contexts::answered(thread, window.process as u16, window.id());
    }
    window.sent_bytes += data.transferred;
    let ends_head = note_end(window, end);
    (window.responded_ns, window.rss_responded) = now();
    let bound = window.bound();
    if bound != 0 && bound != current_tid() {
        hand_over(window);
    }
    if connection.response_room != 0 {
        let kind = WindowEventKind::Response;
        let room = connection.response_room;
        connection.response_room = send_fragment(
            thread::current()?,
            kind,
            window,
            Begun::default(),
            data,
            room,
        );
        if ends_head {
            // What follows is the body, which is nobody's business.
            connection.response_room = 0;
        }
    }
    Some(())
}

/// Notes whether the last bytes of what was sent end a chunked body, and says whether they are a blank
/// line, as a head ends with.
#[inline(always)]
fn note_end(window: &mut WindowState, end: Data) -> bool {
    let (word, len) = end.first_word();
    let [a, b, c, d, e] = *LAST_CHUNK;
    if len == LAST_CHUNK.len() && word == u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]) {
        window.bound_and_flags |= WINDOW_CHUNKS_ENDED;
    } else {
        window.bound_and_flags &= !WINDOW_CHUNKS_ENDED;
    }
    len == LAST_CHUNK.len() && word >> 8 == BLANK_LINE
}

/// Whether a status line announces another one, which is yet to be sent.
#[inline(always)]
fn is_interim(data: Data) -> bool {
    let (digits, len) = data.after(STATUS).first_word();
    len >= 3 && data.transferred <= LONGEST_INTERIM && http::is_interim(digits)
}

/// Whether a status line is that of 101, after which the connection speaks another protocol.
#[inline(always)]
fn is_upgrade(data: Data) -> bool {
    let (digits, len) = data.after(STATUS).first_word();
    len >= 3 && http::is_upgrade(digits)
}

/// Reading or sending failed: the peer may be gone. Behind the response, that is nothing unusual.
#[inline(always)]
fn note_error(key: u64, error: i64, last: WindowStage) -> Option<()> {
    if error == EPIPE || error == ECONNRESET {
        let connection = CONNECTIONS.get_ptr_mut(key)?;
        // SAFETY: as in `data_written`.
        let window = open(unsafe { (*connection).window })?;
        if window.stage() <= last as u32 {
            window.bound_and_flags |= WINDOW_RESET;
        }
    }
    Some(())
}

/// A descriptor is about to be closed.
#[inline(always)]
pub fn descriptor_closes(ctx: &TracePointContext) -> Option<()> {
    let process = open_target()?;
    ended(connection_key(process, argument(ctx, 0)? as u32))
}

/// A connection is over.
#[inline(always)]
pub fn ended(key: u64) -> Option<()> {
    let connection = CONNECTIONS.get_ptr_mut(key)?;
    // SAFETY: as in `data_written`.
    let window = unsafe { (*connection).window };
    let _ = CONNECTIONS.remove(key);
    let window = open(window)?;
    // What the thread cleans up behind the connection is the request's as well.
    if !finish_later(window) {
        close(thread::current()?, window);
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

/// The connection of a descriptor, if it is still that of the given file.
#[inline(always)]
fn connection(key: u64, file: u64) -> Option<&'static mut Connection> {
    let connection = CONNECTIONS.get_ptr_mut(key)?;
    // SAFETY: as in `data_written`.
    let connection = unsafe { &mut *connection };
    (connection.file == file).then_some(connection)
}

#[inline(always)]
fn new_connection(key: u64, file: u64) -> Option<&'static mut Connection> {
    let connection = Connection {
        file,
        ..Connection::default()
    };
    if CONNECTIONS.insert(key, connection, 0).is_err() {
        count(Counter::WindowsFull, 1);
        return None;
    }
    self::connection(key, file)
}
