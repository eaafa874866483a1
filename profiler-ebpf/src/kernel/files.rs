//! The files and sockets behind the descriptors of the current process.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;

use super::memory::{load, read_kernel};
use crate::maps::SOCKET_OFFSETS;

/// uapi/linux/stat.h
const S_IFMT: u64 = 0o170_000;
/// uapi/linux/stat.h
const S_IFSOCK: u64 = 0o140_000;
/// uapi/linux/stat.h
const S_IFREG: u64 = 0o100_000;
/// The file systems whose files are memory and nothing else (uapi/linux/magic.h): tmpfs, which also has memfd
/// and POSIX shared memory, hugetlbfs and secretmem.
const IN_MEMORY: [u64; 3] = [0x0102_1994, 0x9584_58f6, 0x5345_434d];
/// uapi/asm-generic/fcntl.h
const O_NONBLOCK: u64 = 0o4_000;

/// A socket that the current process has open.
pub struct Socket {
    /// The socket's `struct file`, which tells the socket from another one of the same descriptor.
    pub file: u64,
    /// Whether reading waits for data.
    pub blocks: bool,
}

/// The socket behind a descriptor of the current process, if there is one. `known` is a `struct file` that is
/// known to be a socket's, or zero.
#[inline(always)]
pub fn socket(descriptor: u32, known: u64) -> Option<Socket> {
    let offsets = SOCKET_OFFSETS.load();
    let file = file(descriptor)?;
    if file != known {
        let inode = read_kernel(file, offsets.f_inode);
        if read_kernel(inode, offsets.i_mode) & S_IFMT != S_IFSOCK {
            return None;
        }
    }
    let flags = read_kernel(file, offsets.f_flags);
    Some(Socket {
        file,
        blocks: flags & O_NONBLOCK == 0,
    })
}

/// Whether a descriptor of the current process leads to a file that is memory and nothing else: a memfd, POSIX shared
/// memory, or any other file of a tmpfs. A device is no such file.
#[inline(always)]
pub fn is_memory(descriptor: u32) -> bool {
    let offsets = SOCKET_OFFSETS.load();
    let Some(file) = file(descriptor) else {
        return false;
    };
    let inode = read_kernel(file, offsets.f_inode);
    if read_kernel(inode, offsets.i_mode) & S_IFMT != S_IFREG {
        return false;
    }
    let magic = read_kernel(read_kernel(inode, offsets.i_sb), offsets.s_magic);
    IN_MEMORY.contains(&magic)
}

/// The `struct file` behind a descriptor that the current process has just used. The descriptor is in the
/// process's table, because the table never shrinks.
#[inline(always)]
pub fn file(descriptor: u32) -> Option<u64> {
    let offsets = SOCKET_OFFSETS.load();
    if offsets.files == 0 {
        return None;
    }
    // SAFETY: a plain helper call.
    let task = unsafe { bpf_get_current_task_btf() };
    let table = load(load(task as u64, offsets.files), offsets.fdt);
    if table == 0 {
        // Where the kernel marks such pointers, the verifier wants the program to check them.
        return None;
    }
    let slots = load(table, offsets.fd);
    // The lowest bits may be tags.
    let file = read_kernel(slots.wrapping_add(8 * u64::from(descriptor)), 0) & !7;
    (file != 0).then_some(file)
}
