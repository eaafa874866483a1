//! The contexts of `contextvars`: which one a thread is in, and which functions make and free them.
//!
//! An event loop enters the context of a task for each of its steps, and that of a callback for each
//! call, so that the running context tells what a thread works on. A task's is a copy, made when the
//! task is, of the one that is current then. `docs/design/0012` has what this rests on.

use object::{Object as _, ObjectSymbol as _, ReadRef};
use residue_ebpf::abi::python::STATE_BYTES;

use super::ThreadState;
use crate::target::{Avma, LoadBias, Memory, Svma};

/// `ob_type` in `PyObject` (Include/object.h).
const OBJECT_TYPE: u64 = 8;
/// In `PyTypeObject` (Include/cpython/object.h).
const TYPE_DEALLOC: u64 = 48;
const TYPE_METHODS: u64 = 232;
const TYPE_NEW: u64 = 312;
/// `PyMethodDef` (Include/methodobject.h): name, function, flags, documentation.
const METHOD_BYTES: u64 = 32;
/// Of which a context has seven.
const MAX_METHODS: u64 = 32;
/// The context's own is followed by the number of entries and exits so far, in every version.
const CONTEXT_BYTES: u64 = 16;
/// Threads that run meanwhile may be between two contexts.
const LOOKS: u32 = 5;

/// What the symbols of an object say about contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextSymbols {
    /// `PyContext_Type`
    pub kind: Svma,
    /// The exported functions that make contexts.
    pub makers: Vec<Svma>,
}

impl ContextSymbols {
    /// Those of an ELF file; `None` if it does not export them.
    pub fn read<'data>(file: &object::File<'data, impl ReadRef<'data>>) -> Option<Self> {
        const MAKERS: [&str; 3] = ["PyContext_CopyCurrent", "PyContext_Copy", "PyContext_New"];
        let mut kind = None;
        let mut makers = Vec::new();
        for symbol in file.dynamic_symbols().filter(|it| it.is_definition()) {
            match symbol.name() {
                Ok("PyContext_Type") => kind = Some(Svma(symbol.address())),
                Ok(name) if MAKERS.contains(&name) => makers.push(Svma(symbol.address())),
                _ => {}
            }
        }
        (makers.len() == MAKERS.len()).then_some(Self {
            kind: kind?,
            makers,
        })
    }
}

/// The contexts of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contexts {
    /// `PyThreadState.context`, of which the current thread's is meant. Behind it is `context_ver`.
    pub offset: u64,
    /// The functions that return a new context.
    pub makers: Vec<Avma>,
    /// The function that frees one: `void f(PyContext *)`.
    pub dealloc: Avma,
}

impl Contexts {
    /// Those of the interpreter whose symbols and threads are given. `known` is where its version has
    /// the current context, if that is known; else it is looked for. `None` if what is there is no
    /// context, or no thread has one to look for.
    pub fn find(
        symbols: &ContextSymbols,
        bias: LoadBias,
        known: Option<u64>,
        threads: &[ThreadState],
        memory: &impl Memory,
    ) -> Option<Self> {
        let kind = bias.avma(symbols.kind);
        let word = |at: u64| memory.pointer(kind.checked_add(at)?);
        let mut makers: Vec<_> = symbols.makers.iter().map(|it| bias.avma(*it)).collect();
        makers.extend([word(TYPE_NEW)?, copy_method(memory, word(TYPE_METHODS)?)?]);
        makers.sort_unstable();
        makers.dedup();
        let found = (0..LOOKS).find_map(|_| locate(known, kind, threads, memory));
        Some(Self {
            offset: found?,
            makers,
            dealloc: word(TYPE_DEALLOC).filter(|it| it.0 != 0)?,
        })
    }
}

/// `Context.copy`, which does not go through an exported function.
fn copy_method(memory: &impl Memory, methods: Avma) -> Option<Avma> {
    let method = |index| methods.checked_add(index * METHOD_BYTES);
    let is_copy = |at: &Avma| {
        let name = memory.pointer(*at);
        name.filter(|it| it.0 != 0)
            .and_then(|it| memory.array(it))
            .is_some_and(|name: [u8; 5]| name == *b"copy\0")
    };
    let found = (0..MAX_METHODS).map_while(method).find(is_copy)?;
    memory.pointer(found.checked_add(8)?)
}

/// Where threads have their current context: in none of them is anything else there.
fn locate(
    known: Option<u64>,
    kind: Avma,
    threads: &[ThreadState],
    memory: &impl Memory,
) -> Option<u64> {
    let is_context = |context: Avma| {
        let at = context.checked_add(OBJECT_TYPE);
        at.and_then(|at| memory.pointer(at)) == Some(kind)
    };
    let seen = |offset: u64| {
        let contexts = threads.iter().map(|thread| {
            let context = memory.pointer(thread.state.checked_add(offset)?)?;
            (context.0 == 0 || is_context(context)).then_some(context.0 != 0)
        });
        let contexts: Option<Vec<bool>> = contexts.collect();
        contexts.map(|it| it.contains(&true))
    };
    match known {
        Some(offset) => seen(offset).map(|_| offset),
        None => (0..=STATE_BYTES as u64 - CONTEXT_BYTES)
            .step_by(8)
            .find(|offset| seen(*offset) == Some(true)),
    }
}

#[cfg(test)]
mod tests;
