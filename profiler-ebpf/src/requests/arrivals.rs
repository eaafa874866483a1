//! Data that a process reads on a connection, and where requests begin in the data.

use aya_ebpf::programs::TracePointContext;
use residue_ebpf::abi::{
    http,
    window::{HEAD_BYTES, SPEAKS_HTTP2, SPEAKS_TLS, WindowEventKind, WindowStage, WindowState},
};

use super::{
    connection::{connection, finish_later, new_connection, note_reset, socket_key},
    contexts,
    lifecycle::{Beginning, begin, close},
    send::{Begun, Fragment, send},
    transfer::{self, Data, Transfer},
    window::{now, open},
};
use crate::{
    atomic,
    kernel::{
        files::{self, Socket},
        process::open_target,
    },
    maps::PROCESS_WINDOWS,
    state::{
        connection::{Connection, Moment},
        request::{READ_AT_ONCE, READ_BLOCKING},
        thread::ThreadState,
    },
    threads,
};

/// The current thread has read.
#[inline(always)]
pub fn data_read(ctx: &TracePointContext) -> Option<()> {
    let result = transfer::result(ctx)?;
    let process = open_target()?;
    let transfer = Transfer::of(ctx, result);
    if transfer.is_peek() {
        return None;
    }
    let key = socket_key(transfer.descriptor);
    let known = connection(key);
    if result < 0 {
        return note_reset(known?, WindowStage::Open);
    }
    let known_file = known.as_ref().map_or(0, |known| known.file);
    let socket = files::socket(transfer.descriptor, known_file)?;
    let thread = threads::current()?;
    if is_for_tls(thread, &socket, transfer.sp()) {
        return None;
    }
    arrived(thread, process, key, known, &socket, &transfer.data());
    Some(())
}

/// Code at the stack pointer `sp` reads a socket. Returns whether the code does so for TLS.
#[inline(always)]
fn is_for_tls(thread: &mut ThreadState, socket: &Socket, sp: u64) -> bool {
    // Code above the call shows that a longjmp has left the call. All code is above zero, which stands for no call.
    if sp >= thread.tls.sp {
        return false;
    }
    thread.tls.read = if socket.blocks {
        READ_BLOCKING
    } else {
        READ_AT_ONCE
    };
    true
}

/// Data was read on a connection. `known` is what the connection's key leads to.
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

/// Sends more of a head to user space, if there is room.
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
        *room = fragment.room_behind(*room);
    }
}

/// Looks for the head of a request in data that was read between requests. Returns the connection, if there
/// is an entry of the connection now.
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

/// Opens the window of a request whose head begins with `fragment`.
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
    end_previous(thread, connection, now);
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
    connection.request_room = fragment.room_behind(HEAD_BYTES as u32);
    connection.response_room = HEAD_BYTES as u32;
    Some(connection)
}

/// Closes the window of the connection's previous request, unless tasks still work on the window.
#[inline(always)]
fn end_previous(thread: &mut ThreadState, connection: &Connection, now: Moment) {
    if let Some(previous) = open(connection.window) {
        contexts::answers_next(previous);
        let tasks_go_on = previous.bound() == 0 && finish_later(previous);
        if !tasks_go_on {
            close(thread, previous, now);
        }
    }
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

/// Notes that the process reads a protocol in which the kernel side finds no requests.
#[inline(always)]
fn note_protocol(process: u32, beginning: http::Beginning) {
    let protocol = match beginning {
        http::Beginning::Http2 => SPEAKS_HTTP2,
        http::Beginning::Tls => SPEAKS_TLS,
        _ => return,
    };
    if let Some(process) = PROCESS_WINDOWS.get_ptr_mut(process) {
        // SAFETY: the pointer leads to a field of a map value.
        unsafe { atomic::fetch_or(&raw mut (*process).speaks, protocol) };
    }
}
