//! What the kernel's structures say of a descriptor, and of the process's resident set.

use aya_ebpf::helpers::generated::bpf_get_current_task;

use crate::{maps::SOCKET_OFFSETS, stack::read_kernel};

/// uapi/linux/stat.h
const S_IFMT: u64 = 0o170_000;
/// uapi/linux/stat.h
const S_IFSOCK: u64 = 0o140_000;
/// uapi/asm-generic/fcntl.h
const O_NONBLOCK: u64 = 0o4_000;
/// Bytes of a page.
const PAGE: u64 = 4096;
/// `MM_FILEPAGES`, `MM_ANONPAGES` and `MM_SHMEMPAGES` (linux/mm_types_task.h): all but swap.
const RESIDENT: [u32; 3] = [0, 1, 3];

/// A socket that the current process has open.
pub struct Socket {
    /// Its `struct file`, by which it is told from another one of the same descriptor.
    pub file: u64,
    /// Whether reading waits for data.
    pub blocks: bool,
}

/// The socket behind a descriptor of the current process.
#[inline(always)]
pub fn socket(descriptor: u32) -> Option<Socket> {
    let offsets = SOCKET_OFFSETS.load();
    let file = file(descriptor)?;
    let inode = read_kernel(file, offsets.f_inode);
    let flags = read_kernel(file, offsets.f_flags);
    let is_socket = read_kernel(inode, offsets.i_mode) & S_IFMT == S_IFSOCK;
    is_socket.then_some(Socket {
        file,
        blocks: flags & O_NONBLOCK == 0,
    })
}

/// The `struct file` behind a descriptor of the current process.
#[inline(always)]
pub fn file(descriptor: u32) -> Option<u64> {
    let offsets = SOCKET_OFFSETS.load();
    if offsets.files == 0 {
        return None;
    }
    // SAFETY: a plain helper call.
    let files = read_kernel(unsafe { bpf_get_current_task() }, offsets.files);
    let table = read_kernel(files, offsets.fdt);
    if descriptor >= read_kernel(table, offsets.max_fds) as u32 {
        return None;
    }
    let slots = read_kernel(table, offsets.fd);
    // The lowest bits may be tags.
    let file = read_kernel(slots.wrapping_add(8 * u64::from(descriptor)), 0) & !7;
    (file != 0).then_some(file)
}

/// The resident set of the current process, bytes, without what CPUs have yet to add; zero if the
/// kernel does not say.
#[inline(always)]
pub fn resident_set() -> u64 {
    let offsets = SOCKET_OFFSETS.load();
    if offsets.rss == 0 {
        return 0;
    }
    // SAFETY: a plain helper call.
    let mm = read_kernel(unsafe { bpf_get_current_task() }, offsets.mm);
    let mut pages = 0;
    for counter in RESIDENT {
        let count = read_kernel(mm, offsets.rss + counter * offsets.rss_stride) as i64;
        // What is not added yet may make it negative.
        if count > 0 {
            pages += count as u64;
        }
    }
    pages * PAGE
}
