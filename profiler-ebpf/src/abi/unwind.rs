//! Unwind tables, which say for every instruction of an object how to get from a frame to the caller's frame.
//!
//! A table lays out for a walk in the kernel what `.eh_frame` says in a byte code. One look-up finds the
//! page, a short binary search the row, and one more look-up the rule. Rules repeat a lot, so all objects
//! share one table of rules. A row has four bytes.
//!
//! Places in an object are file offsets, so that neither the load bias nor a `PT_LOAD` header matters to the walk.

/// How many bytes of an object's file a page has, as a power of two. Smaller pages mean fewer steps of the
/// binary search and more page entries. With 1 KiB, a page has about 17 rows, and the search takes 5 steps.
pub const PAGE_BITS: u32 = 10;
/// How many rows make one map value.
pub const CHUNK_ROWS: usize = 1024;
/// How many pages make one map value.
pub const CHUNK_PAGES: usize = 512;
/// How many rules there can be: a row names a rule in 16 bits.
pub const MAX_RULES: usize = 1 << 16;

/// A row of an unwind table. The row's rule holds from the row's offset to that of the next row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Row {
    /// Bytes from the beginning of the page.
    pub offset: u16,
    /// Index into the rules.
    pub rule: u16,
}

/// A page: where the page's rows are. The rows of a page never lie in two chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Page {
    /// Which chunk of rows.
    pub chunk: u32,
    /// The first row, counted in the chunk. The row's rule holds from the page's first byte on.
    pub first: u16,
    /// How many rows the page has: at least one if the object has a table.
    pub count: u16,
}

/// Rows that make one map value.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RowChunk {
    /// The rows in the order of their offsets, page by page.
    pub rows: [Row; CHUNK_ROWS],
}

/// Pages that make one map value.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PageChunk {
    /// The pages in the order of file offsets, object by object.
    pub pages: [Page; CHUNK_PAGES],
}

/// How a walk finds the canonical frame address (CFA), which is the stack pointer before the call, and what
/// else is special about a rule. Unless a kind says otherwise, the return address is at CFA - 8, and the
/// caller's stack pointer is the CFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RuleKind {
    /// `cfa = sp + cfa_offset`
    Sp,
    /// `cfa = bp + cfa_offset`
    Bp,
    /// `cfa = *(sp + cfa_offset) + addend`
    SpDeref,
    /// `cfa = *(bp + cfa_offset) + addend`: a stack that was realigned.
    BpDeref,
    /// `cfa = sp + cfa_offset + (if ip % 16 >= addend { 8 } else { 0 })`: a stub of the procedure
    /// linkage table, as binutils describes it.
    Plt,
    /// A signal frame: the interrupted registers lie on the stack, at `sp + cfa_offset` in the
    /// order of `struct sigcontext` (arch/x86/include/uapi/asm/sigcontext.h).
    Signal,
    /// No table covers this code, but the code keeps frame pointers:
    /// `(sp, bp, ip) = (bp + 16, *bp, *(bp + 8))`
    FramePointer,
    /// No table covers this code.
    NoTable,
    /// The outermost frame of a stack, which has no return address.
    Bottom,
    /// The object says how to find the CFA, but not by a rule of these kinds.
    Unsupported,
}

/// How a walk finds the caller's frame pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum BpRule {
    /// `bp` still is the caller's, or nobody knows.
    Same,
    /// `bp = *(cfa + bp_offset)`
    AtCfa,
    /// `bp = *(bp + bp_offset)`: beside a realigned stack.
    AtBp,
    /// `bp = *(sp + bp_offset)`
    AtSp,
}

/// How to get from a frame to the caller's frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Rule {
    /// A [`RuleKind`].
    pub kind: u8,
    /// A [`BpRule`].
    pub bp: u8,
    /// Zero.
    pub reserved: u16,
    /// The offset of the CFA, bytes. Stack frames of 64 KiB and more exist, so 16 bits are too few.
    pub cfa_offset: i32,
    /// The offset of the caller's frame pointer, bytes.
    pub bp_offset: i32,
    /// The addend of those [`RuleKind`]s that have one.
    pub addend: i32,
}

impl Rule {
    /// Makes a rule that says how to find the CFA.
    #[must_use]
    pub const fn new(kind: RuleKind, cfa_offset: i32) -> Self {
        Self {
            kind: kind as u8,
            bp: BpRule::Same as u8,
            reserved: 0,
            cfa_offset,
            bp_offset: 0,
            addend: 0,
        }
    }

    /// The same rule, which says where the caller's frame pointer is as well.
    #[must_use]
    pub const fn with_bp(self, bp: BpRule, bp_offset: i32) -> Self {
        Self {
            bp: bp as u8,
            bp_offset,
            ..self
        }
    }

    /// The same rule, with an addend.
    #[must_use]
    pub const fn with_addend(self, addend: i32) -> Self {
        Self { addend, ..self }
    }
}

/// The state of an object's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TableState {
    /// User space is making the table.
    Loading,
    /// The object has no table, because it is no ELF file or has neither `.eh_frame` nor `.debug_frame`.
    Missing,
    /// The object has no table, but its code keeps frame pointers.
    FramePointers,
    /// There was no room for the table.
    NoRoom,
    /// The pages of the table can be read.
    Ready,
}

/// An object, as the kernel side sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ObjectState {
    /// The object's first page, counted over all chunks. The page holds `first_offset`.
    pub first_page: u32,
    /// How many pages the object has.
    pub pages: u32,
    /// File offset of the first page, in pages.
    pub first_offset: u32,
    /// A [`TableState`]. Written last.
    pub state: u32,
}

/// An executable mapping of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CodeMapping {
    /// First byte, AVMA.
    pub start: u64,
    /// Just behind the last byte, AVMA.
    pub end: u64,
    /// File offset of the first byte.
    pub offset: u64,
    /// Index into the objects.
    pub object: u32,
    /// Zero.
    pub reserved: u32,
}

/// Which of all mappings belong to a process: `count << 32 | first`, in one word, so that a walk sees either
/// the old list or the new one.
#[must_use]
pub const fn mapping_list(first: u32, count: u32) -> u64 {
    (count as u64) << 32 | first as u64
}

/// The offsets of the fields that the kernel side reads of a task, bytes, from the kernel's BTF; zero if an
/// offset is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TaskOffsets {
    /// `task_struct.utask`, which leads to the return addresses that return probes have replaced.
    pub utask: u32,
    /// `uprobe_task.return_instances`
    pub return_instances: u32,
    /// `return_instance.stack`
    pub stack: u32,
    /// `return_instance.orig_ret_vaddr`
    pub orig_ret_vaddr: u32,
    /// `return_instance.next`
    pub next: u32,
    /// `task_struct.thread.fsbase`: where the thread keeps its thread-local storage.
    pub fsbase: u32,
    /// `task_struct.signal`: what the threads of a process have in common.
    pub signal: u32,
    /// `signal_struct.live`: how many of the threads have not exited.
    pub live: u32,
}

const _: () = {
    assert!(size_of::<TaskOffsets>() == 32);
    assert!(size_of::<Row>() == 4);
    assert!(size_of::<Page>() == 8);
    assert!(size_of::<RowChunk>() == 4096);
    assert!(size_of::<PageChunk>() == 4096);
    assert!(size_of::<Rule>() == 16);
    assert!(size_of::<ObjectState>() == 16);
    assert!(size_of::<CodeMapping>() == 32);
};
