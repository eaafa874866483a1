//! A walk over an interpreter's threads and their frames from outside, while it runs.
//!
//! It is how a layout is checked before the kernel side may use it: whatever is followed has to point
//! back, to be a code object, to have a name. What changes during a walk may fail it once, but not
//! again and again.

use std::collections::HashSet;

use residue_ebpf::abi::{
    frame::NOT_STARTED,
    python::{EntryKind, InstructionKind},
};

use super::{Gil, Offsets};
use crate::{
    symbolize::CodeObject,
    target::{Avma, Memory},
};

/// More than any process has; each costs a page at least.
const MAX_INTERPRETERS: usize = 1 << 12;
/// The threads of all interpreters together. The kernel's own limit is `pid_max`, 32,768 by default.
const MAX_THREADS: usize = 1 << 15;
/// How many frames of a thread are looked at in a check, innermost first.
const CHECKED_FRAMES: usize = 64;
/// From this owner on, a frame is the interpreter's own (`FRAME_OWNED_BY_CSTACK` in 3.12 and 3.13,
/// `FRAME_OWNED_BY_INTERPRETER` in 3.14).
const OWNED_BY_INTERPRETER: u8 = 3;
/// `ob_type` in `PyObject`, and `ob_size` in `PyVarObject` (Include/object.h).
const OBJECT_TYPE: u64 = 8;
const VARIABLE_SIZE: u64 = 16;
/// `PyCodeObject.co_code`, to 3.10 (Include/cpython/code.h): a bytes object. From 3.11 on the code
/// is in the code object, whose `ob_size` it is, in units of two bytes.
const CODE_BYTES: u64 = 48;

/// What does not fit where an interpreter's structures were looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Nothing there yet.
    #[error("it has no thread that runs Python (yet)")]
    NoThreads,
    /// Memory that cannot be read, or a list that does not end.
    #[error("the list of its interpreters does not lead anywhere")]
    Interpreters,
    /// As above.
    #[error("the list of its threads does not lead anywhere")]
    Threads,
    /// `PyThreadState.interp` is something else.
    #[error("a thread's state does not point back to its interpreter")]
    BackPointer,
    /// No thread has its state there.
    #[error("no thread keeps its state where the C library would")]
    Key,
    /// A frame that cannot be read.
    #[error("the frames of a thread do not lead anywhere")]
    Frames,
    /// Another type than `PyCode_Type`.
    #[error("what a frame runs is no code object")]
    CodeType,
    /// The instruction lies outside of the code.
    #[error("a frame runs an instruction outside of its code")]
    Instruction,
    /// A string that is none.
    #[error("the name of a code object cannot be read")]
    Name,
}

/// Where an interpreter's structures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structures {
    /// `_PyRuntime`
    pub runtime: Avma,
    /// `PyCode_Type`
    pub code_type: Avma,
    /// Where things are in them.
    pub offsets: Offsets,
}

/// A thread that has run Python: a `PyThreadState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// Where it is.
    pub state: Avma,
    /// `PyInterpreterState.id`: 0 is the main one.
    pub interpreter: u64,
    /// What pthread_self() returns there: its fsbase. Zero before the thread has begun.
    pub id: Avma,
    /// The kernel's number of the thread in the process's own PID namespace, from 3.11 on.
    pub native_id: Option<u64>,
    /// The context of `contextvars` that it is in, if it is in one.
    pub context: Option<Avma>,
    /// Whether it holds the GIL.
    pub holds_gil: bool,
}

/// A frame: a call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The code object.
    pub code: Avma,
    /// Which of its instructions runs, in code units of two bytes; [`NOT_STARTED`] before the first.
    pub instruction: u32,
}

/// The calls of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Innermost first.
    pub calls: Vec<Call>,
    /// Whether there are more.
    pub cut: bool,
}

impl Structures {
    /// The threads of all interpreters, in the order of the interpreter's lists.
    ///
    /// # Errors
    ///
    /// When the lists do not lead where they should, which may be because they are changing.
    pub fn threads(&self, memory: &impl Memory) -> Result<Vec<ThreadState>, Misfit> {
        let field = |base: Avma, offset| memory.pointer(base.checked_add(offset)?);
        let mut threads = Vec::new();
        let head = field(self.runtime, self.offsets.interpreters);
        let mut interpreter = head.ok_or(Misfit::Interpreters)?;
        for _ in 0..MAX_INTERPRETERS {
            if interpreter.0 == 0 {
                return Ok(threads);
            }
            let id = field(interpreter, self.offsets.interpreter_id);
            let id = id.ok_or(Misfit::Interpreters)?.0;
            let holder = self.gil_holder(memory, interpreter);
            let mut state = field(interpreter, self.offsets.threads).ok_or(Misfit::Threads)?;
            while state.0 != 0 {
                let back = field(state, self.offsets.thread_interpreter).ok_or(Misfit::Threads)?;
                if back != interpreter {
                    return Err(Misfit::BackPointer);
                }
                threads.push(ThreadState {
                    state,
                    interpreter: id,
                    id: field(state, self.offsets.thread_id).ok_or(Misfit::Threads)?,
                    native_id: (self.offsets.native_id)
                        .and_then(|offset| Some(field(state, offset)?.0)),
                    context: (self.offsets.context)
                        .and_then(|offset| field(state, offset))
                        .filter(|context| context.0 != 0),
                    holds_gil: holder == Some(state),
                });
                state = field(state, self.offsets.thread_next).ok_or(Misfit::Threads)?;
                if threads.len() > MAX_THREADS {
                    return Err(Misfit::Threads);
                }
            }
            let next = field(interpreter, self.offsets.interpreter_next);
            interpreter = next.ok_or(Misfit::Interpreters)?;
        }
        Err(Misfit::Interpreters)
    }

    /// The state of the thread that holds the GIL of an interpreter, if any does.
    fn gil_holder(&self, memory: &impl Memory, interpreter: Avma) -> Option<Avma> {
        match self.offsets.gil {
            Gil::Runtime(at) => memory.pointer(self.runtime.checked_add(at)?),
            Gil::Interpreter {
                gil,
                holder,
                locked,
            } => {
                let gil = memory.pointer(interpreter.checked_add(gil)?)?;
                let is_locked = memory.u32(gil.checked_add(locked)?)? == 1;
                let holder = memory.pointer(gil.checked_add(holder)?)?;
                is_locked.then_some(holder)
            }
        }
    }

    /// The calls that are under way in a thread; of more than `limit`, the innermost.
    ///
    /// # Errors
    ///
    /// When a frame cannot be read.
    pub fn calls(&self, memory: &impl Memory, state: Avma, limit: usize) -> Result<Calls, Misfit> {
        let mut found = Calls::default();
        let mut frame = self.current_frame(memory, state).ok_or(Misfit::Frames)?;
        // Between two frames there may be one of the interpreter's own.
        for _ in 0..limit.saturating_mul(2) {
            if frame.0 == 0 {
                return Ok(found);
            }
            if found.calls.len() == limit {
                break;
            }
            let (call, previous) = self.call(memory, frame).ok_or(Misfit::Frames)?;
            found.calls.extend(call);
            frame = previous;
        }
        found.cut = true;
        Ok(found)
    }

    fn current_frame(&self, memory: &impl Memory, state: Avma) -> Option<Avma> {
        let frame = memory.pointer(state.checked_add(self.offsets.frame)?)?;
        match self.offsets.frame_in_cframe {
            Some(offset) if frame.0 != 0 => memory.pointer(frame.checked_add(offset)?),
            _ => Some(frame),
        }
    }

    /// What a frame runs, unless it is the interpreter's own, and the frame that it was called from.
    fn call(&self, memory: &impl Memory, frame: Avma) -> Option<(Option<Call>, Avma)> {
        let offsets = &self.offsets;
        let at = |offset| frame.checked_add(offset);
        let previous = memory.pointer(at(offsets.previous)?)?;
        let [mark] = memory.array(at(offsets.entry)?)?;
        if offsets.entry_kind == EntryKind::Owner && mark >= OWNED_BY_INTERPRETER {
            return Some((None, previous));
        }
        // The lowest bits may be tags.
        let code = Avma(memory.u64(at(offsets.executable)?)? & !7);
        let instruction = match offsets.instruction_kind {
            InstructionKind::Bytes => memory.u32(at(offsets.instruction)?)?.cast_signed() >> 1,
            InstructionKind::Units => memory.u32(at(offsets.instruction)?)?.cast_signed(),
            InstructionKind::Pointer => {
                let first = code.checked_add(offsets.first_instruction)?;
                let raw = memory.u64(at(offsets.instruction)?)?;
                let distance = raw.wrapping_sub(first.0).cast_signed() >> 1;
                i32::try_from(distance).unwrap_or(i32::MAX)
            }
        };
        let instruction = u32::try_from(instruction).unwrap_or(NOT_STARTED);
        Some((Some(Call { code, instruction }), previous))
    }

    /// The code object at `address`.
    ///
    /// # Errors
    ///
    /// When that is none.
    pub fn code(&self, memory: &impl Memory, address: Avma) -> Result<CodeObject, Misfit> {
        let kind = address.checked_add(OBJECT_TYPE);
        if kind.and_then(|at| memory.pointer(at)) != Some(self.code_type) {
            return Err(Misfit::CodeType);
        }
        CodeObject::read(memory, &self.offsets.code, address).ok_or(Misfit::Name)
    }

    /// The code object of a call, which has the instruction that the call is at.
    ///
    /// # Errors
    ///
    /// When that is not so.
    pub fn code_of(&self, memory: &impl Memory, call: Call) -> Result<CodeObject, Misfit> {
        let code = self.code(memory, call.code)?;
        let instructions = self.instructions(memory, call.code);
        let instructions = instructions.ok_or(Misfit::Instruction)?;
        if call.instruction != NOT_STARTED && u64::from(call.instruction) >= instructions {
            return Err(Misfit::Instruction);
        }
        Ok(code)
    }

    /// How many code units a code object has.
    fn instructions(&self, memory: &impl Memory, code: Avma) -> Option<u64> {
        if self.offsets.instruction_kind == InstructionKind::Pointer {
            return memory.u64(code.checked_add(VARIABLE_SIZE)?);
        }
        let bytes = memory.pointer(code.checked_add(CODE_BYTES)?)?;
        Some(memory.u64(bytes.checked_add(VARIABLE_SIZE)?)? / 2)
    }

    /// Whether everything is where it should be. Returns the threads, of which there is at least one;
    /// none of them needs to run Python now.
    ///
    /// # Errors
    ///
    /// What does not fit, which may be because it is changing.
    pub fn check(&self, memory: &impl Memory) -> Result<Vec<ThreadState>, Misfit> {
        let threads = self.threads(memory)?;
        let mut checked = HashSet::new();
        for thread in &threads {
            for call in self.calls(memory, thread.state, CHECKED_FRAMES)?.calls {
                if checked.insert(call) {
                    self.code_of(memory, call)?;
                }
            }
        }
        if threads.is_empty() {
            return Err(Misfit::NoThreads);
        }
        Ok(threads)
    }
}

#[cfg(test)]
mod tests;
