//! Names for code: from a place in an ELF file to functions and lines.
//!
//! blazesym does the reading of symbol tables and DWARF. Two things are added here: separate debug
//! files are also found by build id alone, in the target's root as well as in ours, and nothing
//! that a damaged file does (an error, a panic) reaches the recorder. A place without a name gets
//! an empty list; the report then prints `module+0xoffset`.

mod debug_file;
mod python;

#[cfg(test)]
mod tests;

pub use python::{CodeObject, CodeOffsets};

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Reason, Sym, Symbolized};

use crate::symbolize::debug_file::DebugFile;

/// The longest name that is kept, in bytes. Real C++ template names reach some thousands; a hostile
/// symbol table may hold one of the size of the file, for every frame.
const MAX_NAME_BYTES: usize = 4096;

/// The most functions that are reported for one address. Compilers inline a few dozen levels.
const MAX_INLINED: usize = 64;

/// A function at an address, and the line in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Symbol {
    /// Demangled name.
    pub name: String,
    /// Source file, as the compiler saw it.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
}

/// A place in an ELF file, as a file offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeAddress {
    /// Where a call returns to. The call lies before it, maybe on another line, maybe at the very
    /// end of its function, so the name is looked up one byte earlier.
    Return(u64),
    /// The instruction itself.
    Exact(u64),
}

impl CodeAddress {
    /// A file offset inside the instruction that is meant.
    #[must_use]
    pub const fn lookup_offset(self) -> u64 {
        match self {
            Self::Return(offset) => offset.saturating_sub(1),
            Self::Exact(offset) => offset,
        }
    }
}

/// How to get at an ELF file that a target has mapped.
#[derive(Clone, Copy, Debug)]
pub struct ModuleFile<'a> {
    /// Its path as the target sees it; separate debug files are named after it.
    pub path: &'a Path,
    /// Where we can open it, such as `/proc/PID/root/usr/lib/libc.so.6` or `/proc/PID/map_files/…`.
    pub open: &'a Path,
    /// The target's root directory as we see it, such as `/proc/PID/root`.
    pub root: Option<&'a Path>,
    /// The GNU build id, if it has one.
    pub build_id: Option<&'a [u8]>,
}

/// Why no address of a module has a name.
#[derive(Debug, thiserror::Error)]
pub enum SymbolizeError {
    /// The file cannot be read, or is not what it claims to be.
    #[error("cannot read the symbols of {path}: its frames are named by offset; check the file")]
    Unreadable {
        /// The file as the target sees it.
        path: PathBuf,
        /// What was found.
        source: blazesym::Error,
    },
    /// Reading the file made the symbolizer panic.
    #[error("{path} confuses the symbolizer: its frames are named by offset; check the file")]
    Hostile {
        /// The file as the target sees it.
        path: PathBuf,
    },
}

/// Symbolizes native code. Opened files stay open and parsed, so ask one `Symbolizer` for
/// everything; ask for each address once, answers are not kept.
#[derive(Debug, Default)]
pub struct Symbolizer {
    /// One for each root, because each looks for debug files in its own directories.
    by_root: HashMap<Option<PathBuf>, blazesym::symbolize::Symbolizer>,
    /// By the path opened: the separate debug file, if there is one.
    debug_files: HashMap<PathBuf, Option<DebugFile>>,
    /// Files that failed once, and are not tried again.
    unreadable: HashSet<PathBuf>,
}

impl Symbolizer {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The functions at each address, innermost inlined function first; none where nothing is
    /// known.
    ///
    /// # Errors
    ///
    /// When the module cannot be read at all. It is told once: later calls find no names.
    pub fn symbolize(
        &mut self,
        module: ModuleFile<'_>,
        addresses: &[CodeAddress],
    ) -> Result<Vec<Vec<Symbol>>, SymbolizeError> {
        if self.unreadable.contains(module.open) {
            return Ok(vec![Vec::new(); addresses.len()]);
        }
        let path = || module.path.to_owned();
        let found = catch_unwind(AssertUnwindSafe(|| self.look_up(module, addresses)))
            .map_err(|_| {
                // Whatever it was doing is half done.
                self.by_root.remove(&module.root.map(Path::to_owned));
                SymbolizeError::Hostile { path: path() }
            })
            .and_then(|found| {
                found.map_err(|source| SymbolizeError::Unreadable {
                    path: path(),
                    source,
                })
            });
        if found.is_err() {
            self.unreadable.insert(module.open.to_owned());
        }
        found
    }

    fn look_up(
        &mut self,
        module: ModuleFile<'_>,
        addresses: &[CodeAddress],
    ) -> blazesym::Result<Vec<Vec<Symbol>>> {
        let offsets: Vec<u64> = addresses
            .iter()
            .map(|address| address.lookup_offset())
            .collect();
        let debug_file = self
            .debug_files
            .entry(module.open.to_owned())
            .or_insert_with(|| DebugFile::find(module))
            .as_ref();
        let symbolizer = self
            .by_root
            .entry(module.root.map(Path::to_owned))
            .or_insert_with(|| symbolizer_for(module.root));
        if let Some(found) = debug_file.and_then(|file| in_debug_file(symbolizer, file, &offsets)) {
            return Ok(found);
        }
        in_module(symbolizer, module.open, &offsets)
    }
}

fn symbolizer_for(root: Option<&Path>) -> blazesym::symbolize::Symbolizer {
    blazesym::symbolize::Symbolizer::builder()
        .enable_code_info(true)
        .enable_inlined_fns(true)
        .enable_demangling(true)
        .set_debug_dirs(Some(debug_file::directories(root)))
        .build()
}

/// In the module itself, or what its debug link names. Where the debug information is unfit (a
/// debug file of another build, DWARF that is damaged) the symbol table alone may still do.
fn in_module(
    symbolizer: &blazesym::symbolize::Symbolizer,
    open: &Path,
    offsets: &[u64],
) -> blazesym::Result<Vec<Vec<Symbol>>> {
    let mut elf = Elf::new(open);
    let with_lines = symbolizer
        .symbolize(&Source::Elf(elf.clone()), Input::FileOffset(offsets))
        .unwrap_or_else(|_| vec![Symbolized::Unknown(Reason::IgnoredError); offsets.len()]);
    if !with_lines.iter().any(failed) {
        return Ok(with_lines.iter().map(functions).collect());
    }
    elf.debug_syms = false;
    let plain = symbolizer.symbolize(&Source::Elf(elf), Input::FileOffset(offsets))?;
    let better = with_lines.iter().zip(&plain);
    Ok(better
        .map(|(lines, plain)| functions(if failed(lines) { plain } else { lines }))
        .collect())
}

/// Whether there may be a name that could not be read, as opposed to none.
fn failed(symbolized: &Symbolized<'_>) -> bool {
    matches!(symbolized, Symbolized::Unknown(Reason::IgnoredError))
}

/// In a separate debug file. Its segments keep their addresses but not their file offsets, so the
/// module's own headers translate.
fn in_debug_file(
    symbolizer: &blazesym::symbolize::Symbolizer,
    file: &DebugFile,
    offsets: &[u64],
) -> Option<Vec<Vec<Symbol>>> {
    let svmas: Vec<u64> = offsets.iter().map(|offset| file.svma(*offset)).collect();
    let source = Source::Elf(Elf::new(&file.path));
    let found = symbolizer
        .symbolize(&source, Input::VirtOffset(&svmas))
        .ok()?;
    Some(found.iter().map(functions).collect())
}

/// blazesym lists inlined functions outermost first, after the function that holds them.
fn functions(symbolized: &Symbolized<'_>) -> Vec<Symbol> {
    let Symbolized::Sym(Sym {
        name,
        code_info,
        inlined,
        ..
    }) = symbolized
    else {
        return Vec::new();
    };
    let inner = inlined
        .iter()
        .rev()
        .map(|inlined| symbol(&inlined.name, inlined.code_info.as_ref()));
    inner
        .take(MAX_INLINED)
        .chain([symbol(name, code_info.as_deref())])
        .collect()
}

fn symbol(name: &str, code: Option<&CodeInfo<'_>>) -> Symbol {
    Symbol {
        name: bounded(name),
        file: code.map(|code| bounded(&code.to_path().to_string_lossy())),
        line: code.and_then(|code| code.line),
    }
}

fn bounded(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME_BYTES)].to_owned()
}
