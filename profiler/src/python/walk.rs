//! Walks over the threads of an interpreter and their frames from outside, while the interpreter runs.
//!
//! Such a walk checks a layout before the kernel side may use it: a thread has to point back to its interpreter, and
//! a frame has to run a code object with a name. Changes during a walk may make it fail once, but not again and
//! again.

use std::collections::HashSet;

use residue_ebpf::abi::{
    frame::NOT_STARTED,
    python::{EntryKind, InstructionKind},
};

use super::{Gil, Offsets};
use crate::{
    process::{Avma, Memory},
    python::{CodeObject, OBJECT_TYPE, VARIABLE_SIZE},
};

/// The most interpreters of a process. Each costs at least a page.
const MAX_INTERPRETERS: usize = 1 << 12;
/// The most threads of all interpreters together: 32,768, which is also the default of the kernel's `pid_max`.
const MAX_THREADS: usize = 1 << 15;
/// How many frames of a thread to check, innermost first.
const CHECKED_FRAMES: usize = 64;
/// The lowest owner of frames that the interpreter makes for itself (`FRAME_OWNED_BY_CSTACK` in 3.12 and 3.13,
/// `FRAME_OWNED_BY_INTERPRETER` in 3.14).
const OWNED_BY_INTERPRETER: u8 = 3;
/// `PyCodeObject.co_code`, up to 3.10 (Include/cpython/code.h), points to a bytes object. From 3.11 on the code is in
/// the code object itself, and `ob_size` is the length of the code in units of two bytes.
const CODE_BYTES: u64 = 48;

/// What does not fit in the structures of an interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// No thread has run Python yet.
    #[error("it has no thread that runs Python (yet)")]
    NoThreads,
    /// Residue cannot read the list of interpreters, or the list does not end.
    #[error("the list of its interpreters does not lead anywhere")]
    Interpreters,
    /// Residue cannot read a list of threads, or the list does not end.
    #[error("the list of its threads does not lead anywhere")]
    Threads,
    /// `PyThreadState.interp` does not point to the interpreter.
    #[error("a thread's state does not point back to its interpreter")]
    BackPointer,
    /// No thread has the pointer to its state under the key.
    #[error("no thread keeps its state where the C library would")]
    Key,
    /// Residue cannot read a frame.
    #[error("the frames of a thread do not lead anywhere")]
    Frames,
    /// A frame runs an object of another type than `PyCode_Type`.
    #[error("what a frame runs is no code object")]
    CodeType,
    /// The instruction of a frame is outside of the code.
    #[error("a frame runs an instruction outside of its code")]
    Instruction,
    /// Residue cannot read the name of a code object.
    #[error("the name of a code object cannot be read")]
    Name,
}

/// Where the structures of an interpreter are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structures {
    /// `_PyRuntime`
    pub runtime: Avma,
    /// `PyCode_Type`
    pub code_type: Avma,
    /// The offsets of fields in the structures.
    pub offsets: Offsets,
}

/// A thread that has run Python: a `PyThreadState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// The address of the `PyThreadState`.
    pub state: Avma,
    /// `PyInterpreterState.id`: 0 is the main interpreter.
    pub interpreter: u64,
    /// What pthread_self() returns in the thread, its fsbase. Zero before the thread has begun.
    pub id: Avma,
    /// The tid of the thread in the PID namespace of the process, from 3.11 on.
    pub native_id: Option<u64>,
    /// The context of `contextvars` that the thread is in, if any.
    pub context: Option<Avma>,
    /// Whether the thread holds the GIL.
    pub holds_gil: bool,
}

/// A frame: a call that has not returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The code object that the frame runs.
    pub code: Avma,
    /// The instruction that runs, in code units of two bytes from the first; [`NOT_STARTED`] before the first.
    pub instruction: u32,
}

/// The calls of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// The calls, innermost first.
    pub calls: Vec<Call>,
    /// Whether the thread has more calls than these.
    pub cut: bool,
}

impl Structures {
    /// The threads of all interpreters, in the order of the interpreters' lists.
    ///
    /// # Errors
    ///
    /// When the lists do not lead where they should, perhaps because they are changing.
    pub fn threads(&self, memory: &impl Memory) -> Result<Vec<ThreadState>, Misfit> {
        let field = |base: Avma, offset| memory.pointer(base.checked_add(offset)?);
        let listed = |base, offset| field(base, offset).ok_or(Misfit::Interpreters);
        let mut threads = Vec::new();
        let mut interpreter = listed(self.runtime, self.offsets.interpreters)?;
        for _ in 0..MAX_INTERPRETERS {
            if interpreter.0 == 0 {
                return Ok(threads);
            }
            let id = listed(interpreter, self.offsets.interpreter_id)?.0;
            let holder = self.gil_holder(memory, interpreter);
            let mut state = field(interpreter, self.offsets.threads).ok_or(Misfit::Threads)?;
            while state.0 != 0 {
                let back = field(state, self.offsets.thread_interpreter).ok_or(Misfit::Threads)?;
                if back != interpreter {
                    return Err(Misfit::BackPointer);
                }
                let thread = self.thread(memory, state, id);
                let mut thread = thread.ok_or(Misfit::Threads)?;
                thread.holds_gil = holder == Some(state);
                threads.push(thread);
                state = field(state, self.offsets.thread_next).ok_or(Misfit::Threads)?;
                if threads.len() > MAX_THREADS {
                    return Err(Misfit::Threads);
                }
            }
            interpreter = listed(interpreter, self.offsets.interpreter_next)?;
        }
        Err(Misfit::Interpreters)
    }

    /// Reads the state of a thread that belongs to the interpreter with this id. Leaves open who holds the GIL.
    fn thread(&self, memory: &impl Memory, state: Avma, interpreter: u64) -> Option<ThreadState> {
        let field = |offset: u64| memory.pointer(state.checked_add(offset)?);
        let context = self.offsets.context.and_then(field);
        Some(ThreadState {
            state,
            interpreter,
            id: field(self.offsets.thread_id)?,
            native_id: self.offsets.native_id.and_then(field).map(|tid| tid.0),
            context: context.filter(|context| context.0 != 0),
            holds_gil: false,
        })
    }

    /// The state of the thread that holds the GIL of an interpreter, if one does.
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

    /// The calls of a thread that have not returned: the innermost ones, up to `limit`.
    ///
    /// # Errors
    ///
    /// When residue cannot read a frame.
    pub fn calls(&self, memory: &impl Memory, state: Avma, limit: usize) -> Result<Calls, Misfit> {
        let mut found = Calls::default();
        let mut frame = self.current_frame(memory, state).ok_or(Misfit::Frames)?;
        // Between two frames there may be one that the interpreter has made for itself.
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

    /// The call of a frame, unless the interpreter has made the frame for itself, and the caller's frame.
    fn call(&self, memory: &impl Memory, frame: Avma) -> Option<(Option<Call>, Avma)> {
        let offsets = &self.offsets;
        let at = |offset| frame.checked_add(offset);
        let previous = memory.pointer(at(offsets.previous)?)?;
        let [mark] = memory.array(at(offsets.entry)?)?;
        if offsets.entry_kind == EntryKind::Owner && mark >= OWNED_BY_INTERPRETER {
            return Some((None, previous));
        }
        // The lowest three bits may be tags.
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
    /// When something else is there, or the code object has no name.
    pub fn code(&self, memory: &impl Memory, address: Avma) -> Result<CodeObject, Misfit> {
        let kind = address.checked_add(OBJECT_TYPE);
        if kind.and_then(|at| memory.pointer(at)) != Some(self.code_type) {
            return Err(Misfit::CodeType);
        }
        CodeObject::read(memory, &self.offsets.code, address).ok_or(Misfit::Name)
    }

    /// The code object of a call.
    ///
    /// # Errors
    ///
    /// When something else is there, or the code object does not have the instruction of the call.
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

    /// Checks that everything is where it should be. Returns the threads, at least one. Perhaps none of them runs
    /// Python now.
    ///
    /// # Errors
    ///
    /// When something does not fit, perhaps because it is changing.
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
