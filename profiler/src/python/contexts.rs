//! The contexts of `contextvars`: the context that a thread is in, and the functions that make and free contexts.
//!
//! An event loop enters the context of a task for each step of the task, and the context of a callback for each
//! call, so the current context tells what a thread works on. The context of a task is a copy of the context that
//! was current when the program made the task. `docs/design/0012` explains why residue can rely on that.

use object::{Object as _, ObjectSymbol as _, ReadRef};
use residue_ebpf::abi::python::STATE_BYTES;

use super::{OBJECT_TYPE, TYPE_DEALLOC, ThreadState};
use crate::process::{Avma, LoadBias, Memory, Svma};

/// `tp_methods` and `tp_new` in `PyTypeObject` (Include/cpython/object.h).
const TYPE_METHODS: u64 = 232;
const TYPE_NEW: u64 = 312;
/// `PyMethodDef` (Include/methodobject.h): name, function, flags, documentation.
const METHOD_BYTES: u64 = 32;
/// The most methods to look at. A context has seven.
const MAX_METHODS: u64 = 32;
/// Bytes of `context` and `context_ver` in `PyThreadState`, which follow each other in every version.
const CONTEXT_BYTES: u64 = 16;
/// How often to look, because a thread that runs meanwhile may be between two contexts.
const LOOKS: u32 = 5;

/// The symbols of an object that concern contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextSymbols {
    /// `PyContext_Type`
    pub kind: Svma,
    /// The exported functions that make contexts.
    pub makers: Vec<Svma>,
}

impl ContextSymbols {
    /// Reads the symbols of an ELF file; `None` if the file does not export them.
    pub fn read<'data>(file: &object::File<'data, impl ReadRef<'data>>) -> Option<Self> {
        const MAKERS: [&str; 3] = ["PyContext_CopyCurrent", "PyContext_Copy", "PyContext_New"];
        let mut kind = None;
        let mut makers = Vec::new();
        for symbol in file
            .dynamic_symbols()
            .filter(|symbol| symbol.is_definition())
        {
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
    /// The offset of `PyThreadState.context`, bytes. `context_ver` follows there.
    pub offset: u64,
    /// The functions that return a new context.
    pub makers: Vec<Avma>,
    /// The function that frees one: `void f(PyContext *)`.
    pub dealloc: Avma,
}

impl Contexts {
    /// Finds the contexts of the interpreter with these symbols and threads. `known` is the offset of the current
    /// context in that version; without `known`, this function searches for the offset. `None` if something else
    /// than a context is there, or if no thread has a context to search for.
    pub fn find(
        symbols: &ContextSymbols,
        bias: LoadBias,
        known: Option<u64>,
        threads: &[ThreadState],
        memory: &impl Memory,
    ) -> Option<Self> {
        let kind = bias.avma(symbols.kind);
        let word = |at: u64| memory.pointer(kind.checked_add(at)?);
        let makers = symbols.makers.iter().map(|maker| bias.avma(*maker));
        let mut makers: Vec<_> = makers.collect();
        makers.extend([word(TYPE_NEW)?, copy_method(memory, word(TYPE_METHODS)?)?]);
        makers.sort_unstable();
        makers.dedup();
        let found = (0..LOOKS).find_map(|_| locate(known, kind, threads, memory));
        Some(Self {
            offset: found?,
            makers,
            dealloc: word(TYPE_DEALLOC).filter(|dealloc| dealloc.0 != 0)?,
        })
    }
}

/// The AVMA of `Context.copy`, which calls no exported function.
fn copy_method(memory: &impl Memory, methods: Avma) -> Option<Avma> {
    let method = |index| methods.checked_add(index * METHOD_BYTES);
    let is_copy = |at: &Avma| {
        let name = memory.pointer(*at);
        name.filter(|name| name.0 != 0)
            .and_then(|name| memory.array(name))
            .is_some_and(|name: [u8; 5]| name == *b"copy\0")
    };
    let found = (0..MAX_METHODS).map_while(method).find(is_copy)?;
    memory.pointer(found.checked_add(8)?)
}

/// The offset at which threads have their current context. No thread has anything else there.
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
        contexts.map(|contexts| contexts.contains(&true))
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
