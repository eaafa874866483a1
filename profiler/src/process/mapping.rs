//! The mappings of a process, as `/proc/PID/maps` lists them.
//!
//! Residue parses them here rather than by the procfs crate: file names in a target are arbitrary
//! bytes, and a name that is not UTF-8 must not make the process unreadable.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::address::{Avma, FileOffset};

/// The identity of a file behind a mapping or an object, whatever its name: two names or two
/// containers may share one file, and a probe is in the file, not in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The device, as `st_dev` encodes it.
    pub device: u64,
    /// The inode on it.
    pub inode: u64,
}

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: Avma,
    /// The address behind the last one.
    pub end: Avma,
    /// The place of `start` in the file.
    pub offset: FileOffset,
    /// Whether the process may run code in the mapping.
    pub executable: bool,
    /// Whether the process may write to the mapping.
    pub writable: bool,
    /// The file; `None` for anonymous memory.
    pub file: Option<FileKey>,
    /// The file as the target names it, or a name in brackets such as `[heap]`; may be empty.
    pub path: PathBuf,
}

/// All mappings of a process at one moment, in the order of their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings(Vec<Mapping>);

impl Mappings {
    /// Reads the text of `/proc/PID/maps`; `None` if a line has another form.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let mut mappings: Vec<_> = lines.map(Mapping::parse).collect::<Option<_>>()?;
        mappings.sort_by_key(|mapping| mapping.start);
        Some(Self(mappings))
    }

    /// The mappings in the order of their addresses.
    pub fn iter(&self) -> std::slice::Iter<'_, Mapping> {
        self.0.iter()
    }

    /// Whether the process has no mappings: it has exited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mapping that holds `address`.
    #[must_use]
    pub fn at(&self, address: Avma) -> Option<&Mapping> {
        let behind = self.0.partition_point(|mapping| mapping.start <= address);
        let mapping = self.0.get(behind.checked_sub(1)?)?;
        (address < mapping.end).then_some(mapping)
    }

    /// The mapping that holds `address`, and the offset of `address` in the mapping's file. The
    /// offset means nothing for a mapping without a file.
    #[must_use]
    pub fn locate(&self, address: Avma) -> Option<(&Mapping, FileOffset)> {
        let mapping = self.at(address)?;
        let offset = mapping
            .offset
            .checked_add(address.0.checked_sub(mapping.start.0)?)?;
        Some((mapping, offset))
    }

    /// The executable mapping through which the process runs the code at `offset` of `file`.
    #[must_use]
    pub fn text(&self, file: FileKey, offset: FileOffset) -> Option<&Mapping> {
        self.0.iter().find(|mapping| {
            let into = offset.0.checked_sub(mapping.offset.0);
            mapping.executable
                && mapping.file == Some(file)
                && into.is_some_and(|into| into < mapping.end.0 - mapping.start.0)
        })
    }

    /// The program break, where the `[heap]` ends.
    #[must_use]
    pub fn heap_end(&self) -> Option<Avma> {
        let heap = self
            .0
            .iter()
            .rev()
            .find(|mapping| mapping.path == Path::new("[heap]"))?;
        Some(heap.end)
    }

    /// The kernel's `[uprobes]` page, which holds out-of-line copies and the return trampoline. The
    /// page exists once a probe of this process needed it.
    #[must_use]
    pub fn uprobes(&self) -> Option<Range<Avma>> {
        let page = self
            .0
            .iter()
            .find(|mapping| mapping.path == Path::new("[uprobes]"))?;
        Some(page.start..page.end)
    }
}

impl Mapping {
    /// `start-end perms offset major:minor inode  path` (proc_pid_maps(5)).
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut field = || fields.next();
        let (start, end) = pair(field()?, '-')?;
        let permissions = field()?;
        let offset = number(field()?, 16)?;
        let (major, minor) = pair(field()?, ':')?;
        let inode = number(field()?, 10)?;
        let path = field().unwrap_or_default().trim_ascii_start();
        let device = rustix::fs::makedev(u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
        (start < end).then(|| Self {
            start: Avma(start),
            end: Avma(end),
            offset: FileOffset(offset),
            executable: permissions.get(2) == Some(&b'x'),
            writable: permissions.get(1) == Some(&b'w'),
            file: (inode != 0).then_some(FileKey { device, inode }),
            path: PathBuf::from(OsStr::from_bytes(path)),
        })
    }
}

fn number(text: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(text).ok()?, radix).ok()
}

/// Two hexadecimal numbers.
fn pair(text: &[u8], separator: char) -> Option<(u64, u64)> {
    let (first, second) = str::from_utf8(text).ok()?.split_once(separator)?;
    Some((
        number(first.as_bytes(), 16)?,
        number(second.as_bytes(), 16)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
55d0c1a00000-55d0c1a2f000 r--p 00000000 fe:01 131 /usr/bin/ba\xffsh (deleted)\n\
55d0c1a2f000-55d0c1b01000 r-xp 0002f000 fe:01 131 /usr/bin/ba\xffsh (deleted)\n\
55d0c2000000-55d0c2100000 rw-p 00000000 00:00 0                          [heap]\n\
7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n\
7fffffffe000-7ffffffff000 --xp 00000000 00:00 0                          [uprobes]\n";

    fn mappings() -> Mappings {
        Mappings::parse(MAPS).expect("the text is what the kernel writes")
    }

    #[test]
    fn an_address_is_located_in_its_file() {
        let mappings = mappings();
        let (mapping, offset) = mappings
            .locate(Avma(0x55d0_c1a2_f010))
            .expect("in the text");
        assert!(mapping.executable);
        assert_eq!(offset, FileOffset(0x2f010));
        let file = mapping.file.expect("backed by a file");
        assert_eq!(
            file,
            FileKey {
                device: rustix::fs::makedev(0xfe, 1),
                inode: 131
            }
        );
        assert_eq!(mappings.text(file, offset), Some(mapping));
    }

    #[test]
    fn addresses_between_mappings_belong_to_none() {
        for address in [0, 0x55d0_c1b0_1000, u64::MAX] {
            assert_eq!(mappings().locate(Avma(address)), None);
        }
    }

    #[test]
    fn named_ranges_are_found() {
        assert_eq!(mappings().heap_end(), Some(Avma(0x55d0_c210_0000)));
        let uprobes = mappings().uprobes().map(|range| range.start);
        assert_eq!(uprobes, Some(Avma(0x7fff_ffff_e000)));
    }

    #[test]
    fn a_line_that_is_not_the_kernels_is_refused() {
        assert_eq!(Mappings::parse(b"2000-1000 r-xp 00000000 00:00 0\n"), None);
        assert_eq!(Mappings::parse(b"garbage\n"), None);
        assert_eq!(Mappings::parse(b""), Some(Mappings::default()));
    }
}
