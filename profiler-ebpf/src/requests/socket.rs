//! What the kernel's structures say of a descriptor, and of the process's resident set.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;

use crate::{maps::SOCKET_OFFSETS, stack::read_kernel};

/// uapi/linux/stat.h
const S_IFMT: u64 = 0o170_000;
/// uapi/linux/stat.h
const S_IFSOCK: u64 = 0o140_000;
/// uapi/linux/stat.h
const S_IFREG: u64 = 0o100_000;
/// The file systems whose files are memory and nothing else: tmpfs (memfd and POSIX shared memory, too),
/// hugetlbfs, secretmem (uapi/linux/magic.h).
const IN_MEMORY: [u64; 3] = [0x0102_1994, 0x9584_58f6, 0x5345_434d];
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

/// The socket behind a descriptor of the current process; `known` is the `struct file` of one, if that is known.
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

/// Whether what a descriptor of the current process leads to is a file that is memory and nothing else: a
/// memfd, POSIX shared memory, any file of a tmpfs. A device is none.
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

/// The `struct file` behind a descriptor that the current process has just used: it is in the table, which
/// never shrinks.
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
        // Where the kernel marks such pointers, the verifier wants it checked.
        return None;
    }
    let slots = load(table, offsets.fd);
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
    let task = unsafe { bpf_get_current_task_btf() };
    let mm = load(task as u64, offsets.mm);
    // Before 6.2, the verifier does not know the type of these counters, which are words then.
    let is_typed = offsets.rss_stride as usize != size_of::<u64>();
    let mut pages = 0;
    for counter in RESIDENT {
        let offset = offsets.rss + counter * offsets.rss_stride;
        let count = match is_typed {
            true => load(mm, offset),
            false => read_kernel(mm, offset),
        };
        // What is not added yet may make it negative.
        if count as i64 > 0 {
            pages += count;
        }
    }
    pages * PAGE
}

/// How often the current thread has waited so far.
#[inline(always)]
pub fn waits() -> u64 {
    let offsets = SOCKET_OFFSETS.load();
    if offsets.files == 0 {
        return 0;
    }
    // SAFETY: a plain helper call.
    let task = unsafe { bpf_get_current_task_btf() };
    load(task as u64, offsets.nvcsw)
}

/// When the current thread was started, nanoseconds of the monotonic clock; zero if the kernel does not say.
#[inline(always)]
pub fn started_ns() -> u64 {
    let offsets = SOCKET_OFFSETS.load();
    if offsets.files == 0 {
        return 0;
    }
    // SAFETY: a plain helper call.
    let task = unsafe { bpf_get_current_task_btf() };
    load(task as u64, offsets.start_time)
}

/// A word of a structure that the verifier knows by its type, at an offset that it knows as well: a plain
/// load, which yields zero where nothing can be read.
#[inline(always)]
fn load(base: u64, offset: u32) -> u64 {
    let address = base.wrapping_add(u64::from(offset)) as *const u64;
    // SAFETY: the verifier allows nothing else than what is said above.
    unsafe { address.read_volatile() }
}
