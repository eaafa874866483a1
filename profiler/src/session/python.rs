//! The Python of followed processes: where it is, and what its code objects are called.
//!
//! A code object is read as soon as a stack has shown it, and once. The kernel side takes its id back
//! when the interpreter frees it; an id that is still in use after the reading was so all the while,
//! so that what was read belongs to it.

use std::{collections::HashMap, fs::File};

use object::read::ReadCache;
use residue_ebpf::abi::frame::PythonFrame;

use crate::{
    drain::Drain,
    symbolize::{CodeObject, CodeOffsets, Symbol},
    target::{Avma, FileKey, LoadedObject, Memory as _, Process, ProcessMemory},
    unwind::runtime::python::{Interpreter, PythonRefusal, PythonSymbols},
};

/// What a code object is called that was freed before it could be read.
const STALE: &str = "<stale code>";
/// What a code object is called for which there was no room.
const UNKNOWN: &str = "<unknown code>";
/// Address bits of a code object's key.
const ADDRESS: u64 = (1 << residue_ebpf::abi::heap::ADDRESS_BITS) - 1;

/// The interpreter of one process.
pub struct Python {
    /// Where its frames are.
    pub interpreter: Interpreter,
    /// The file that holds it.
    pub file: FileKey,
    offsets: CodeOffsets,
    memory: ProcessMemory,
}

impl Python {
    /// Looks for an interpreter among the objects of a process.
    ///
    /// # Errors
    ///
    /// When there is one whose frames cannot be walked.
    pub fn find(
        process: &Process,
        objects: &[LoadedObject],
    ) -> Result<Option<Self>, PythonRefusal> {
        let Some(memory) = ProcessMemory::of(process) else {
            return Ok(None);
        };
        for object in objects {
            let name = object
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            // Whoever embeds Python links its library, or has all of it in the program.
            if object.path != process.exe() && !name.starts_with("libpython") {
                continue;
            }
            let Some(symbols) = symbols(object) else {
                continue;
            };
            let interpreter = Interpreter::find(&symbols, object.load_bias, &name, &memory)?;
            let version = interpreter.version;
            let offsets = CodeOffsets::of((version.major, version.minor))
                .ok_or(PythonRefusal::UnknownVersion(version))?;
            return Ok(Some(Self {
                interpreter,
                file: object.file,
                offsets,
                memory,
            }));
        }
        Ok(None)
    }

    fn read(&self, code: Avma) -> Option<CodeObject> {
        let kind = code.checked_add(8)?;
        if self.memory.pointer(kind)? != self.interpreter.code_type {
            return None;
        }
        CodeObject::read(&self.memory, &self.offsets, code)
    }
}

fn symbols(object: &LoadedObject) -> Option<PythonSymbols> {
    let file = ReadCache::new(File::open(&object.open_path).ok()?);
    PythonSymbols::read(&file)
}

/// The code objects of a recording, by id.
#[derive(Default)]
pub struct CodeObjects(HashMap<u32, Option<CodeObject>>);

impl CodeObjects {
    /// Reads the code object of a frame, if it was not seen before.
    pub fn learn(&mut self, frame: PythonFrame, python: Option<&Python>, drain: &Drain) {
        self.0.entry(frame.code).or_insert_with(|| {
            let key = drain.python_code_key(frame.code)?;
            let code = python?.read(Avma(key & ADDRESS))?;
            drain.is_python_code(key, frame.code).then_some(code)
        });
    }

    /// The function and line of a frame.
    pub fn symbol(&self, frame: PythonFrame) -> Symbol {
        let unnamed = |name: &str| Symbol {
            name: name.to_owned(),
            file: None,
            line: None,
        };
        match self.0.get(&frame.code) {
            _ if frame.code == 0 => unnamed(UNKNOWN),
            Some(Some(code)) => Symbol {
                name: code.name().to_owned(),
                file: Some(code.filename().to_owned()),
                line: code.line(frame.instruction),
            },
            _ => unnamed(STALE),
        }
    }
}
