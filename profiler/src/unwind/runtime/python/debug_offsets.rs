//! `_Py_DebugOffsets`: what an interpreter says itself about where it keeps things, from 3.13 on.
//!
//! It is the first thing in `_PyRuntime`: a cookie, the version, whether the build is free-threaded,
//! and then groups of offsets, one a structure, each led by the structure's size. Which groups and
//! fields there are differs from one minor version to the next (Include/internal/pycore_runtime.h in
//! 3.13, pycore_debug_offsets.h in 3.14).

use residue_ebpf::abi::python::{EntryKind, InstructionKind};

use super::{Gil, Offsets, PythonVersion};
use crate::{
    symbolize::CodeOffsets,
    target::{Avma, Memory},
};

const COOKIE: &[u8; 8] = b"xdebugpy";
/// Cookie, version, and whether it is free-threaded.
const HEADER_WORDS: usize = 3;

type Group = (&'static str, &'static [&'static str]);

const RUNTIME: Group = ("runtime", &["size", "finalizing", "interpreters_head"]);
const THREAD: Group = (
    "thread",
    &[
        "size",
        "prev",
        "next",
        "interp",
        "current_frame",
        "thread_id",
        "native_thread_id",
        "datastack_chunk",
        "status",
    ],
);
const OBJECT: Group = ("object", &["size", "ob_type"]);
const TYPE: Group = ("type", &["size", "tp_name", "tp_repr", "tp_flags"]);
const TUPLE: Group = ("tuple", &["size", "ob_item", "ob_size"]);
const LIST: Group = ("list", &["size", "ob_item", "ob_size"]);
const SET: Group = ("set", &["size", "used", "table", "mask"]);
const DICT: Group = ("dict", &["size", "ma_keys", "ma_values"]);
const FLOAT: Group = ("float", &["size", "ob_fval"]);
const LONG: Group = ("long", &["size", "lv_tag", "ob_digit"]);
const BYTES: Group = ("bytes", &["size", "ob_size", "ob_sval"]);
const UNICODE: Group = ("unicode", &["size", "state", "length", "asciiobject_size"]);

/// Up to the last group of interest.
const OF_3_13: &[Group] = &[
    RUNTIME,
    (
        "interpreter",
        &[
            "size",
            "id",
            "next",
            "threads_head",
            "gc",
            "imports_modules",
            "sysdict",
            "builtins",
            "ceval_gil",
            "gil",
            "gil_enabled",
            "gil_locked",
            "gil_holder",
        ],
    ),
    THREAD,
    (
        "frame",
        &[
            "size",
            "previous",
            "executable",
            "instr_ptr",
            "localsplus",
            "owner",
        ],
    ),
    (
        "code",
        &[
            "size",
            "filename",
            "name",
            "qualname",
            "linetable",
            "firstlineno",
            "argcount",
            "localsplusnames",
            "localspluskinds",
            "co_code_adaptive",
        ],
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
        &[
            "size",
            "id",
            "next",
            "threads_head",
            "threads_main",
            "gc",
            "imports_modules",
            "sysdict",
            "builtins",
            "ceval_gil",
            "gil",
            "gil_enabled",
            "gil_locked",
            "gil_holder",
            "code_object_generation",
            "tlbc_generation",
        ],
    ),
    THREAD,
    (
        "frame",
        &[
            "size",
            "previous",
            "executable",
            "instr_ptr",
            "localsplus",
            "owner",
            "stackpointer",
            "tlbc_index",
        ],
    ),
    (
        "code",
        &[
            "size",
            "filename",
            "name",
            "qualname",
            "linetable",
            "firstlineno",
            "argcount",
            "localsplusnames",
            "localspluskinds",
            "co_code_adaptive",
            "co_tlbc",
        ],
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

/// What an interpreter says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugOffsets {
    /// Its version.
    pub version: PythonVersion,
    /// Whether it runs without a GIL.
    pub free_threaded: bool,
    groups: &'static [Group],
    words: Vec<u64>,
}

impl DebugOffsets {
    /// Those of the interpreter whose `_PyRuntime` is at `runtime`; `None` if it has none.
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
        let count: usize = groups.iter().map(|(_, fields)| fields.len()).sum();
        let words = (HEADER_WORDS..HEADER_WORDS + count).map(word);
        Some(Self {
            version,
            free_threaded: word(2)? != 0,
            groups,
            words: words.collect::<Option<_>>()?,
        })
    }

    /// A field's value; `None` if there is no such field, or it lies outside of its structure.
    fn get(&self, group: &str, field: &str) -> Option<u64> {
        let mut start = 0;
        for (name, fields) in self.groups {
            if *name == group {
                let value = *self
                    .words
                    .get(start + fields.iter().position(|it| *it == field)?)?;
                let size = *self.words.get(start)?;
                return (field == "size" || value < size).then_some(value);
            }
            start += fields.len();
        }
        None
    }

    /// As the walks need them. The key of the threads' states is not among them.
    ///
    /// `None` if they contradict themselves or what is known of strings and bytes, which no version
    /// has moved: then their order is not the one that is known.
    #[must_use]
    pub fn offsets(&self) -> Option<Offsets> {
        let at = |group, field| self.get(group, field);
        let known = [
            (at("object", "size"), 16),
            (at("object", "ob_type"), 8),
            (at("bytes", "ob_size"), 16),
            (at("bytes", "ob_sval"), 32),
            (at("unicode", "length"), 16),
            (at("unicode", "state"), 32),
        ];
        if known.iter().any(|(said, known)| *said != Some(*known)) {
            return None;
        }
        let ascii = at("unicode", "asciiobject_size")?;
        let gil = at("interpreter", "gil")?;
        let code = CodeOffsets {
            first_line: at("code", "firstlineno")?,
            filename: at("code", "filename")?,
            name: at("code", "qualname")?,
            line_table: at("code", "linetable")?,
            // PyCompactUnicodeObject has two words more (Include/cpython/unicodeobject.h).
            text: [ascii, ascii.checked_add(16)?],
            ..CodeOffsets::of((3, 13))?
        };
        Some(Offsets {
            interpreters: at("runtime", "interpreters_head")?,
            tss_key: None,
            gil: Gil::Interpreter {
                gil: at("interpreter", "ceval_gil")?,
                holder: at("interpreter", "gil_holder")?.checked_sub(gil)?,
                locked: at("interpreter", "gil_locked")?.checked_sub(gil)?,
            },
            interpreter_next: at("interpreter", "next")?,
            interpreter_id: at("interpreter", "id")?,
            threads: at("interpreter", "threads_head")?,
            thread_next: at("thread", "next")?,
            thread_interpreter: at("thread", "interp")?,
            thread_id: at("thread", "thread_id")?,
            native_id: Some(at("thread", "native_thread_id")?),
            frame: at("thread", "current_frame")?,
            frame_in_cframe: None,
            // The interpreter does not tell this one.
            context: Offsets::of(self.version).and_then(|table| table.context),
            previous: at("frame", "previous")?,
            executable: at("frame", "executable")?,
            instruction: at("frame", "instr_ptr")?,
            instruction_kind: InstructionKind::Pointer,
            entry: at("frame", "owner")?,
            entry_kind: EntryKind::Owner,
            first_instruction: at("code", "co_code_adaptive")?,
            code,
        })
    }
}

#[cfg(test)]
mod tests;
