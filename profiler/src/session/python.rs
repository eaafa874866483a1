//! The Python of followed processes: where the interpreter is, and the names of its code objects.
//!
//! Residue reads a code object once, as soon as a stack has shown it. The kernel side takes the
//! object's id back when the interpreter frees the object. If the id is still in use after the
//! reading, it was in use all the while, so what residue read belongs to it. If the interpreter frees
//! the object before residue reads it, the kernel side sends the parts that name it.

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

/// The name of a code object that was freed before residue could read it.
const STALE: &str = "<stale code>";
/// The name of a code object for which there was no room.
const UNKNOWN: &str = "<unknown code>";
/// How many bytes of memory code objects may take: about 100,000 functions of an application.
const MAX_KEPT: usize = 64 << 20;
/// The address bits of a code object's key.
const ADDRESS: u64 = (1 << residue_ebpf::abi::heap::ADDRESS_BITS) - 1;

/// How often residue looks at structures that change meanwhile, and how long it pauses between two
/// looks.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(3);

/// The interpreter of one process.
pub struct Python {
    /// The interpreter, with where its frames are.
    pub interpreter: Interpreter,
    /// The file that holds the interpreter.
    pub file: FileKey,
    /// The file's path, as the process names it.
    pub path: PathBuf,
    /// The symbols of that file.
    pub symbols: PythonSymbols,
    /// Where the file was loaded.
    pub bias: LoadBias,
    /// The memory of the process.
    pub memory: ProcessMemory,
}

impl Python {
    /// Looks for an interpreter among the objects of a process, and checks that its structures are
    /// where residue expects them.
    ///
    /// # Errors
    ///
    /// When there is an interpreter whose frames residue cannot walk.
    pub fn find(
        process: &Process,
        objects: &[LoadedObject],
    ) -> Result<Option<Self>, PythonRefusal> {
        let Some(memory) = ProcessMemory::of(process) else {
            return Ok(None);
        };
        // A program that embeds Python links its library, or has all of it in the program file.
        let found = objects.iter().find_map(|object| {
            let name = file_name(&object.path);
            let may_be = object.path == process.exe() || name.starts_with("libpython");
            Some((object, name, may_be.then(|| symbols(object))??))
        });
        let Some((object, name, symbols)) = found else {
            return Ok(None);
        };
        let interpreter = settled(|| {
            Interpreter::find(&symbols, object.load_bias, &name, &memory)
                .map_err(|refusal| refusal.or_musl(has_musl(objects)))
        })?;
        Ok(Some(Self {
            interpreter,
            file: object.file,
            path: object.path.clone(),
            symbols,
            bias: object.load_bias,
            memory,
        }))
    }

    /// The stack of each thread, with up to `limit` frames.
    ///
    /// # Errors
    ///
    /// When the list of threads keeps changing while residue reads it.
    pub fn stacks(&self, limit: usize) -> Result<Vec<ThreadStack>, PythonRefusal> {
        let Interpreter {
            version,
            structures,
            ..
        } = self.interpreter;
        let refused = |misfit| PythonRefusal::Misfit { version, misfit };
        settled(|| structures.stacks(&self.memory, limit).map_err(refused))
    }

    /// The pointers by which the kernel side keeps the names of freed code.
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

/// Whether the process runs on musl, whose loader is its C library as well.
fn has_musl(objects: &[LoadedObject]) -> bool {
    let mut names = objects.iter().map(|object| file_name(&object.path));
    names.any(|name| name.starts_with("ld-musl") || name.starts_with("libc.musl"))
}

/// Looks several times: threads that run meanwhile may be in the middle of anything, so what does not
/// fit once may fit next.
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

/// The code objects of a recording by id: the ones that were of use last. Residue reads a forgotten
/// one again when it needs it.
#[derive(Default)]
pub struct CodeObjects {
    recent: HashMap<u32, Option<CodeObject>>,
    older: HashMap<u32, Option<CodeObject>>,
    /// How many bytes the recent code objects take.
    bytes: usize,
    stale: u64,
}

impl CodeObjects {
    /// Reads the code object of a frame, if residue has not seen it before.
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

    /// Takes what the kernel side has kept of a code object. Call this after [`Self::learn`], which
    /// may have come too late for the object.
    pub fn learn_freed(&mut self, freed: &FreedCode, python: Option<&Python>) {
        let [object, ..] = &freed.parts;
        let code = python.and_then(|python| python.read(freed, Avma(object.address)));
        if code.is_some() && self.get(freed.id).is_none() {
            self.keep(freed.id, code);
        }
    }

    /// How many places have no name because their code was gone.
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

    /// The function and line of a frame. Ask once for each frame.
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
