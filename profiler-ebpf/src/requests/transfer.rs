//! Syscalls that have read or sent data.

use aya_ebpf::{bindings::pt_regs, helpers::bpf_probe_read_user, programs::TracePointContext};

use crate::kernel::syscall::{number, raw_result, saved_registers};

/// Numbers of syscalls on x86-64 (asm/unistd_64.h).
mod nr {
    pub const READV: u32 = 19;
    pub const WRITEV: u32 = 20;
    pub const SENDFILE: u32 = 40;
    pub const RECVFROM: u32 = 45;
    pub const SENDMSG: u32 = 46;
    pub const RECVMSG: u32 = 47;
}

/// uapi/asm-generic/errno-base.h
const EPIPE: i64 = -32;
/// uapi/asm-generic/errno.h
const ECONNRESET: i64 = -104;
/// uapi/linux/socket.h
const MSG_PEEK: u64 = 2;
/// How many pieces the kernel side looks at to find the last one. A response has few.
const MAX_PIECES: u64 = 16;
/// Bytes of a `struct iovec`.
const IOVEC_BYTES: u64 = 16;
/// The offset of `msg_iov` in `struct user_msghdr`. The number of pieces lies behind it.
const MSG_IOV: u64 = 16;

/// A syscall that has read or sent data, as it ends.
pub struct Transfer {
    /// The descriptor.
    pub descriptor: u32,
    result: i64,
    number: u32,
    regs: &'static pt_regs,
}

/// The result of a transfer; `None` if nothing was transferred though the peer is not gone. Most often, there
/// was nothing to read yet.
#[inline(always)]
pub fn result(ctx: &TracePointContext) -> Option<i64> {
    let result = raw_result(ctx);
    (result > 0 || result == EPIPE || result == ECONNRESET).then_some(result)
}

/// The data of a transfer, as far as the data lies in one piece.
#[derive(Clone, Copy, Default)]
pub struct Data {
    /// Where the data lies, AVMA.
    pub address: u64,
    /// How many bytes lie there.
    pub len: u64,
    /// How many bytes all pieces have.
    pub transferred: u64,
    /// The pieces, where there may be several.
    pub pieces: Pieces,
}

/// An array of `struct iovec`.
#[derive(Clone, Copy, Default)]
pub struct Pieces {
    /// Where the array lies, AVMA.
    address: u64,
    /// How many elements the array has.
    count: u64,
}

impl Transfer {
    /// The transfer of the syscall that ends with a [`result`].
    #[inline(always)]
    pub fn of(ctx: &TracePointContext, result: i64) -> Self {
        let regs = saved_registers();
        Self {
            descriptor: regs.rdi as u32,
            result,
            number: number(ctx),
            regs,
        }
    }

    /// The stack pointer of the code that made the syscall, AVMA.
    #[inline(always)]
    pub const fn sp(&self) -> u64 {
        self.regs.rsp
    }

    /// Whether the data is still there for the next read.
    #[inline(always)]
    pub const fn is_peek(&self) -> bool {
        match self.number {
            nr::RECVFROM => self.regs.r10 & MSG_PEEK != 0,
            nr::RECVMSG => self.regs.rdx & MSG_PEEK != 0,
            _ => false,
        }
    }

    /// The data that was transferred, if any was. The kernel side cannot read data that is sent from a file.
    #[inline(always)]
    pub fn data(&self) -> Data {
        let transferred = self.result as u64;
        let regs = self.regs;
        let pieces = match self.number {
            nr::READV | nr::WRITEV => Some((regs.rsi, regs.rdx)),
            nr::SENDMSG | nr::RECVMSG => Some(read_pair(regs.rsi.wrapping_add(MSG_IOV))),
            _ => None,
        };
        let (address, len) = match pieces {
            Some((first, _)) => read_pair(first),
            None if self.number == nr::SENDFILE => (0, 0),
            None => (regs.rsi, transferred),
        };
        let (first, count) = pieces.unwrap_or_default();
        Data {
            address,
            len: if len < transferred { len } else { transferred },
            transferred,
            pieces: Pieces {
                address: first,
                count,
            },
        }
    }
}

/// Where the last `bytes` of `transferred` begin, AVMA; zero if these bytes do not lie in one piece, or if
/// there are too many pieces. A global function, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn last_in_pieces(iovec: u64, count: u64, transferred: u64, bytes: u64) -> u64 {
    let mut rest = transferred;
    for piece in 0..MAX_PIECES {
        if piece >= count {
            break;
        }
        let (address, len) = read_pair(iovec.wrapping_add(piece * IOVEC_BYTES));
        if len >= rest {
            return if rest >= bytes {
                address.wrapping_add(rest - bytes)
            } else {
                0
            };
        }
        rest -= len;
    }
    0
}

impl Data {
    /// Where the last `bytes` of the data begin, AVMA, if these bytes lie in one piece.
    #[inline(always)]
    pub fn last(&self, bytes: u64) -> Option<u64> {
        if self.len == self.transferred {
            let before = self.len.checked_sub(bytes)?;
            return Some(self.address.wrapping_add(before));
        }
        let Pieces { address, count } = self.pieces;
        match last_in_pieces(address, count, self.transferred, bytes) {
            0 => None,
            last => Some(last),
        }
    }
}

/// Reads two words: the address and the length of a `struct iovec`, or the address of an array of these and
/// its count.
#[inline(always)]
fn read_pair(address: u64) -> (u64, u64) {
    // SAFETY: the helper checks the address.
    let [first, second] =
        unsafe { bpf_probe_read_user(address as *const [u64; 2]) }.unwrap_or_default();
    (first, second)
}
