//! Offsets of kernel structures' fields, from the kernel's BTF.
//!
//! Only names and offsets of a few structures are wanted, so the type section is scanned once and
//! nothing of it is kept: the crates that read BTF build all 150,000 types first. The format is in
//! Documentation/bpf/btf.rst.

use bytes::Buf as _;
use residue_ebpf::abi::unwind::TaskOffsets;

/// The kernel's own types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// `BTF_MAGIC`.
const MAGIC: u16 = 0xeb9f;
/// `BTF_KIND_STRUCT`.
const STRUCT: u32 = 4;
/// Bytes of `struct btf_member`.
const MEMBER_BYTES: usize = 12;

/// Where the kernel keeps the return addresses that return probes have replaced; all zero where it
/// does not say. Stacks that pass through a return probe are then cut there.
pub(super) fn task_offsets() -> TaskOffsets {
    std::fs::read(VMLINUX)
        .ok()
        .and_then(|btf| offsets_in(&btf))
        .unwrap_or_default()
}

fn offsets_in(btf: &[u8]) -> Option<TaskOffsets> {
    let sections = Sections::of(btf)?;
    Some(TaskOffsets {
        utask: sections.field("task_struct", "utask")?,
        return_instances: sections.field("uprobe_task", "return_instances")?,
        stack: sections.field("return_instance", "stack")?,
        orig_ret_vaddr: sections.field("return_instance", "orig_ret_vaddr")?,
        next: sections.field("return_instance", "next")?,
        fsbase: sections.field("task_struct", "thread")?
            + sections.field("thread_struct", "fsbase")?,
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
    /// Whether member offsets hold a bitfield's size in their top byte.
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
        let mut types = self.types;
        while let Some(found) = next_type(&mut types) {
            if found.kind == STRUCT && self.is(found.name, structure) {
                return self.member(&found, field);
            }
        }
        None
    }

    fn member(&self, structure: &Type<'_>, field: &str) -> Option<u32> {
        let (members, _) = structure.members.as_chunks::<MEMBER_BYTES>();
        let found = members
            .iter()
            .find(|member| self.is((&member[..]).get_u32_le(), field))?;
        let bits = (&found[8..]).get_u32_le();
        let bits = if structure.kind_flag {
            bits & 0x00ff_ffff
        } else {
            bits
        };
        Some(bits / 8)
    }

    fn is(&self, offset: u32, name: &str) -> bool {
        let string = self.strings.get(offset as usize..);
        string
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Takes one type off the section; `None` at the end, or at a kind that is not known.
fn next_type<'a>(types: &mut &'a [u8]) -> Option<Type<'a>> {
    let mut head = types.get(..12)?;
    let name = head.get_u32_le();
    let info = head.get_u32_le();
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
        kind_flag: info >> 31 != 0,
        members,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::skipped;

    /// The running kernel's BTF. When it has none, says so around the runner's capture.
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
        let offsets = offsets_in(&btf).expect("every kernel with uprobes has these structures");
        assert!(offsets.utask > 0 && offsets.orig_ret_vaddr != offsets.stack);
    }

    #[test]
    fn a_blob_cut_off_anywhere_never_panics() {
        let Some(btf) = vmlinux("a_blob_cut_off_anywhere_never_panics") else {
            return;
        };
        for length in (0..64).chain((64..btf.len()).step_by(1 << 18)) {
            let _ = offsets_in(&btf[..length]);
        }
    }
}
