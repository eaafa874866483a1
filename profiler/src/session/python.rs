//! The Python of followed processes: where it is, and what its code objects are called.
//!
//! A code object is read as soon as a stack has shown it, and once. The kernel side takes its id back
//! when the interpreter frees it; an id that is still in use after the reading was so all the while,
//! so that what was read belongs to it. Of one that is freed before it was read, the kernel side sends
//! what names it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use residue_ebpf::abi::{
    frame::PythonFrame,
    python::{CodePointers, FreedCode},
};

use crate::{
    drain::Drain,
    process::{Avma, FileKey, LoadBias, LoadedObject, Memory, Process, ProcessMemory},
    python::{CodeObject, Interpreter, PythonRefusal, PythonSymbols, ThreadStack},
    symbolize::Symbol,
};

/// What a code object is called that was freed before it could be read.
const STALE: &str = "<stale code>";
/// What a code object is called for which there was no room.
const UNKNOWN: &str = "<unknown code>";
/// How much memory code objects may take, bytes: about 100,000 of an application's functions.
const MAX_KEPT: usize = 64 << 20;
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

    /// What the kernel side keeps of code that is freed.
    pub const fn code_pointers(&self) -> CodePointers {
        self.interpreter.structures.offsets.code.pointers()
    }

    fn read(&self, memory: &impl Memory, code: Avma) -> Option<CodeObject> {
        self.interpreter.structures.code(memory, code).ok()
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
    PythonSymbols::read(&object.opened.data())
}

/// The code objects of a recording, by id: those that were of use last. One that is forgotten is read
/// again when it is needed.
#[derive(Default)]
pub struct CodeObjects {
    recent: HashMap<u32, Option<CodeObject>>,
    older: HashMap<u32, Option<CodeObject>>,
    /// Of the recent ones.
    bytes: usize,
    stale: u64,
}

impl CodeObjects {
    /// Reads the code object of a frame, if it was not seen before.
    pub fn learn(&mut self, frame: PythonFrame, python: Option<&Python>, drain: &mut Drain) {
        let id = frame.code;
        if self.recent.contains_key(&id) {
            return;
        }
        let code = (self.older.remove(&id)).unwrap_or_else(|| {
            let (key, python) = (drain.python_code_key(id)?, python?);
            let code = python.read(&python.memory, Avma(key & ADDRESS))?;
            drain.is_python_code(key, id).then(|| {
                drain.set_python_code_read(key, id);
                code
            })
        });
        self.keep(id, code);
    }

    /// Takes what the kernel side has kept of a code object. To be called after [`Self::learn`], which
    /// may have come too late for it.
    pub fn learn_freed(&mut self, freed: &FreedCode, python: Option<&Python>) {
        let [object, ..] = &freed.parts;
        let code = python.and_then(|python| python.read(freed, Avma(object.address)));
        if code.is_some() && self.get(freed.id).is_none() {
            self.keep(freed.id, code);
        }
    }

    /// How many places could not be named because their code was gone.
    pub const fn stale(&self) -> u64 {
        self.stale
    }

    fn get(&self, id: u32) -> Option<&CodeObject> {
        let known = self.recent.get(&id).or_else(|| self.older.get(&id));
        known.and_then(Option::as_ref)
    }

    fn keep(&mut self, id: u32, code: Option<CodeObject>) {
        let unread = size_of::<Option<CodeObject>>();
        self.bytes += code.as_ref().map_or(unread, CodeObject::bytes);
        self.recent.insert(id, code);
        if self.bytes > MAX_KEPT / 2 {
            self.older = std::mem::take(&mut self.recent);
            self.bytes = 0;
        }
    }

    /// The function and line of a frame, to be asked for once.
    pub fn symbol(&mut self, frame: PythonFrame) -> Symbol {
        let unnamed = |name: &str| Symbol {
            name: name.to_owned(),
            file: None,
            line: None,
        };
        if frame.code == 0 {
            return unnamed(UNKNOWN);
        }
        let Some(code) = self.get(frame.code) else {
            self.stale += 1;
            return unnamed(STALE);
        };
        Symbol {
            name: code.name().to_owned(),
            file: Some(code.filename().to_owned()),
            line: code.line(frame.instruction),
        }
    }
}
