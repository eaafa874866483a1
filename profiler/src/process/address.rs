//! Address spaces as types, and the program headers that lead from one to another.

use std::fmt;

macro_rules! address {
    ($(#[doc = $meaning:literal])+ $name:ident) => {
        $(#[doc = $meaning])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// This address moved up by `bytes`, unless that leaves the address space.
            #[must_use]
            pub fn checked_add(self, bytes: u64) -> Option<Self> {
                self.0.checked_add(bytes).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// Actual virtual memory address: what an instruction in the process sees.
    Avma
}
address! {
    /// Stated virtual memory address: what the ELF file's symbols and headers say.
    Svma
}
address! {
    /// Position in an object file, in bytes; a uprobe is attached at one.
    FileOffset
}

/// AVMA - SVMA of an object in a process, modulo 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadBias(pub u64);

impl LoadBias {
    /// The place in the process of what the file states to be at `address`.
    #[must_use]
    pub fn avma(self, address: Svma) -> Avma {
        Avma(address.0.wrapping_add(self.0))
    }

    /// The place that the file states for what the process has at `address`.
    #[must_use]
    pub fn svma(self, address: Avma) -> Svma {
        Svma(address.0.wrapping_sub(self.0))
    }
}

/// Bytes of the smallest page: the kernel maps a segment from the page that holds its first byte.
const PAGE_BYTES: u64 = 4096;

/// A `PT_LOAD` program header: the part of it that comes from the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// `p_offset`.
    pub offset: FileOffset,
    /// `p_vaddr`.
    pub address: Svma,
    /// `p_filesz`, in bytes.
    pub file_bytes: u64,
    /// Whether `PF_X` is set.
    pub executable: bool,
}

impl Segment {
    /// The place in the file of what is at `address`.
    pub(super) fn file_offset(&self, address: Svma) -> Option<FileOffset> {
        let into = address.0.checked_sub(self.address.0)?;
        (into < self.file_bytes).then(|| self.offset.checked_add(into))?
    }
}

/// The executable `PT_LOAD` segments of an object. Data segments share pages of the file with them,
/// so the conversions are unambiguous only without data segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextSegments(Vec<Segment>);

impl TextSegments {
    /// Keeps the executable segments.
    #[must_use]
    pub fn new(segments: impl IntoIterator<Item = Segment>) -> Self {
        Self(segments.into_iter().filter(|s| s.executable).collect())
    }

    /// The segments, in the order of the program headers.
    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.0.iter()
    }

    /// The place in the file of the code at `address`.
    #[must_use]
    pub fn file_offset(&self, address: Svma) -> Option<FileOffset> {
        let mut segments = self.0.iter();
        segments.find_map(|segment| segment.file_offset(address))
    }

    /// The address that the file states for the code at `offset`.
    #[must_use]
    pub fn svma(&self, offset: FileOffset) -> Option<Svma> {
        self.0.iter().find_map(|segment| {
            let into = offset.0.checked_sub(segment.offset.0)?;
            (into < segment.file_bytes).then(|| segment.address.checked_add(into))?
        })
    }

    /// The load bias, if the process maps the file's bytes from `offset` on at `start`.
    #[must_use]
    pub fn load_bias(&self, start: Avma, offset: FileOffset) -> Option<LoadBias> {
        self.0.iter().find_map(|segment| {
            let first = segment.offset.0 & !(PAGE_BYTES - 1);
            let end = segment.offset.0.checked_add(segment.file_bytes)?;
            (first..end).contains(&offset.0).then(|| {
                let into = offset.0.wrapping_sub(segment.offset.0);
                LoadBias(start.0.wrapping_sub(segment.address.0.wrapping_add(into)))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(offset: u64, address: u64, file_bytes: u64) -> TextSegments {
        TextSegments::new([
            Segment {
                offset: FileOffset(0),
                address: Svma(0),
                file_bytes: offset,
                executable: false,
            },
            Segment {
                offset: FileOffset(offset),
                address: Svma(address),
                file_bytes,
                executable: true,
            },
        ])
    }

    #[test]
    fn text_converts_both_ways_and_nothing_else_does() {
        let segments = text(0x1234, 0x40_2234, 0x100);
        assert_eq!(
            segments.file_offset(Svma(0x40_2240)),
            Some(FileOffset(0x1240))
        );
        assert_eq!(segments.svma(FileOffset(0x1240)), Some(Svma(0x40_2240)));
        assert_eq!(segments.file_offset(Svma(0x40_2334)), None);
        assert_eq!(segments.svma(FileOffset(0x10)), None);
    }

    #[test]
    fn a_segment_that_begins_inside_a_page_is_mapped_from_that_page() {
        let segments = text(0x1234, 0x2234, 0x1000);
        let bias = segments.load_bias(Avma(0x7000_1000), FileOffset(0x1000));
        assert_eq!(bias, Some(LoadBias(0x6fff_f000)));
        let again = segments.load_bias(Avma(0x7000_2000), FileOffset(0x2000));
        assert_eq!(again, bias, "a mapping split by mprotect has the same bias");
    }

    #[test]
    fn headers_at_the_end_of_the_address_space_do_not_overflow() {
        let segments = text(u64::MAX - 4, u64::MAX - 4, u64::MAX);
        assert_eq!(
            segments.file_offset(Svma(u64::MAX)),
            Some(FileOffset(u64::MAX))
        );
        assert_eq!(segments.load_bias(Avma(1), FileOffset(u64::MAX)), None);
    }
}
