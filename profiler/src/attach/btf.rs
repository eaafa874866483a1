//! Reads the offsets of fields of kernel structures from the kernel's BTF.
//!
//! Residue needs a few names and offsets, so this module scans the type section and keeps nothing: the
//! crates that read BTF build all 150,000 types first. The kernel's Documentation/bpf/btf.rst describes the
//! format.

use bytes::Buf as _;
use residue_ebpf::abi::{unwind::TaskOffsets, window::SocketOffsets};

/// The file with the types of the running kernel.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// `BTF_MAGIC`.
const MAGIC: u16 = 0xeb9f;
/// `BTF_KIND_ARRAY`.
const ARRAY: u32 = 3;
/// `BTF_KIND_STRUCT`.
const STRUCT: u32 = 4;
/// How deep [`Sections::member`] looks into structures without a name.
const MAX_NESTING: u32 = 2;
/// Bytes of `struct btf_member`.
const MEMBER_BYTES: usize = 12;

/// The offsets that residue needs, all zero where the kernel does not tell them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offsets {
    /// Without these, a stack that passes through a return probe ends there.
    pub task: TaskOffsets,
    /// Without these, there are no request windows, and residue does not count shared memory that has a
    /// descriptor.
    pub socket: SocketOffsets,
}

/// The offsets of the running kernel.
pub(super) fn offsets() -> Offsets {
    let btf = std::fs::read(VMLINUX).unwrap_or_default();
    Offsets {
        task: task_offsets(&btf).unwrap_or_default(),
        socket: socket_offsets(&btf).unwrap_or_default(),
    }
}

fn socket_offsets(btf: &[u8]) -> Option<SocketOffsets> {
    let sections = Sections::of(btf)?;
    let rss = rss_counters(&sections);
    Some(SocketOffsets {
        files: sections.field("task_struct", "files")?,
        fdt: sections.field("files_struct", "fdt")?,
        fd: sections.field("fdtable", "fd")?,
        f_flags: sections.field("file", "f_flags")?,
        f_inode: sections.field("file", "f_inode")?,
        i_mode: sections.field("inode", "i_mode")?,
        i_sb: sections.field("inode", "i_sb")?,
        s_magic: sections.field("super_block", "s_magic")?,
        mm: sections.field("task_struct", "mm")?,
        rss: rss.map_or(0, |(first, _)| first),
        rss_stride: rss.map_or(0, |(_, stride)| stride),
        nvcsw: sections.field("task_struct", "nvcsw")?,
        start_time: sections.field("task_struct", "start_time")?,
    })
}

/// Where the first counter of resident pages is in a `mm_struct`, and the distance to the next one, bytes.
/// From Linux 6.2 on the counters are an array of `struct percpu_counter`, before that an array of words.
fn rss_counters(sections: &Sections<'_>) -> Option<(u32, u32)> {
    let (offset, kind) = sections.typed_field("mm_struct", "rss_stat")?;
    if sections.nth(kind)?.kind != ARRAY {
        return Some((offset, size_of::<u64>() as u32));
    }
    let count = sections.field("percpu_counter", "count")?;
    Some((offset + count, sections.size("percpu_counter")?))
}

fn task_offsets(btf: &[u8]) -> Option<TaskOffsets> {
    let sections = Sections::of(btf)?;
    Some(TaskOffsets {
        utask: sections.field("task_struct", "utask")?,
        return_instances: sections.field("uprobe_task", "return_instances")?,
        stack: sections.field("return_instance", "stack")?,
        orig_ret_vaddr: sections.field("return_instance", "orig_ret_vaddr")?,
        next: sections.field("return_instance", "next")?,
        fsbase: sections.field("task_struct", "thread")?
            + sections.field("thread_struct", "fsbase")?,
        signal: sections.field("task_struct", "signal")?,
        live: sections.field("signal_struct", "live")?,
    })
}

/// The two sections of a BTF blob.
struct Sections<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

/// One entry of the type section.
struct Type<'a> {
    name: u32,
    kind: u32,
    /// The size of a structure, bytes.
    size: u32,
    /// Whether the offsets of members have the size of a bitfield in their top byte.
    kind_flag: bool,
    members: &'a [u8],
}

impl<'a> Sections<'a> {
    fn of(btf: &'a [u8]) -> Option<Self> {
        let mut header = btf.get(..24)?;
        if header.get_u16_le() != MAGIC {
            return None;
        }
        header.advance(2);
        let body = btf.get(header.get_u32_le() as usize..)?;
        let mut section = || {
            let start = header.get_u32_le() as usize;
            let length = header.get_u32_le() as usize;
            body.get(start..start.checked_add(length)?)
        };
        Some(Self {
            types: section()?,
            strings: section()?,
        })
    }

    /// Bytes from the beginning of a structure to one of its fields.
    fn field(&self, structure: &str, field: &str) -> Option<u32> {
        Some(self.typed_field(structure, field)?.0)
    }

    /// Bytes from the beginning of a structure to one of its fields, with the number of the field's type.
    fn typed_field(&self, structure: &str, field: &str) -> Option<(u32, u32)> {
        self.member(&self.structure(structure)?, field, MAX_NESTING)
    }

    /// The size of a structure, bytes.
    fn size(&self, structure: &str) -> Option<u32> {
        Some(self.structure(structure)?.size)
    }

    fn structure(&self, name: &str) -> Option<Type<'a>> {
        self.all()
            .find(|entry| entry.kind == STRUCT && self.is(entry.name, name))
    }

    /// The type with this number. The first type is 1, because 0 is `void`.
    fn nth(&self, number: u32) -> Option<Type<'a>> {
        self.all().nth(number.checked_sub(1)? as usize)
    }

    fn all(&self) -> impl Iterator<Item = Type<'a>> {
        let mut types = self.types;
        std::iter::from_fn(move || next_type(&mut types))
    }

    /// The offset and the type of a structure's field. The fields of an inner structure without a name count as
    /// fields of the outer one.
    fn member(&self, structure: &Type<'_>, field: &str, depth: u32) -> Option<(u32, u32)> {
        let (members, _) = structure.members.as_chunks::<MEMBER_BYTES>();
        members.iter().find_map(|member| {
            let mut member = &member[..];
            let (name, kind) = (member.get_u32_le(), member.get_u32_le());
            let offset = bytes(member.get_u32_le(), structure.kind_flag);
            if self.is(name, field) {
                return Some((offset, kind));
            }
            if !self.is(name, "") || depth == 0 {
                return None;
            }
            let inner = self.nth(kind).filter(|entry| entry.kind == STRUCT)?;
            let (inner, kind) = self.member(&inner, field, depth - 1)?;
            Some((offset.checked_add(inner)?, kind))
        })
    }

    fn is(&self, offset: u32, name: &str) -> bool {
        let string = self.strings.get(offset as usize..);
        string
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// The bytes of an offset in bits, which has the size of a bitfield in its top byte if `kind_flag` says so.
const fn bytes(bits: u32, kind_flag: bool) -> u32 {
    if kind_flag {
        (bits & 0x00ff_ffff) / 8
    } else {
        bits / 8
    }
}

/// Takes one type off the section; `None` at the end, or at a type of an unknown kind.
fn next_type<'a>(types: &mut &'a [u8]) -> Option<Type<'a>> {
    let mut head = types.get(..12)?;
    let name = head.get_u32_le();
    let info = head.get_u32_le();
    let size = head.get_u32_le();
    let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
    let extra = match kind {
        // Pointers, forwards, typedefs, qualifiers, functions, floats, type tags.
        2 | 7 | 8 | 9 | 10 | 11 | 12 | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, data sections, 64-bit enumerations.
        4 | 5 | 15 | 19 => MEMBER_BYTES * count,
        // Enumerations, parameters of functions.
        6 | 13 => 8 * count,
        _ => return None,
    };
    let members = types.get(12..12 + extra)?;
    *types = &types[12 + extra..];
    Some(Type {
        name,
        kind,
        size,
        kind_flag: info >> 31 != 0,
        members,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::skipped;

    /// The running kernel's BTF. Without one, says so on the terminal, past the test runner's capture.
    fn vmlinux(test: &str) -> Option<Vec<u8>> {
        let btf = std::fs::read(VMLINUX).ok();
        if btf.is_none() {
            skipped(test, &format!("{VMLINUX} (CONFIG_DEBUG_INFO_BTF)"));
        }
        btf
    }

    #[test]
    fn the_running_kernels_offsets_are_found() {
        let Some(btf) = vmlinux("the_running_kernels_offsets_are_found") else {
            return;
        };
        let offsets = task_offsets(&btf).expect("every kernel with uprobes has these structures");
        assert!(offsets.utask > 0 && offsets.orig_ret_vaddr != offsets.stack);
        let offsets = socket_offsets(&btf).expect("every kernel has these structures");
        assert!(offsets.mm > 0 && offsets.fd > 0);
        assert!(offsets.rss > 0 && offsets.rss_stride >= 8);
    }

    #[test]
    fn a_blob_cut_off_anywhere_never_panics() {
        let Some(btf) = vmlinux("a_blob_cut_off_anywhere_never_panics") else {
            return;
        };
        for length in (0..64).chain((64..btf.len()).step_by(1 << 18)) {
            let _ = (task_offsets(&btf[..length]), socket_offsets(&btf[..length]));
        }
    }
}
