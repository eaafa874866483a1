//! Where a CPython interpreter keeps its frames.
//!
//! The interpreter's structures differ from one minor version to the next; their offsets are data
//! here. Which version runs is read from the process, and everything else from the symbols that every
//! build exports, stripped or not.

use object::{Object as _, ObjectSymbol as _, ReadRef};
use residue_ebpf::abi::python::{EVAL_RANGES, EntryKind, InstructionKind, PythonLayout};

use crate::target::{Avma, LoadBias, Memory, Svma};

/// The function that runs bytecode; a compiler may have moved parts of it away, whose names begin so
/// as well.
const EVAL: &str = "_PyEval_EvalFrameDefault";
/// `specific_1stblock` in glibc's `struct pthread` (nptl/descr.h), from fsbase: one
/// `{ seq, data }` a key.
const TSS_BLOCK: u32 = 0x310;
/// Bytes of a key's slot, and where in it the value is.
const TSS_SLOT: (u32, u32) = (16, 8);
/// Keys in the first block (`PTHREAD_KEY_2NDLEVEL_SIZE`).
const TSS_KEYS: u32 = 32;
/// `tp_dealloc` in `PyTypeObject` (Include/cpython/object.h).
const TYPE_DEALLOC: u64 = 48;

/// Which minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PythonVersion {
    /// 3.
    pub major: u8,
    /// 8 to 13 are known.
    pub minor: u8,
}

impl std::fmt::Display for PythonVersion {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

/// Why a Python process is walked as native code only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PythonRefusal {
    /// No layout is known.
    #[error("Python {0} is not known to this residue (3.8 to 3.13 are): its frames are not named")]
    UnknownVersion(PythonVersion),
    /// Neither `Py_Version` nor a name tells.
    #[error("which Python this is cannot be told from {0}: its frames are not named")]
    NoVersion(String),
    /// It is not running yet, or its structures are not where they should be.
    #[error(
        "Python {0} is not initialized, or laid out in a way that is not known: its frames are not named"
    )]
    NotInitialized(PythonVersion),
}

/// What the symbols of an object say about the interpreter in it. Addresses in the file's own terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonSymbols {
    runtime: Svma,
    code_type: Svma,
    version: Option<Svma>,
    /// Begin and size, bytes.
    eval: Vec<(Svma, u64)>,
}

impl PythonSymbols {
    /// Those of an ELF file; `None` if it holds no interpreter.
    pub fn read<'data>(data: impl ReadRef<'data>) -> Option<Self> {
        let file = object::File::parse(data).ok()?;
        let exported = |wanted: &str| {
            let mut symbols = file.dynamic_symbols();
            let found = symbols.find(|it| it.is_definition() && it.name() == Ok(wanted));
            found.map(|symbol| Svma(symbol.address()))
        };
        let runtime = exported("_PyRuntime")?;
        let mut eval: Vec<_> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|it| it.is_definition() && it.size() > 0)
            .filter(|it| it.name().is_ok_and(is_eval))
            .map(|symbol| (Svma(symbol.address()), symbol.size()))
            .collect();
        eval.sort_unstable();
        eval.dedup();
        Some(Self {
            runtime,
            code_type: exported("PyCode_Type")?,
            version: exported("Py_Version"),
            eval,
        })
    }
}

fn is_eval(name: &str) -> bool {
    name.strip_prefix(EVAL)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// An interpreter in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Its version.
    pub version: PythonVersion,
    /// How its frames are walked.
    pub layout: PythonLayout,
    /// The type of code objects, AVMA.
    pub code_type: Avma,
    /// The function that frees code objects, AVMA.
    pub code_dealloc: Avma,
}

impl Interpreter {
    /// The interpreter whose symbols are given, in an object that was loaded at `bias` from a file
    /// called `file_name`.
    ///
    /// # Errors
    ///
    /// When its frames cannot be walked; the message says why.
    pub fn find(
        symbols: &PythonSymbols,
        bias: LoadBias,
        file_name: &str,
        memory: &impl Memory,
    ) -> Result<Self, PythonRefusal> {
        let version = symbols
            .version
            .and_then(|at| memory.u32(bias.avma(at)))
            .map(version_of_hex)
            .or_else(|| version_of_name(file_name))
            .ok_or_else(|| PythonRefusal::NoVersion(file_name.to_owned()))?;
        let offsets = Offsets::of(version).ok_or(PythonRefusal::UnknownVersion(version))?;
        let refused = || PythonRefusal::NotInitialized(version);
        let runtime = bias.avma(symbols.runtime);
        let code_type = bias.avma(symbols.code_type);
        let layout = offsets.layout(runtime, memory).ok_or_else(refused)?;
        let dealloc = code_type.checked_add(TYPE_DEALLOC).ok_or_else(refused)?;
        Ok(Self {
            version,
            layout: PythonLayout {
                eval: eval_ranges(&symbols.eval, bias),
                ..layout
            },
            code_type,
            code_dealloc: memory.pointer(dealloc).ok_or_else(refused)?,
        })
    }
}

fn eval_ranges(parts: &[(Svma, u64)], bias: LoadBias) -> [[u64; 2]; EVAL_RANGES] {
    let mut ranges = [[0; 2]; EVAL_RANGES];
    for (range, (start, size)) in ranges.iter_mut().zip(parts) {
        let start = bias.avma(*start).0;
        *range = [start, start.saturating_add(*size)];
    }
    ranges
}

/// `PY_VERSION_HEX`: 0x030b02f0 is 3.11.2 final.
fn version_of_hex(hex: u32) -> PythonVersion {
    PythonVersion {
        major: (hex >> 24) as u8,
        minor: (hex >> 16) as u8,
    }
}

/// `libpython3.8.so.1.0`, `python3.9`.
fn version_of_name(name: &str) -> Option<PythonVersion> {
    let (_, version) = name.split_once("python")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some(PythonVersion {
        major: numbers.next()?.parse().ok()?,
        minor: numbers.next()?.parse().ok()?,
    })
}

/// Where a version keeps what a walk needs, bytes. From the debug information of 3.8.18, 3.9.18,
/// 3.10.13, 3.11.7, 3.12.1 and 3.13.0.
struct Offsets {
    /// `_PyRuntime.gilstate.autoTSSkey`
    tss_key: u64,
    /// `PyThreadState.frame`; `.cframe` in 3.11 and 3.12; `.current_frame` from 3.13.
    frame: u32,
    /// `_PyCFrame.current_frame`
    frame_in_cframe: Option<u32>,
    /// `PyFrameObject.f_back`; `_PyInterpreterFrame.previous` from 3.11.
    previous: u32,
    /// `f_code`; `f_executable` from 3.13.
    code: u32,
    /// `f_lasti`; `prev_instr` from 3.11, `instr_ptr` from 3.13.
    instruction: u32,
    instruction_kind: InstructionKind,
    /// `PyCodeObject.co_code_adaptive`
    first_instruction: u32,
    /// `is_entry` in 3.11, `owner` from 3.12.
    entry: u32,
    entry_kind: EntryKind,
    frame_bytes: u32,
}

impl Offsets {
    const fn of(version: PythonVersion) -> Option<Self> {
        let frame_object = Self {
            tss_key: 584,
            frame: 24,
            frame_in_cframe: None,
            previous: 24,
            code: 32,
            instruction: 104,
            instruction_kind: InstructionKind::Bytes,
            first_instruction: 0,
            entry: 0,
            entry_kind: EntryKind::Every,
            frame_bytes: 112,
        };
        let interpreter_frame = Self {
            tss_key: 1544,
            frame: 56,
            frame_in_cframe: Some(0),
            previous: 8,
            code: 0,
            instruction: 56,
            instruction_kind: InstructionKind::Pointer,
            first_instruction: 192,
            entry: 70,
            entry_kind: EntryKind::Owner,
            frame_bytes: 72,
        };
        Some(match (version.major, version.minor) {
            (3, 8) => Self {
                tss_key: 1392,
                ..frame_object
            },
            (3, 9) => frame_object,
            (3, 10) => Self {
                instruction: 96,
                instruction_kind: InstructionKind::Units,
                ..frame_object
            },
            (3, 11) => Self {
                tss_key: 592,
                frame_in_cframe: Some(8),
                previous: 48,
                code: 32,
                first_instruction: 184,
                entry: 68,
                entry_kind: EntryKind::Flag,
                ..interpreter_frame
            },
            (3, 12) => interpreter_frame,
            (3, 13) => Self {
                tss_key: 2160,
                frame: 72,
                frame_in_cframe: None,
                first_instruction: 200,
                ..interpreter_frame
            },
            _ => return None,
        })
    }

    /// All but the ranges of native code.
    fn layout(&self, runtime: Avma, memory: &impl Memory) -> Option<PythonLayout> {
        // Py_tss_t { int _is_initialized; pthread_key_t _key; } (Include/pythread.h)
        let key_at = runtime.checked_add(self.tss_key)?;
        let initialized = memory.u32(key_at)?;
        let key = memory.u32(key_at.checked_add(4)?)?;
        if initialized != 1 || key >= TSS_KEYS {
            return None;
        }
        let (slot_bytes, value) = TSS_SLOT;
        Some(PythonLayout {
            enabled: 1,
            tss: TSS_BLOCK + key * slot_bytes + value,
            frame: self.frame,
            frame_in_cframe: self.frame_in_cframe.unwrap_or(u32::MAX),
            frame_bytes: self.frame_bytes,
            previous: self.previous,
            code: self.code,
            instruction: self.instruction,
            instruction_kind: self.instruction_kind as u32,
            first_instruction: self.first_instruction,
            entry: self.entry,
            entry_kind: self.entry_kind as u32,
            ..PythonLayout::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names_and_from_memory() {
        let version = |major, minor| PythonVersion { major, minor };
        assert_eq!(version_of_hex(0x030b_02f0), version(3, 11));
        assert_eq!(version_of_name("libpython3.8.so.1.0"), Some(version(3, 8)));
        assert_eq!(version_of_name("python3.10"), Some(version(3, 10)));
        assert_eq!(version_of_name("libpython3.so"), None);
        assert_eq!(version_of_name("uwsgi"), None);
    }

    #[test]
    fn parts_that_a_compiler_moved_away_belong_to_the_evaluation_function() {
        assert!(is_eval("_PyEval_EvalFrameDefault"));
        assert!(is_eval("_PyEval_EvalFrameDefault.cold"));
        assert!(!is_eval("_PyEval_EvalFrameDefaultish"));
        assert!(!is_eval("_PyEval_EvalFrame"));
    }
}
