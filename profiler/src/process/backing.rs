//! What lies behind a mapping, as `/proc/PID/maps` shows it.

use std::os::unix::ffi::OsStrExt as _;

use super::{Avma, Mapping, Mappings};

/// The prefix of the kernel's names for System V segments (ipc/shm.c, `newseg`).
const SEGMENT: &[u8] = b"/SYSV";
/// The prefixes of names of other shared memory: memfds (mm/memfd.c), `MAP_SHARED` without a file (mm/shmem.c,
/// `shmem_zero_setup`), POSIX shared memory (shm_open(3)).
const SHARED_MEMORY: [&[u8]; 3] = [b"/memfd:", b"/dev/zero (deleted)", b"/dev/shm/"];
/// The name of huge pages without a file (mm/hugetlb.c, `HUGETLB_ANON_FILE`).
const HUGE_PAGES: &[u8] = b"/anon_hugepage";

/// What lies behind a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Memory of the process alone.
    Memory,
    /// Memory of all processes that map the same.
    SharedMemory,
    /// No memory of its own: the mapping shows a file or a device.
    File,
}

impl Mappings {
    /// What lies behind the mapping at `address`. Where nothing is mapped any more, the answer is memory: it was
    /// there a moment ago.
    #[must_use]
    pub fn backing(&self, address: Avma) -> Backing {
        let path = self.at(address).map_or(&b""[..], path);
        if path.is_empty() || path.starts_with(b"[") || path.starts_with(HUGE_PAGES) {
            return Backing::Memory;
        }
        let mut shared = SHARED_MEMORY.into_iter().chain([SEGMENT]);
        match shared.any(|name| path.starts_with(name)) {
            true => Backing::SharedMemory,
            false => Backing::File,
        }
    }

    /// The end of the System V segment that is attached at `start`, if there is one. The end is that of the last part
    /// that is still mapped, whatever the process has cut out of the segment since.
    #[must_use]
    pub fn segment_end(&self, start: Avma) -> Option<Avma> {
        // Each part states its distance from the segment's beginning.
        let is_part = |mapping: &&Mapping| {
            mapping.start.0.checked_sub(mapping.offset.0) == Some(start.0)
                && path(mapping).starts_with(SEGMENT)
        };
        let parts = self.iter().filter(is_part);
        parts.map(|mapping| mapping.end).max()
    }
}

fn path(mapping: &Mapping) -> &[u8] {
    mapping.path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
10000-20000 rw-p 00000000 00:00 0\x20
20000-30000 rw-s 00000000 00:01 3 /SYSV00000000 (deleted)
30000-31000 r--s 00010000 00:01 3 /SYSV00000000 (deleted)
31000-32000 rw-s 00000000 00:01 3 /SYSV00000000 (deleted)
40000-41000 rw-s 0000f000 00:01 3 /SYSV00000000 (deleted)
43000-44000 rw-s 00001000 00:01 3 /SYSV00000000 (deleted)
50000-60000 rw-s 00000000 00:01 9 /memfd:x (deleted)
60000-70000 rw-s 00000000 fe:00 9 /srv/data
70000-80000 rw-p 00000000 00:00 0 [heap]
80000-90000 rw-s 00000000 00:01 9 /dev/zero (deleted)
90000-a0000 rw-p 00000000 00:0f 9 /anon_hugepage (deleted)
";

    #[test]
    fn what_has_no_file_or_only_the_name_of_one_is_memory() {
        let mappings = Mappings::parse(MAPS).expect("as the kernel writes it");
        let of = |address| mappings.backing(Avma(address));
        for address in [0x10000, 0x45000, 0x70000, 0x90000] {
            assert_eq!(of(address), Backing::Memory, "{address:#x}");
        }
        for address in [0x20000, 0x5ffff, 0x80000] {
            assert_eq!(of(address), Backing::SharedMemory, "{address:#x}");
        }
        assert_eq!(of(0x60000), Backing::File);
    }

    #[test]
    fn a_segment_ends_where_its_last_part_does() {
        let mappings = Mappings::parse(MAPS).expect("as the kernel writes it");
        let end = |start| mappings.segment_end(Avma(start)).map(|end| end.0);
        assert_eq!(end(0x20000), Some(0x31000), "the next one begins anew");
        assert_eq!(end(0x31000), Some(0x41000), "its middle is gone");
        assert_eq!(end(0x42000), Some(0x44000), "its beginning is gone");
        assert_eq!(end(0x21000), None, "not where it begins");
        assert_eq!(
            (end(0x50000), end(0x10000), end(0x45000)),
            (None, None, None)
        );
    }
}
