//! What a process reads and sends through TLS, as the functions of OpenSSL hand it out and take it.
//!
//! Requests on such a connection are found as on a socket; the address of the `SSL` names the connection. The
//! socket that the thread reads within the call tells whether the thread serves one request at a time.

use aya_ebpf::{
    EbpfContext as _,
    programs::{ProbeContext, RetProbeContext},
};
use residue_ebpf::abi::window::tls_key;

use super::{
    arrivals::arrived,
    connection,
    responses::departed,
    transfer::{Data, Pieces},
};
use crate::{
    kernel::{
        files::Socket,
        memory::read_word,
        probe::{self, registers},
        process::open_process,
    },
    state::{
        request::{READ_BLOCKING, TlsCall},
        thread::ThreadState,
    },
    threads,
};

/// The current thread has entered a function that reads or writes. `count` is the number of the argument that
/// says where the function writes how many bytes it has transferred, if the function does so.
#[inline(always)]
pub fn entered(ctx: &ProbeContext, count: Option<usize>) -> Option<()> {
    open_process(ctx.as_ptr())?;
    let thread = threads::current()?;
    thread.tls = TlsCall {
        sp: registers(ctx).sp,
        ssl: ctx.arg(0)?,
        data: ctx.arg(1)?,
        count: match count {
            Some(argument) => ctx.arg(argument)?,
            None => 0,
        },
        read: 0,
    };
    Some(())
}

/// A function has read and returns.
#[inline(always)]
pub fn read(ctx: &RetProbeContext) -> Option<()> {
    let (thread, process, call, data) = returned(ctx)?;
    let key = tls_key(process, call.ssl);
    let known = connection::connection(key);
    let blocks = match call.read {
        0 => known.as_ref().is_some_and(|known| known.blocks()),
        read => read == READ_BLOCKING,
    };
    let socket = Socket {
        file: call.ssl,
        blocks,
    };
    arrived(thread, u32::from(process), key, known, &socket, &data);
    Some(())
}

/// A function has written and returns.
#[inline(always)]
pub fn written(ctx: &RetProbeContext) -> Option<()> {
    let (_, process, call, data) = returned(ctx)?;
    departed(tls_key(process, call.ssl), &data)
}

/// The call that returns, and the data that the call has transferred.
#[inline(always)]
fn returned(ctx: &RetProbeContext) -> Option<(&'static mut ThreadState, u16, TlsCall, Data)> {
    let cookie = open_process(ctx.as_ptr())?;
    let thread = threads::existing()?;
    let call = thread.tls;
    thread.tls.sp = 0;
    let regs = probe::returned(ctx);
    if call.sp != regs.rsp.wrapping_sub(8) {
        return None;
    }
    // The result is an int: the upper half of the register means nothing.
    let result = regs.rax as u32 as i32;
    let len = match (result, call.count) {
        (1.., 0) => result as u64,
        (1, count) => read_word(count),
        _ => 0,
    };
    let data = Data {
        address: call.data,
        len,
        transferred: len,
        pieces: Pieces::default(),
    };
    (len != 0).then_some((thread, cookie.process, call, data))
}

/// A connection is over.
#[inline(always)]
pub fn ended(ctx: &ProbeContext) -> Option<()> {
    let cookie = open_process(ctx.as_ptr())?;
    connection::ended(tls_key(cookie.process, ctx.arg(0)?))
}
