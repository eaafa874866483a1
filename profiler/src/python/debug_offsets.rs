//! Reads `_Py_DebugOffsets`, in which an interpreter from 3.13 on states the offsets in its own structures.
//!
//! These are the first bytes of `_PyRuntime`: a cookie, the version, whether the build is free-threaded, and then a
//! group of offsets for each structure, which begins with the size of the structure. The groups and fields differ
//! between minor versions (Include/internal/pycore_runtime.h in 3.13, pycore_debug_offsets.h in 3.14).

use residue_ebpf::abi::python::{EntryKind, InstructionKind};

use super::{Gil, Offsets, PythonVersion};
use crate::{
    process::{Avma, Memory},
    python::CodeOffsets,
};

const COOKIE: &[u8; 8] = b"xdebugpy";
/// The words before the groups: the cookie, the version, and whether the build is free-threaded.
const HEADER_WORDS: usize = 3;

/// The name of a structure, and the names of its fields with a space between each two.
type Group = (&'static str, &'static str);

const RUNTIME: Group = ("runtime", "size finalizing interpreters_head");
const THREAD: Group = (
    "thread",
    "size prev next interp current_frame thread_id native_thread_id datastack_chunk status",
);
const OBJECT: Group = ("object", "size ob_type");
const TYPE: Group = ("type", "size tp_name tp_repr tp_flags");
const TUPLE: Group = ("tuple", "size ob_item ob_size");
const LIST: Group = ("list", "size ob_item ob_size");
const SET: Group = ("set", "size used table mask");
const DICT: Group = ("dict", "size ma_keys ma_values");
const FLOAT: Group = ("float", "size ob_fval");
const LONG: Group = ("long", "size lv_tag ob_digit");
const BYTES: Group = ("bytes", "size ob_size ob_sval");
const UNICODE: Group = ("unicode", "size state length asciiobject_size");

/// The groups of 3.13, up to the last one of interest.
const OF_3_13: &[Group] = &[
    RUNTIME,
    (
        "interpreter",
        "size id next threads_head gc imports_modules sysdict builtins \
         ceval_gil gil gil_enabled gil_locked gil_holder",
    ),
    THREAD,
    (
        "frame",
        "size previous executable instr_ptr localsplus owner",
    ),
    (
        "code",
        "size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds \
         co_code_adaptive",
    ),
    OBJECT,
    TYPE,
    TUPLE,
    LIST,
    DICT,
    FLOAT,
    LONG,
    BYTES,
    UNICODE,
];

const OF_3_14: &[Group] = &[
    RUNTIME,
    (
        "interpreter",
        "size id next threads_head threads_main gc imports_modules sysdict builtins \
         ceval_gil gil gil_enabled gil_locked gil_holder code_object_generation tlbc_generation",
    ),
    THREAD,
    (
        "frame",
        "size previous executable instr_ptr localsplus owner stackpointer tlbc_index",
    ),
    (
        "code",
        "size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds \
         co_code_adaptive co_tlbc",
    ),
    OBJECT,
    TYPE,
    TUPLE,
    LIST,
    SET,
    DICT,
    FLOAT,
    LONG,
    BYTES,
    UNICODE,
];

fn fields(group: &Group) -> impl Iterator<Item = &'static str> {
    group.1.split(' ')
}

/// The offsets that an interpreter states itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugOffsets {
    /// The version of the interpreter.
    pub version: PythonVersion,
    /// Whether the interpreter runs without a GIL.
    pub free_threaded: bool,
    groups: &'static [Group],
    words: Vec<u64>,
}

impl DebugOffsets {
    /// Reads the offsets of the interpreter whose `_PyRuntime` is at `runtime`; `None` if there are none.
    pub fn read(memory: &impl Memory, runtime: Avma) -> Option<Self> {
        let word = |index: usize| memory.u64(runtime.checked_add(index as u64 * 8)?);
        if memory.array(runtime)? != *COOKIE {
            return None;
        }
        let version = PythonVersion::of_hex(word(1)? as u32);
        let groups = match version.series() {
            (3, 13) => OF_3_13,
            (3, 14) => OF_3_14,
            _ => &[],
        };
        let count: usize = groups.iter().map(|group| fields(group).count()).sum();
        let words = (HEADER_WORDS..HEADER_WORDS + count).map(word);
        Some(Self {
            version,
            free_threaded: word(2)? != 0,
            groups,
            words: words.collect::<Option<_>>()?,
        })
    }

    /// The offset of a field; `None` if there is no such field, or if the field would be outside of its structure.
    fn get(&self, group: &str, field: &str) -> Option<u64> {
        let mut start = 0;
        for of_structure in self.groups {
            if of_structure.0 == group {
                let index = fields(of_structure).position(|name| name == field)?;
                let value = *self.words.get(start + index)?;
                let size = *self.words.get(start)?;
                return (field == "size" || value < size).then_some(value);
            }
            start += fields(of_structure).count();
        }
        None
    }

    /// Whether strings and bytes are as in every version so far. If not, the fields are in an unknown order.
    fn has_known_order(&self) -> bool {
        let known = [
            ("object", "size", 16),
            ("object", "ob_type", 8),
            ("bytes", "ob_size", 16),
            ("bytes", "ob_sval", 32),
            ("unicode", "length", 16),
            ("unicode", "state", 32),
        ];
        known
            .iter()
            .all(|(group, field, at)| self.get(group, field) == Some(*at))
    }

    fn code(&self) -> Option<CodeOffsets> {
        let at = |field| self.get("code", field);
        let ascii = self.get("unicode", "asciiobject_size")?;
        Some(CodeOffsets {
            first_line: at("firstlineno")?,
            filename: at("filename")?,
            name: at("qualname")?,
            line_table: at("linetable")?,
            // PyCompactUnicodeObject has two words more (Include/cpython/unicodeobject.h).
            text: [ascii, ascii.checked_add(16)?],
            ..CodeOffsets::of((3, 13))?
        })
    }

    fn gil(&self) -> Option<Gil> {
        let at = |field| self.get("interpreter", field);
        let gil = at("gil")?;
        Some(Gil::Interpreter {
            gil: at("ceval_gil")?,
            holder: at("gil_holder")?.checked_sub(gil)?,
            locked: at("gil_locked")?.checked_sub(gil)?,
        })
    }

    /// The offsets that the walks need, without the key of the thread states.
    ///
    /// `None` if the offsets contradict themselves, or if their order is unknown.
    #[must_use]
    pub fn offsets(&self) -> Option<Offsets> {
        if !self.has_known_order() {
            return None;
        }
        let at = |group, field| self.get(group, field);
        Some(Offsets {
            interpreters: at("runtime", "interpreters_head")?,
            tss_key: None,
            gil: self.gil()?,
            interpreter_next: at("interpreter", "next")?,
            interpreter_id: at("interpreter", "id")?,
            threads: at("interpreter", "threads_head")?,
            thread_next: at("thread", "next")?,
            thread_interpreter: at("thread", "interp")?,
            thread_id: at("thread", "thread_id")?,
            native_id: Some(at("thread", "native_thread_id")?),
            frame: at("thread", "current_frame")?,
            frame_in_cframe: None,
            // The interpreter does not state this offset.
            context: Offsets::of(self.version).and_then(|table| table.context),
            previous: at("frame", "previous")?,
            executable: at("frame", "executable")?,
            instruction: at("frame", "instr_ptr")?,
            instruction_kind: InstructionKind::Pointer,
            entry: at("frame", "owner")?,
            entry_kind: EntryKind::Owner,
            first_instruction: at("code", "co_code_adaptive")?,
            code: self.code()?,
        })
    }
}

#[cfg(test)]
mod tests;
