//! Finds out where a CPython interpreter keeps its frames.
//!
//! `symbols` reads the symbols that every build exports, stripped or not ▶ `version` comes from the process ▶
//! `offsets` are those that the interpreter states itself (`debug_offsets`), or those of a table for the version ▶
//! `walk` follows the offsets from `_PyRuntime` to the names of the functions that run now ▶ `thread_key` finds
//! where a thread keeps its state ▶ [`Interpreter`] has all that the kernel side needs for its walks.
//!
//! A patch release may have moved what the table says. So residue walks only by offsets that have proven themselves
//! on the process at hand.

pub mod allocator;
mod contexts;
mod debug_offsets;
mod evaluation;
mod names;
mod offsets;
mod queues;
mod stacks;
mod symbols;
mod thread_key;
mod version;
mod walk;

use residue_ebpf::abi::python::{EVAL_RANGES, NO_CONTEXT, PythonLayout, STATE_BYTES};

use crate::process::{Avma, LoadBias, Memory};
use debug_offsets::DebugOffsets;

pub use contexts::{ContextSymbols, Contexts};
pub use evaluation::{EvalPart, FoundBy};
pub use names::{CodeObject, CodeOffsets};
pub use offsets::{Gil, Offsets};
pub use queues::QueueFunctions;
pub use stacks::{Function, ThreadStack};
pub use symbols::PythonSymbols;
pub use thread_key::KeyPlace;
pub use version::PythonVersion;
pub use walk::{Call, Calls, Misfit, Structures, ThreadState};

/// `ob_type` in `PyObject`, and `ob_size` in `PyVarObject` (Include/object.h).
const OBJECT_TYPE: u64 = 8;
const VARIABLE_SIZE: u64 = 16;
/// `tp_dealloc` in `PyTypeObject` (Include/cpython/object.h).
const TYPE_DEALLOC: u64 = 48;
/// The least bytes of the code that runs bytecode. An interpreter that runs bytecode in one function has more. An
/// interpreter that has a function for each instruction, with tail calls between them (3.14, if clang has built
/// it), has less.
const MIN_EVAL_BYTES: u64 = 8 << 10;

/// Why residue walks a Python process as native code only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PythonRefusal {
    /// Residue knows no layout of this version.
    #[error("Python {0} is not known to this residue (3.8 to 3.14 are): its frames are not named")]
    UnknownVersion(PythonVersion),
    /// Neither `Py_Version` nor the name of the file tells the version.
    #[error("which Python this is cannot be told from {0}: its frames are not named")]
    NoVersion(String),
    /// The build has no GIL.
    #[error(
        "Python {0} is a free-threaded build, which residue does not walk: its frames are not named"
    )]
    FreeThreaded(PythonVersion),
    /// The interpreter is not initialized yet.
    #[error(
        "Python {0} is not initialized yet: its frames are named once it is, from the next library that it loads on"
    )]
    NotInitialized(PythonVersion),
    /// The `_Py_DebugOffsets` are not those of the version.
    #[error("Python {0} describes itself in a way that is not known: its frames are not named")]
    DebugOffsets(PythonVersion),
    /// The C library is musl, which keeps thread-specific values elsewhere than glibc.
    #[error(
        "Python {0} runs on musl, whose threads residue does not look into: its frames are not named"
    )]
    Musl(PythonVersion),
    /// Residue has not found the functions that run bytecode.
    #[error(
        "the code of Python {0} that runs bytecode was not found, or is in many functions (tail calls): its frames are not named"
    )]
    NoEvaluation(PythonVersion),
    /// The structures of the interpreter are not where they should be.
    #[error(
        "Python {version} does not fit the layout that is known of it: {misfit}; its frames are not named"
    )]
    Misfit {
        /// The version of the interpreter.
        version: PythonVersion,
        /// What does not fit.
        misfit: Misfit,
    },
}

impl PythonRefusal {
    /// Blames musl, if the process runs on musl and nothing but the key of the thread states did not fit.
    #[must_use]
    pub fn or_musl(self, has_musl: bool) -> Self {
        match self {
            Self::Misfit {
                version,
                misfit: Misfit::Key,
            } if has_musl => Self::Musl(version),
            refusal => refusal,
        }
    }

    /// Whether another look may succeed, because the process may have changed its structures during this one.
    #[must_use]
    pub const fn may_be_torn(&self) -> bool {
        matches!(self, Self::Misfit { .. })
    }
}

/// The source of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of known versions.
    Table,
    /// The interpreter itself, and the table agrees.
    DebugOffsetsAndTable,
    /// Only the interpreter itself.
    DebugOffsets,
}

/// An interpreter in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The version of the interpreter.
    pub version: PythonVersion,
    /// What the kernel side needs for walking the frames.
    pub layout: PythonLayout,
    /// What user space needs for walking the frames.
    pub structures: Structures,
    /// The source of the offsets.
    pub origin: Origin,
    /// Where the threads keep the pointers to their states.
    pub key: KeyPlace,
    /// The function that frees code objects, AVMA.
    pub code_dealloc: Avma,
    /// The contexts of `contextvars`, if residue has found them.
    pub contexts: Option<Contexts>,
}

impl Interpreter {
    /// Looks once for the interpreter with these symbols, in an object that is loaded at `bias` from a file with the
    /// name `file_name`. After an error, [`PythonRefusal::may_be_torn`] tells whether to look again.
    ///
    /// # Errors
    ///
    /// When residue cannot walk the interpreter's frames. The message says why.
    pub fn find(
        symbols: &PythonSymbols,
        bias: LoadBias,
        file_name: &str,
        memory: &impl Memory,
    ) -> Result<Self, PythonRefusal> {
        let (version, mut structures, origin) = stated(symbols, bias, file_name, memory)?;
        let refused = |misfit| match misfit {
            Misfit::NoThreads => PythonRefusal::NotInitialized(version),
            misfit => PythonRefusal::Misfit { version, misfit },
        };
        let threads = structures.check(memory).map_err(refused)?;
        let key = thread_key::locate(memory, &structures, &threads).map_err(refused)?;
        let known = structures.offsets.context;
        let find = |symbols| Contexts::find(symbols, bias, known, &threads, memory);
        let contexts = symbols.contexts.as_ref().and_then(find);
        structures.offsets.context = contexts.as_ref().map(|contexts| contexts.offset);
        let dealloc = structures.code_type.checked_add(TYPE_DEALLOC);
        let dealloc = dealloc.and_then(|at| memory.pointer(at));
        Ok(Self {
            layout: layout(&structures, key, eval_ranges(&symbols.eval, bias))
                .ok_or_else(|| refused(Misfit::Frames))?,
            version,
            structures,
            origin,
            key,
            code_dealloc: dealloc.ok_or_else(|| refused(Misfit::CodeType))?,
            contexts,
        })
    }

    /// A warning for the user about this interpreter, if there is reason for one.
    #[must_use]
    pub fn caveat(&self) -> Option<String> {
        (self.version.series() == (3, 14)).then(|| {
            let version = self.version;
            format!(
                "walking Python {version} is untested: its layout is as published, not as tried"
            )
        })
    }
}

/// The version of an interpreter, and where its structures should be. This checks nothing against them yet.
fn stated(
    symbols: &PythonSymbols,
    bias: LoadBias,
    file_name: &str,
    memory: &impl Memory,
) -> Result<(PythonVersion, Structures, Origin), PythonRefusal> {
    let runtime = bias.avma(symbols.runtime);
    let said = DebugOffsets::read(memory, runtime);
    let version = version(symbols, said.as_ref(), bias, file_name, memory)?;
    let (offsets, origin) = offsets(version, said.as_ref())?;
    let code_bytes: u64 = symbols.eval.iter().map(|part| part.bytes).sum();
    if code_bytes < MIN_EVAL_BYTES {
        return Err(PythonRefusal::NoEvaluation(version));
    }
    let structures = Structures {
        runtime,
        code_type: bias.avma(symbols.code_type),
        offsets,
    };
    Ok((version, structures, origin))
}

fn version(
    symbols: &PythonSymbols,
    said: Option<&DebugOffsets>,
    bias: LoadBias,
    file_name: &str,
    memory: &impl Memory,
) -> Result<PythonVersion, PythonRefusal> {
    let stated = symbols.version.and_then(|at| memory.u32(bias.avma(at)));
    stated
        .map(PythonVersion::of_hex)
        .or_else(|| said.map(|said| said.version))
        .or_else(|| PythonVersion::of_name(file_name))
        .ok_or_else(|| PythonRefusal::NoVersion(file_name.to_owned()))
}

/// Chooses the offsets. Those that the interpreter states itself take precedence over those of the table, which are
/// from other builds of the version.
fn offsets(
    version: PythonVersion,
    said: Option<&DebugOffsets>,
) -> Result<(Offsets, Origin), PythonRefusal> {
    let table = Offsets::of(version);
    let Some(said) = said.filter(|_| version.series() >= (3, 13)) else {
        let table = table.ok_or(PythonRefusal::UnknownVersion(version))?;
        return Ok((table, Origin::Table));
    };
    if version.series() > (3, 14) {
        return Err(PythonRefusal::UnknownVersion(version));
    }
    if said.free_threaded {
        return Err(PythonRefusal::FreeThreaded(version));
    }
    let own = said.offsets();
    let own = own.ok_or(PythonRefusal::DebugOffsets(version))?;
    let agrees = |table: &Offsets| {
        own == Offsets {
            tss_key: None,
            ..*table
        }
    };
    Ok(match table.filter(agrees) {
        Some(table) => (table, Origin::DebugOffsetsAndTable),
        None => (own, Origin::DebugOffsets),
    })
}

/// What the kernel side needs; `None` if a number is larger than the kernel side can take.
fn layout(
    structures: &Structures,
    key: KeyPlace,
    eval: [[u64; 2]; EVAL_RANGES],
) -> Option<PythonLayout> {
    let offsets = &structures.offsets;
    let small = |offset: u64| u32::try_from(offset).ok();
    let in_state = |offset| small(offset).filter(|at| *at as usize + 8 <= STATE_BYTES);
    Some(PythonLayout {
        enabled: 1,
        tss: key.value,
        tss_block: key.block,
        thread_id: in_state(offsets.thread_id)?,
        gil_holder: match offsets.gil {
            Gil::Runtime(at) => structures.runtime.checked_add(at)?.0,
            Gil::Interpreter { .. } => 0,
        },
        frame: in_state(offsets.frame)?,
        frame_in_cframe: small(offsets.frame_in_cframe.unwrap_or(u32::MAX.into()))?,
        frame_bytes: small(offsets.frame_bytes()?)?,
        previous: small(offsets.previous)?,
        code: small(offsets.executable)?,
        instruction: small(offsets.instruction)?,
        instruction_kind: offsets.instruction_kind as u32,
        first_instruction: small(offsets.first_instruction)?,
        entry: small(offsets.entry)?,
        entry_kind: offsets.entry_kind as u32,
        eval,
        context: match offsets.context {
            Some(offset) => in_state(offset.checked_add(8)?)? - 8,
            None => NO_CONTEXT,
        },
        reserved: 0,
        task_code: [0; 2],
    })
}

/// The ranges of the code that runs bytecode, AVMA: the longest parts, as many as there is room for.
fn eval_ranges(parts: &[EvalPart], bias: LoadBias) -> [[u64; 2]; EVAL_RANGES] {
    let mut parts = parts.to_vec();
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    let mut ranges = [[0; 2]; EVAL_RANGES];
    for (range, part) in ranges.iter_mut().zip(parts) {
        let start = bias.avma(part.start).0;
        *range = [start, start.saturating_add(part.bytes)];
    }
    ranges
}

/// Memory that has only these pieces: the address and the bytes of each.
#[cfg(test)]
fn memory_of<const N: usize>(pieces: [(u64, Vec<u8>); N]) -> impl Memory {
    struct Pieces<const N: usize>([(u64, Vec<u8>); N]);
    impl<const N: usize> Memory for Pieces<N> {
        fn read(&self, address: Avma, into: &mut [u8]) -> Option<()> {
            self.0.iter().find_map(|(start, bytes)| {
                let from = usize::try_from(address.0.checked_sub(*start)?).ok()?;
                into.copy_from_slice(bytes.get(from..from.checked_add(into.len())?)?);
                Some(())
            })
        }
    }
    Pieces(pieces)
}
