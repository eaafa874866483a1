//! What every thread of an interpreter runs, by name, read while it runs.

use super::{Calls, Misfit, Structures, ThreadState};
use crate::{symbolize::CodeObject, target::Memory};

/// How often a stack is read until it stays the same.
const LOOKS: u32 = 5;

/// A thread's stack.
#[derive(Clone, Debug)]
pub struct ThreadStack {
    /// The thread.
    pub thread: ThreadState,
    /// Innermost first.
    pub functions: Vec<Function>,
    /// Whether there are more.
    pub cut: bool,
    /// Whether the stack was the same before and after its names were read: then it is one that the
    /// thread had.
    pub steady: bool,
}

/// What a frame runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its qualified name from 3.11 on, else the bare one.
    pub name: String,
    /// The file, as the interpreter names it.
    pub file: String,
    /// The line, if the instruction belongs to one.
    pub line: Option<u32>,
}

impl Structures {
    /// The stack of each thread, up to `limit` frames of it.
    ///
    /// # Errors
    ///
    /// When the threads cannot be listed, which may be because the list is changing.
    pub fn stacks(&self, memory: &impl Memory, limit: usize) -> Result<Vec<ThreadStack>, Misfit> {
        let stack = |thread| {
            let mut looks = (0..LOOKS).map(|_| self.stack(memory, thread, limit));
            let steady = looks
                .by_ref()
                .find(|look| look.as_ref().is_ok_and(|it| it.steady));
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
