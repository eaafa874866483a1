//! Reads the stack of every thread of an interpreter, with names, while the threads run.

use super::{Calls, Misfit, Structures, ThreadState};
use crate::{process::Memory, python::CodeObject};

/// How often to read a stack that changes meanwhile.
const LOOKS: u32 = 5;

/// A thread's stack.
#[derive(Clone, Debug)]
pub struct ThreadStack {
    /// The thread.
    pub thread: ThreadState,
    /// The functions, innermost first.
    pub functions: Vec<Function>,
    /// Whether the thread has more frames than these.
    pub cut: bool,
    /// Whether the stack was the same before and after residue read the names. Only then did the thread have this
    /// stack.
    pub steady: bool,
}

/// The function that a frame runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The qualified name from 3.11 on, before that the bare name.
    pub name: String,
    /// The file, as the interpreter names it.
    pub file: String,
    /// The line, if the instruction belongs to one.
    pub line: Option<u32>,
}

impl Structures {
    /// The stack of each thread, with up to `limit` frames.
    ///
    /// # Errors
    ///
    /// When residue cannot list the threads, perhaps because the list is changing.
    pub fn stacks(&self, memory: &impl Memory, limit: usize) -> Result<Vec<ThreadStack>, Misfit> {
        let stack = |thread| {
            let mut looks = (0..LOOKS).map(|_| self.stack(memory, thread, limit));
            let steady = looks
                .by_ref()
                .find(|look| look.as_ref().is_ok_and(|stack| stack.steady));
            let torn = || self.stack(memory, thread, limit);
            steady.unwrap_or_else(torn).unwrap_or(ThreadStack {
                thread,
                functions: Vec::new(),
                cut: true,
                steady: false,
            })
        };
        Ok(self.threads(memory)?.into_iter().map(stack).collect())
    }

    fn stack(
        &self,
        memory: &impl Memory,
        thread: ThreadState,
        limit: usize,
    ) -> Result<ThreadStack, Misfit> {
        let before = self.calls(memory, thread.state, limit)?;
        let functions = self.functions(memory, &before)?;
        let steady = self.calls(memory, thread.state, limit)? == before;
        Ok(ThreadStack {
            thread,
            functions,
            cut: before.cut,
            steady,
        })
    }

    fn functions(&self, memory: &impl Memory, calls: &Calls) -> Result<Vec<Function>, Misfit> {
        let function = |call: &super::Call| {
            let code: CodeObject = self.code_of(memory, *call)?;
            Ok(Function {
                name: code.name().to_owned(),
                file: code.filename().to_owned(),
                line: code.line(call.instruction),
            })
        };
        calls.calls.iter().map(function).collect()
    }
}
