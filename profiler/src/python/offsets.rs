//! The table of layouts: where each version of Python keeps what residue reads.

use residue_ebpf::abi::python::{EntryKind, FRAME_BYTES, InstructionKind};

use super::PythonVersion;
use crate::python::CodeOffsets;

/// The offsets of the fields that residue reads, bytes. Those of the table are from the debug information of 3.8.18,
/// 3.9.18, 3.10.13, 3.11.7, 3.12.1 and 3.13.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// `_PyRuntime.interpreters.head`
    pub interpreters: u64,
    /// `_PyRuntime.gilstate.autoTSSkey`; `_PyRuntime.autoTSSkey` from 3.12. Where this is `None`, residue searches
    /// for the key.
    pub tss_key: Option<u64>,
    /// How to tell who holds the GIL.
    pub gil: Gil,
    /// `PyInterpreterState.next`
    pub interpreter_next: u64,
    /// `PyInterpreterState.id`
    pub interpreter_id: u64,
    /// `PyInterpreterState.tstate_head`; `.threads.head` from 3.11.
    pub threads: u64,
    /// `PyThreadState.next`
    pub thread_next: u64,
    /// `PyThreadState.interp`
    pub thread_interpreter: u64,
    /// `PyThreadState.thread_id`: what pthread_self() returns.
    pub thread_id: u64,
    /// `PyThreadState.native_thread_id` (from 3.11): the kernel's number of the thread.
    pub native_id: Option<u64>,
    /// `PyThreadState.frame`; `.cframe` in 3.11 and 3.12; `.current_frame` from 3.13.
    pub frame: u64,
    /// `_PyCFrame.current_frame` (3.11 and 3.12)
    pub frame_in_cframe: Option<u64>,
    /// `PyThreadState.context`, which `context_ver` follows. Where this is `None`, residue searches for the offset.
    pub context: Option<u64>,
    /// `PyFrameObject.f_back`; `_PyInterpreterFrame.previous` from 3.11.
    pub previous: u64,
    /// `f_code`; `f_executable` from 3.13.
    pub executable: u64,
    /// `f_lasti`; `prev_instr` from 3.11, `instr_ptr` from 3.13.
    pub instruction: u64,
    /// How the frame states the instruction.
    pub instruction_kind: InstructionKind,
    /// `is_entry` in 3.11, `owner` from 3.12.
    pub entry: u64,
    /// How the frame states that it is an entry.
    pub entry_kind: EntryKind,
    /// `PyCodeObject.co_code_adaptive` (from 3.11)
    pub first_instruction: u64,
    /// The other parts of a code object.
    pub code: CodeOffsets,
}

/// How to tell who holds the GIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gil {
    /// Up to 3.11, `_PyRuntime.gilstate.tstate_current` points to the state of the thread that holds the GIL.
    Runtime(u64),
    /// From 3.12 on each interpreter points to a GIL.
    Interpreter {
        /// `PyInterpreterState.ceval.gil`
        gil: u64,
        /// `_gil_runtime_state.last_holder`
        holder: u64,
        /// `_gil_runtime_state.locked`, an int.
        locked: u64,
    },
}

impl Offsets {
    /// The offsets of a version; `None` if the version is not in the table.
    #[must_use]
    pub const fn of(version: PythonVersion) -> Option<Self> {
        let Some(code) = CodeOffsets::of(version.series()) else {
            return None;
        };
        Some(match version.series() {
            (3, 8) => Self {
                interpreter_id: 16,
                tss_key: Some(1392),
                gil: Gil::Runtime(1368),
                ..frame_object(code)
            },
            (3, 9) => frame_object(code),
            (3, 10) => Self {
                instruction: 96,
                instruction_kind: InstructionKind::Units,
                ..frame_object(code)
            },
            (3, 11) => of_3_11(code),
            (3, 12) => interpreter_frame(code),
            (3, 13) => of_3_13(code),
            _ => return None,
        })
    }

    /// How many bytes of a frame residue needs, a multiple of 8; `None` if that is more than the kernel side reads.
    #[must_use]
    pub fn frame_bytes(&self) -> Option<u64> {
        let words = [self.previous, self.executable, self.instruction].map(|at| at.checked_add(8));
        let entry = self.entry.checked_add(1);
        let ends: Option<Vec<_>> = words.into_iter().chain([entry]).collect();
        let end = ends?.into_iter().max()?.checked_next_multiple_of(8)?;
        (end <= FRAME_BYTES as u64).then_some(end)
    }

    /// The offsets that the version has, each with CPython's name for the field.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let from_11 = |at: u64| (self.instruction_kind == InstructionKind::Pointer).then_some(at);
        let first_instruction = from_11(self.first_instruction);
        let fields = [
            ("_PyRuntime.interpreters.head", Some(self.interpreters)),
            ("_PyRuntime autoTSSkey", self.tss_key),
            ("PyInterpreterState.next", Some(self.interpreter_next)),
            ("PyInterpreterState.id", Some(self.interpreter_id)),
            ("PyInterpreterState threads", Some(self.threads)),
            ("PyThreadState.next", Some(self.thread_next)),
            ("PyThreadState.interp", Some(self.thread_interpreter)),
            ("PyThreadState.thread_id", Some(self.thread_id)),
            ("PyThreadState.native_thread_id", self.native_id),
            ("PyThreadState frame", Some(self.frame)),
            ("_PyCFrame.current_frame", self.frame_in_cframe),
            ("PyThreadState.context", self.context),
            ("frame previous", Some(self.previous)),
            ("frame code", Some(self.executable)),
            ("frame instruction", Some(self.instruction)),
            ("frame entry mark", from_11(self.entry)),
            ("PyCodeObject.co_code_adaptive", first_instruction),
            ("PyCodeObject.co_filename", Some(self.code.filename)),
            ("PyCodeObject name", Some(self.code.name)),
            ("PyCodeObject.co_firstlineno", Some(self.code.first_line)),
            ("PyCodeObject line table", Some(self.code.line_table)),
        ];
        let known = fields.into_iter();
        let known = known.filter_map(|(name, at)| Some((name, at?)));
        known.chain([self.gil.named()]).collect()
    }
}

impl Gil {
    fn named(self) -> (&'static str, u64) {
        match self {
            Self::Runtime(at) => ("_PyRuntime.gilstate.tstate_current", at),
            Self::Interpreter { gil, .. } => ("PyInterpreterState.ceval.gil", gil),
        }
    }
}

/// The offsets of 3.9. Those of 3.8 and 3.10 are similar.
const fn frame_object(code: CodeOffsets) -> Offsets {
    Offsets {
        interpreters: 32,
        tss_key: Some(584),
        gil: Gil::Runtime(568),
        interpreter_next: 0,
        interpreter_id: 24,
        threads: 8,
        thread_next: 8,
        thread_interpreter: 16,
        thread_id: 176,
        native_id: None,
        context: Some(240),
        frame: 24,
        frame_in_cframe: None,
        previous: 24,
        executable: 32,
        instruction: 104,
        instruction_kind: InstructionKind::Bytes,
        entry: 0,
        entry_kind: EntryKind::Every,
        first_instruction: 0,
        code,
    }
}

const fn of_3_11(code: CodeOffsets) -> Offsets {
    Offsets {
        tss_key: Some(592),
        gil: Gil::Runtime(576),
        interpreter_id: 48,
        threads: 16,
        thread_id: 152,
        native_id: Some(160),
        context: Some(224),
        frame_in_cframe: Some(8),
        previous: 48,
        executable: 32,
        entry: 68,
        entry_kind: EntryKind::Flag,
        first_instruction: 184,
        ..interpreter_frame(code)
    }
}

const fn of_3_13(code: CodeOffsets) -> Offsets {
    Offsets {
        interpreters: 632,
        tss_key: Some(2160),
        gil: gil_at(16),
        interpreter_next: 7264,
        interpreter_id: 7272,
        threads: 7344,
        thread_id: 152,
        native_id: Some(160),
        frame: 72,
        frame_in_cframe: None,
        first_instruction: 200,
        ..interpreter_frame(code)
    }
}

/// The offsets of 3.12. Those of 3.11 and 3.13 are similar.
const fn interpreter_frame(code: CodeOffsets) -> Offsets {
    Offsets {
        interpreters: 40,
        tss_key: Some(1544),
        gil: gil_at(384),
        interpreter_next: 0,
        interpreter_id: 8,
        threads: 72,
        thread_next: 8,
        thread_interpreter: 16,
        thread_id: 136,
        native_id: Some(144),
        context: Some(208),
        frame: 56,
        frame_in_cframe: Some(0),
        previous: 8,
        executable: 0,
        instruction: 56,
        instruction_kind: InstructionKind::Pointer,
        entry: 70,
        entry_kind: EntryKind::Owner,
        first_instruction: 192,
        code,
    }
}

const fn gil_at(gil: u64) -> Gil {
    Gil::Interpreter {
        gil,
        holder: 8,
        locked: 16,
    }
}
