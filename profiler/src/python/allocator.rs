//! Finds Python's own allocator, by following the pointers that Python's exported functions follow. That works
//! in stripped builds too, and finds the allocator that this process has chosen.
//!
//! `PyObject_Malloc` and the like jump through a table, `PyMemAllocatorEx`: `{ ctx, malloc, calloc, realloc,
//! free }` (Include/cpython/pymem.h). Tracemalloc and PYTHONMALLOC=debug put hooks before an allocator: in the
//! table of a hook, `ctx` says where the table of the allocator is.

use std::collections::{BTreeSet, HashMap};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfo, InstructionInfoFactory,
    Mnemonic, OpAccess, OpKind, Register,
};
use residue_ebpf::abi::call_shape::CallShape;

use crate::probes::FunctionCode;
use crate::probes::site::{self, SitePolicy};
use crate::process::{Avma, Memory};

/// The exported functions for objects, in the order of the pointers in the table.
pub const OBJECT_FUNCTIONS: [&str; 4] = [
    "PyObject_Malloc",
    "PyObject_Calloc",
    "PyObject_Realloc",
    "PyObject_Free",
];
/// The exported functions that always lead to the C library's allocator, in the same order.
pub const RAW_FUNCTIONS: [&str; 4] = [
    "PyMem_RawMalloc",
    "PyMem_RawCalloc",
    "PyMem_RawRealloc",
    "PyMem_RawFree",
];
/// The call shapes of the functions that the pointers lead to.
pub const SHAPES: [CallShape; 4] = [
    CallShape::PythonMalloc,
    CallShape::PythonCalloc,
    CallShape::PythonRealloc,
    CallShape::PythonFree,
];
/// The function of pymalloc that takes a new pool.
pub const NEW_POOL: &str = "allocate_from_new_pool";
/// The first version with pools of 16 KiB; older ones have pools of 4 KiB (Include/internal/pycore_obmalloc.h).
const FIRST_WITH_LARGE_POOLS: (u8, u8) = (3, 10);

/// How many hooks may lie before an allocator: those of tracemalloc, the debug hooks, and some to spare.
const MAX_HOOKS: usize = 4;
/// Where the table is in what `ctx` points at, bytes. For tracemalloc the table comes first; for the debug hooks
/// a letter precedes the table (`debug_alloc_api_t` in Objects/obmalloc.c).
const TABLE_IN_CONTEXT: [u64; 2] = [0, 8];

/// The content of a `PyMemAllocatorEx` in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocatorTable {
    /// The first argument of the functions; NULL for the interpreter's own allocators.
    pub context: Avma,
    /// The functions malloc, calloc, realloc and free.
    pub functions: [Avma; 4],
}

/// The allocator that a table leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The innermost table.
    pub table: AllocatorTable,
    /// How many hooks lie before the innermost table.
    pub hooks: usize,
}

impl AllocatorTable {
    /// Reads the table at an address; `None` unless four functions are there.
    pub fn read(at: Avma, memory: &impl Memory, is_code: &impl Fn(Avma) -> bool) -> Option<Self> {
        let word = |index: u64| memory.pointer(at.checked_add(8 * index)?);
        let functions = [word(1)?, word(2)?, word(3)?, word(4)?];
        let are_code = functions.iter().all(|function| is_code(*function));
        are_code.then_some(Self {
            context: word(0)?,
            functions,
        })
    }

    /// The table that four exported functions jump through. Each comes with its AVMA and its code.
    pub fn find(
        functions: &[(Avma, FunctionCode); 4],
        memory: &impl Memory,
        is_code: &impl Fn(Avma) -> bool,
    ) -> Option<Self> {
        let mut tables = Vec::new();
        for (index, (address, code)) in (1..).zip(functions) {
            let read = addresses_read(*address, &code.bytes, memory);
            // Where the table begins if this function's pointer was at the address that the function read.
            tables.push(
                read.into_iter()
                    .filter_map(move |pointer| pointer.checked_sub(8 * index)),
            );
        }
        let mut tables = tables.into_iter();
        let first: Vec<u64> = tables.next()?.collect();
        let others: Vec<BTreeSet<u64>> = tables.map(Iterator::collect).collect();
        let in_all = |table: &&u64| others.iter().all(|read| read.contains(table));
        let mut candidates = first.iter().filter(in_all);
        candidates.find_map(|table| Self::read(Avma(*table), memory, is_code))
    }

    /// Follows the hooks to the allocator.
    pub fn behind(self, memory: &impl Memory, is_code: &impl Fn(Avma) -> bool) -> Behind {
        let (mut table, mut hooks) = (self, 0);
        while hooks < MAX_HOOKS && table.context != Avma(0) {
            let mut places = TABLE_IN_CONTEXT
                .iter()
                .filter_map(|offset| table.context.checked_add(*offset));
            match places.find_map(|place| Self::read(place, memory, is_code)) {
                Some(next) => table = next,
                None => break,
            }
            hooks += 1;
        }
        Behind { table, hooks }
    }
}

/// The size of a pool in a version of Python, bytes.
#[must_use]
pub fn pool_bytes(version: (u8, u8)) -> u64 {
    if version >= FIRST_WITH_LARGE_POOLS {
        16 << 10
    } else {
        4 << 10
    }
}

/// How far from its start to probe a function, bytes; `None` if the function does not begin with an instruction.
#[must_use]
pub fn site_offset(code: &FunctionCode, shape: CallShape, policy: SitePolicy) -> Option<u64> {
    site::choose(code, shape, policy).map(|choice| choice.offset)
}

/// Counts the places in `text`, which is loaded at `address`, that compare a pointer with one of `functions`. In
/// such a place the compiler has inlined the function for the case that the pointer leads there, so a probe on
/// the function does not see those calls.
#[must_use]
pub fn inlined_at(text: &[u8], address: Avma, functions: &[Avma]) -> usize {
    let is_one = |value: u64| functions.contains(&Avma(value));
    let mut loaded = Register::None;
    let mut found = 0;
    for instruction in decode(text, address) {
        if instruction.mnemonic() == Mnemonic::Cmp {
            let immediate = (0..instruction.op_count()).any(|operand| {
                is_immediate(instruction.op_kind(operand)) && is_one(instruction.immediate(operand))
            });
            let register = loaded != Register::None
                && [instruction.op0_register(), instruction.op1_register()].contains(&loaded);
            found += usize::from(immediate || register);
        }
        let target = instruction.ip_rel_memory_address();
        if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() {
            loaded = if is_one(target) {
                instruction.op0_register()
            } else {
                loaded
            };
        } else if instruction.flow_control() != FlowControl::Next {
            loaded = Register::None;
        }
    }
    found
}

const fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8to64 | OpKind::Immediate32to64 | OpKind::Immediate64
    )
}

/// Decodes the code at an address. Goes on behind bytes that are no instruction.
fn decode(bytes: &[u8], address: Avma) -> impl Iterator<Item = Instruction> {
    Decoder::with_ip(64, bytes, address.0, DecoderOptions::NONE).into_iter()
}

/// The addresses that a function reads from, in order, as far as they do not depend on the arguments. Ignores
/// branches, and reads the instructions from first to last.
fn addresses_read(address: Avma, code: &[u8], memory: &impl Memory) -> Vec<u64> {
    let mut factory = InstructionInfoFactory::new();
    // The pointers in registers that the function has loaded from such addresses.
    let mut pointers: HashMap<Register, u64> = HashMap::new();
    let mut read = Vec::new();
    for instruction in decode(code, address) {
        if instruction.is_invalid() {
            break;
        }
        let from = place(&instruction, &pointers);
        read.extend(from);
        forget_written(&mut pointers, factory.info(&instruction));
        if matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        ) {
            pointers.clear();
        }
        if instruction.mnemonic() == Mnemonic::Mov
            && let Some(from) = from
            && instruction.op0_kind() == OpKind::Register
            && let Some(value) = memory.u64(Avma(from))
        {
            pointers.insert(instruction.op0_register(), value);
        }
    }
    read
}

fn forget_written(pointers: &mut HashMap<Register, u64>, info: &InstructionInfo) {
    for used in info.used_registers() {
        if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead) {
            pointers.remove(&used.register().full_register());
        }
    }
}

/// The address of an instruction's memory operand, if that is known.
fn place(instruction: &Instruction, pointers: &HashMap<Register, u64>) -> Option<u64> {
    let operands = 0..instruction.op_count();
    let mut kinds = operands.map(|operand| instruction.op_kind(operand));
    if instruction.mnemonic() == Mnemonic::Lea || !kinds.any(|kind| kind == OpKind::Memory) {
        return None;
    }
    if instruction.is_ip_rel_memory_operand() {
        return Some(instruction.ip_rel_memory_address());
    }
    if instruction.memory_index() != Register::None || instruction.has_segment_prefix() {
        return None;
    }
    let base = match instruction.memory_base() {
        Register::None => 0,
        register => *pointers.get(&register)?,
    };
    Some(base.wrapping_add(instruction.memory_displacement64()))
}

/// The AVMA of the function that takes a new pool: the target of the first call in pymalloc's `malloc` after the
/// comparison with the largest small request. `is_known` recognizes exported functions and those of other
/// objects, which cannot be that function.
#[must_use]
pub fn new_pool_called_by(
    malloc: Avma,
    code: &[u8],
    is_known: impl Fn(Avma) -> bool,
) -> Option<Avma> {
    // SMALL_REQUEST_THRESHOLD - 1 (Objects/obmalloc.c): `malloc` compares `nbytes - 1` with it.
    const LARGEST: u64 = residue_ebpf::abi::heap::MAX_PYTHON_OBJECT - 1;
    let is_small = |instruction: &Instruction| {
        instruction.mnemonic() == Mnemonic::Cmp
            && instruction.op_count() == 2
            && is_immediate(instruction.op1_kind())
            && instruction.immediate(1) == LARGEST
    };
    let behind = decode(code, malloc).skip_while(|instruction| !is_small(instruction));
    let mut calls = behind.filter(|instruction| instruction.flow_control() == FlowControl::Call);
    let target = Avma(calls.next()?.near_branch_target());
    (!is_known(target)).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory that has only these pieces: the address and the words of each.
    struct Pieces(Vec<(u64, Vec<u64>)>);

    impl Memory for Pieces {
        fn read(&self, address: Avma, into: &mut [u8]) -> Option<()> {
            let (start, words) = self.0.iter().find(|(start, words)| {
                (*start..*start + 8 * words.len() as u64).contains(&address.0)
            })?;
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let from = (address.0 - start) as usize;
            into.copy_from_slice(bytes.get(from..from + into.len())?);
            Some(())
        }
    }

    fn code(bytes: &[u8]) -> FunctionCode {
        FunctionCode {
            bytes: bytes.to_vec(),
            complete: true,
        }
    }

    fn is_code(address: Avma) -> bool {
        (0x9000..0x9100).contains(&address.0)
    }

    /// `mov rax, [rip+d]; mov rcx, [rax+0x10]; mov rax, [rax+at]; jmp rax`, with the GOT at 0x5000.
    fn through_got(at: Avma, slot: u8) -> (Avma, FunctionCode) {
        let distance = (0x5000 - (at.0 as i64 + 7)) as i32;
        let mut bytes = vec![0x48, 0x8b, 0x05];
        bytes.extend(distance.to_le_bytes());
        bytes.extend([0x48, 0x8b, 0x48, 0x10, 0x48, 0x8b, 0x40, slot, 0xff, 0xe0]);
        (at, code(&bytes))
    }

    #[test]
    fn the_table_is_found_through_a_pointer_to_the_runtime() {
        let functions = [
            (0x1000, 0x18),
            (0x1100, 0x20),
            (0x1200, 0x28),
            (0x1300, 0x30),
        ]
        .map(|(at, slot)| through_got(Avma(at), slot));
        let table = vec![0, 0, 0, 0x9000, 0x9010, 0x9020, 0x9030];
        let memory = Pieces(vec![(0x5000, vec![0x6000]), (0x6000, table)]);
        let found = AllocatorTable::find(&functions, &memory, &is_code).expect("it is there");
        assert_eq!(found.functions, [0x9000, 0x9010, 0x9020, 0x9030].map(Avma));
        assert_eq!(found.behind(&memory, &is_code).hooks, 0);
    }

    #[test]
    fn hooks_are_followed_to_the_allocator_behind_them() {
        let hooked = vec![0x6100, 0x9050, 0x9051, 0x9052, 0x9053];
        let debug = vec![u64::from(b'o'), 0, 0x9000, 0x9010, 0x9020, 0x9030];
        let memory = Pieces(vec![(0x6000, hooked), (0x6100, debug)]);
        let table = AllocatorTable::read(Avma(0x6000), &memory, &is_code).expect("four functions");
        let behind = table.behind(&memory, &is_code);
        assert_eq!((behind.hooks, behind.table.functions[0]), (1, Avma(0x9000)));
    }

    #[test]
    fn a_table_that_points_at_itself_ends() {
        let itself = vec![0x6000, 0x9000, 0x9010, 0x9020, 0x9030];
        let memory = Pieces(vec![(0x6000, itself)]);
        let table = AllocatorTable::read(Avma(0x6000), &memory, &is_code).expect("four functions");
        assert_eq!(table.behind(&memory, &is_code).hooks, MAX_HOOKS);
    }

    #[test]
    fn inlined_copies_are_counted() {
        let functions = [0x4f_b450, 0x50_6400, 0x51_0c00, 0x50_0fe0].map(Avma);
        // cmp rax, 0x4fb450
        let compared = [0x48, 0x3d, 0x50, 0xb4, 0x4f, 0x00];
        assert_eq!(inlined_at(&compared, Avma(0x1000), &functions), 1);
        // lea rdx, [rip+0x10]; cmp rax, rdx
        let loaded = [0x48, 0x8d, 0x15, 0x10, 0, 0, 0, 0x48, 0x39, 0xd0];
        assert_eq!(inlined_at(&loaded, Avma(0x4f_b450 - 0x17), &functions), 1);
        assert_eq!(inlined_at(&loaded, Avma(0x1000), &functions), 0);
    }

    #[test]
    fn no_code_is_too_strange_to_look_at() {
        let memory = Pieces(vec![]);
        proptest::proptest!(|(bytes: Vec<u8>, address: u64)| {
            let functions = std::array::from_fn(|_| (Avma(address), code(&bytes)));
            assert_eq!(AllocatorTable::find(&functions, &memory, &is_code), None);
            let _ = inlined_at(&bytes, Avma(address), &[Avma(0); 4]);
            let _ = new_pool_called_by(Avma(address), &bytes, |_| false);
        });
    }
}
