//! The Python of followed processes: where it is, and what its code objects are called.
//!
//! A code object is read as soon as a stack has shown it, and once. The kernel side takes its id back
//! when the interpreter frees it; an id that is still in use after the reading was so all the while,
//! so that what was read belongs to it.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use object::read::ReadCache;
use residue_ebpf::abi::frame::PythonFrame;

use crate::{
    drain::Drain,
    symbolize::{CodeObject, Symbol},
    target::{Avma, FileKey, LoadBias, LoadedObject, Process, ProcessMemory},
    unwind::runtime::python::{Interpreter, PythonRefusal, PythonSymbols, ThreadStack},
};

/// What a code object is called that was freed before it could be read.
const STALE: &str = "<stale code>";
/// What a code object is called for which there was no room.
const UNKNOWN: &str = "<unknown code>";
/// Address bits of a code object's key.
const ADDRESS: u64 = (1 << residue_ebpf::abi::heap::ADDRESS_BITS) - 1;

/// How often structures that change while they are looked at are looked at, and how long apart.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(3);

/// The interpreter of one process.
pub struct Python {
    /// Where its frames are.
    pub interpreter: Interpreter,
    /// The file that holds it.
    pub file: FileKey,
    /// As the process names it.
    pub path: PathBuf,
    /// What that file's symbols say.
    pub symbols: PythonSymbols,
    /// Where it was loaded.
    pub bias: LoadBias,
    /// The memory of the process.
    pub memory: ProcessMemory,
}

impl Python {
    /// Looks for an interpreter among the objects of a process, and checks that its structures are
    /// where they are thought to be.
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
            let name = file_name(&object.path);
            // Whoever embeds Python links its library, or has all of it in the program.
            if object.path != process.exe() && !name.starts_with("libpython") {
                continue;
            }
            let Some(symbols) = symbols(object) else {
                continue;
            };
            let interpreter = settled(|| {
                Interpreter::find(&symbols, object.load_bias, &name, &memory)
                    .map_err(|refusal| refusal.or_musl(has_musl(objects)))
            })?;
            return Ok(Some(Self {
                interpreter,
                file: object.file,
                path: object.path.clone(),
                symbols,
                bias: object.load_bias,
                memory,
            }));
        }
        Ok(None)
    }

    /// The stack of each of its threads, up to `limit` frames of it.
    ///
    /// # Errors
    ///
    /// When its threads do not stay the same for long enough to be listed.
    pub fn stacks(&self, limit: usize) -> Result<Vec<ThreadStack>, PythonRefusal> {
        let Interpreter {
            version,
            structures,
            ..
        } = self.interpreter;
        let refused = |misfit| PythonRefusal::Misfit { version, misfit };
        settled(|| structures.stacks(&self.memory, limit).map_err(refused))
    }

    fn read(&self, code: Avma) -> Option<CodeObject> {
        let structures = &self.interpreter.structures;
        structures.code(&self.memory, code).ok()
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// musl's loader is its C library as well.
fn has_musl(objects: &[LoadedObject]) -> bool {
    let mut names = objects.iter().map(|object| file_name(&object.path));
    names.any(|name| name.starts_with("ld-musl") || name.starts_with("libc.musl"))
}

/// Threads that run meanwhile may be in the middle of anything: what does not fit once may fit next.
fn settled<T>(mut look: impl FnMut() -> Result<T, PythonRefusal>) -> Result<T, PythonRefusal> {
    for _ in 1..LOOKS {
        match look() {
            Err(refusal) if refusal.may_be_torn() => std::thread::sleep(BETWEEN_LOOKS),
            result => return result,
        }
    }
    look()
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
