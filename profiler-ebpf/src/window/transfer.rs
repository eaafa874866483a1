//! A syscall that has read or sent data.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{bpf_probe_read_user, generated::bpf_probe_read_user as read_user},
    programs::TracePointContext,
};

use crate::{
    syscall::{number, raw_result, saved_registers},
    thread::read_word,
};

/// Numbers of syscalls on x86-64 (asm/unistd_64.h).
mod nr {
    pub const READV: u32 = 19;
    pub const WRITEV: u32 = 20;
    pub const SENDFILE: u32 = 40;
    pub const RECVFROM: u32 = 45;
    pub const SENDMSG: u32 = 46;
    pub const RECVMSG: u32 = 47;
}

/// uapi/linux/socket.h
const MSG_PEEK: u64 = 2;
/// Pieces that are looked at for the last one: a response has few.
const MAX_PIECES: u64 = 16;
/// Bytes of a `struct iovec`.
const IOVEC_BYTES: u64 = 16;
/// Where `struct user_msghdr` keeps its `msg_iov`, with its count behind.
const MSG_IOV: u64 = 16;

/// The descriptor, and how the syscall ended.
pub struct Transfer {
    /// The descriptor.
    pub descriptor: u32,
    /// Bytes that were transferred, or the error.
    pub result: i64,
    number: u32,
    regs: pt_regs,
}

/// Where the data is, as far as it lies in one piece.
#[derive(Clone, Copy, Default)]
pub struct Data {
    /// AVMA.
    pub address: u64,
    /// Bytes.
    pub len: u64,
    /// Bytes in all pieces.
    pub transferred: u64,
}

impl Transfer {
    /// Of the syscall that ends.
    #[inline(always)]
    pub fn of(ctx: &TracePointContext) -> Option<Self> {
        let regs = saved_registers()?;
        Some(Self {
            descriptor: regs.rdi as u32,
            result: raw_result(ctx)?,
            number: number(ctx)?,
            regs,
        })
    }

    /// The stack pointer of whoever made the syscall, AVMA.
    #[inline(always)]
    pub const fn sp(&self) -> u64 {
        self.regs.rsp
    }

    /// Whether the data is still there for the next one who reads.
    #[inline(always)]
    pub const fn is_peek(&self) -> bool {
        match self.number {
            nr::RECVFROM => self.regs.r10 & MSG_PEEK != 0,
            nr::RECVMSG => self.regs.rdx & MSG_PEEK != 0,
            _ => false,
        }
    }

    /// Its first piece; of what is sent from a file, nothing can be read.
    #[inline(always)]
    pub fn data(&self) -> Data {
        let transferred = if self.result > 0 {
            self.result as u64
        } else {
            0
        };
        let (address, piece) = match self.number {
            nr::READV | nr::WRITEV => first_piece(self.regs.rsi),
            nr::SENDMSG | nr::RECVMSG => {
                first_piece(read_word(self.regs.rsi.wrapping_add(MSG_IOV)))
            }
            nr::SENDFILE => (0, 0),
            _ => (self.regs.rsi, u64::MAX),
        };
        let len = if piece < transferred {
            piece
        } else {
            transferred
        };
        Data {
            address,
            len,
            transferred,
        }
    }

    /// The last bytes that were transferred, so many if they lie in one piece.
    #[inline(always)]
    pub fn last(&self, bytes: u64) -> Data {
        let transferred = if self.result > 0 {
            self.result as u64
        } else {
            0
        };
        let pieces = match self.number {
            nr::WRITEV => (self.regs.rsi, self.regs.rdx),
            nr::SENDMSG => (
                read_word(self.regs.rsi.wrapping_add(MSG_IOV)),
                read_word(self.regs.rsi.wrapping_add(MSG_IOV + 8)),
            ),
            _ => return self.data().last(bytes),
        };
        let end = end_in_pieces(pieces.0, pieces.1, transferred, bytes);
        Data {
            address: end.wrapping_sub(bytes),
            len: if end == 0 { 0 } else { bytes },
            transferred: bytes,
        }
    }
}

/// Where the last of `transferred` bytes ends (AVMA), of which `bytes` lie in one piece; zero if they do not,
/// or if there are too many pieces. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn end_in_pieces(iovec: u64, count: u64, transferred: u64, bytes: u64) -> u64 {
    let mut rest = transferred;
    for piece in 0..MAX_PIECES {
        if piece >= count {
            break;
        }
        let (address, len) = first_piece(iovec.wrapping_add(piece * IOVEC_BYTES));
        if len >= rest {
            return if rest >= bytes {
                address.wrapping_add(rest)
            } else {
                0
            };
        }
        rest -= len;
    }
    0
}

impl Data {
    /// The first bytes, as a little-endian word, and how many these are.
    #[inline(always)]
    pub fn first_word(&self) -> (u64, usize) {
        let mut word = 0_u64;
        let len = if self.len < 8 { self.len } else { 8 };
        // SAFETY: the helper checks the address, and writes at most 8 bytes.
        let read =
            unsafe { read_user((&raw mut word).cast(), len as u32, self.address as *const _) };
        if read == 0 {
            (word, len as usize)
        } else {
            (0, 0)
        }
    }

    /// Nothing but the last bytes, if all lies in one piece.
    #[inline(always)]
    pub const fn last(self, bytes: u64) -> Self {
        if self.len != self.transferred {
            return self.after(self.len);
        }
        self.after(self.len.saturating_sub(bytes))
    }

    /// Without the first bytes.
    #[inline(always)]
    pub const fn after(self, bytes: u64) -> Self {
        Self {
            address: self.address.wrapping_add(bytes),
            len: self.len.saturating_sub(bytes),
            transferred: self.transferred.saturating_sub(bytes),
        }
    }
}

/// Address and length of the first `struct iovec`.
#[inline(always)]
fn first_piece(iovec: u64) -> (u64, u64) {
    // SAFETY: the helper checks the address.
    let [base, len] = unsafe { bpf_probe_read_user(iovec as *const [u64; 2]) }.unwrap_or_default();
    (base, len)
}
