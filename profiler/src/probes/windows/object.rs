//! What sources of windows need to know of one object.

use std::path::{Path, PathBuf};

use object::read::ReadRef;

use super::{WindowSource, tls};
use crate::{
    probes::{
        DamagedSymbols, FunctionSymbol, StaticProbe, SymbolName, demangle, functions, static_probes,
    },
    target::{FileKey, elf::ElfFacts},
};

/// Names that are kept for a message, when a function is not found.
const MAX_SIMILAR: usize = 64;
/// How many letters may differ in a name that was mistyped.
const MAX_TYPOS: usize = 2;
/// What throws a C++ exception or unwinds from a Rust panic needs the first; what catches one, the
/// others.
const EXCEPTIONS: [&str; 3] = [
    "_Unwind_RaiseException",
    "__gxx_personality_v0",
    "rust_eh_personality",
];

/// An object of a process, as planning for windows sees it.
#[derive(Clone, Debug)]
pub struct SourceObject {
    /// As the target names it.
    pub path: PathBuf,
    /// Which file it is.
    pub file: FileKey,
    /// Whether the Go linker made it.
    pub is_go: bool,
    /// Whether exceptions may be thrown in it, or pass it.
    pub throws: bool,
    /// Whether rustls is linked into it.
    pub has_rustls: bool,
    /// Those of its functions that a source may mean: with the name asked for, their parts, and those of
    /// TLS.
    pub functions: Vec<FunctionSymbol>,
    /// Names of functions that are like those asked for, as the source has them.
    pub similar: Vec<String>,
    /// Its static probes, if a source asks for any.
    pub probes: Vec<StaticProbe>,
}

impl SourceObject {
    /// Picks from an ELF file what the sources ask for.
    ///
    /// # Errors
    /// When the section headers or a table contradict themselves.
    pub fn read<'data>(
        (path, file): (&Path, FileKey),
        data: impl ReadRef<'data>,
        facts: &ElfFacts,
        sources: &[WindowSource],
    ) -> Result<Self, DamagedSymbols> {
        let mut object = Self {
            path: path.to_owned(),
            file,
            is_go: facts.is_go,
            throws: false,
            has_rustls: false,
            functions: Vec::new(),
            similar: Vec::new(),
            probes: Vec::new(),
        };
        let asked: Vec<_> = sources.iter().filter_map(function_name).collect();
        object.functions = functions(data, &facts.text, |symbol| object.wants(symbol, &asked))?;
        if sources.iter().any(|it| matches!(it, WindowSource::Usdt(_))) {
            object.probes = static_probes(data, &facts.text)?;
        }
        Ok(object)
    }

    fn wants(&mut self, symbol: SymbolName<'_>, asked: &[&str]) -> bool {
        let SymbolName {
            name,
            is_function,
            is_defined,
        } = symbol;
        self.throws |= may_throw(name, is_defined);
        // `rustls` as Rust mangles the name of the crate.
        self.has_rustls |= is_function && name.contains("6rustls");
        let is_meant = |asked: &&str| is_named(without_part(name), asked);
        if !is_function || tls::shape(name).is_some() || asked.iter().any(is_meant) {
            return is_function;
        }
        if self.similar.len() < MAX_SIMILAR && asked.iter().any(|it| is_similar(name, it)) {
            self.similar.push(demangle::readable(name));
        }
        false
    }

    /// Its file's name, for a message.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

fn function_name(source: &WindowSource) -> Option<&str> {
    match source {
        WindowSource::Function(name) => Some(name),
        WindowSource::Http | WindowSource::Usdt(_) => None,
    }
}

/// Who defines the function that throws need not use it: glibc loads libgcc to cancel threads.
fn may_throw(symbol: &str, is_defined: bool) -> bool {
    let [raise, catch @ ..] = EXCEPTIONS;
    (symbol == raise && !is_defined) || catch.iter().any(|it| symbol.ends_with(it))
}

/// Whether a symbol is what was asked for, or a variant of it.
pub(super) fn is_named(symbol: &str, asked: &str) -> bool {
    symbol == asked || whole(symbol) == asked || demangle::is_called(whole(symbol), asked)
}

/// The symbol of the function that this one is a variant of, with other arguments: what GCC and Clang
/// append to its name. A program may call both, or variants alone.
pub(super) fn whole(symbol: &str) -> &str {
    const VARIANTS: [&str; 4] = [".isra", ".constprop", ".lto_priv", ".llvm"];
    let mut symbol = symbol;
    while let Some((before, number)) = symbol.rsplit_once('.')
        && number.bytes().all(|it| it.is_ascii_digit())
        && let Some(function) = VARIANTS.iter().find_map(|it| before.strip_suffix(it))
    {
        symbol = function;
    }
    symbol
}

/// The symbol of the function that this one is the rarely run part of, as GCC and Clang name it.
pub(super) fn without_part(symbol: &str) -> &str {
    symbol
        .split_once(".cold")
        .map_or(symbol, |(function, _)| function)
}

/// Whether somebody who asked for one name may have meant this symbol: it has that name in it, or nearly
/// is that name.
pub(super) fn is_similar(symbol: &str, asked: &str) -> bool {
    let path = demangle::last_identifier(asked);
    if contains_word(symbol, path) {
        return true;
    }
    let is_near = symbol.len().abs_diff(path.len()) <= MAX_TYPOS && path.len() > 2 * MAX_TYPOS;
    is_near && distance(symbol.as_bytes(), path.as_bytes()) <= MAX_TYPOS
}

/// Whether a name is in another one, and not in the middle of one of its words.
fn contains_word(symbol: &str, word: &str) -> bool {
    let (symbol, word) = (symbol.to_ascii_lowercase(), word.to_ascii_lowercase());
    let is_letter = |it: Option<char>| it.is_some_and(char::is_alphabetic);
    let mut found = symbol.match_indices(&word);
    !word.is_empty()
        && found.any(|(at, _)| {
            let (before, after) = (&symbol[..at], &symbol[at + word.len()..]);
            // Mangling puts letters behind a name.
            let is_cut = is_letter(after.chars().next()) && !symbol.starts_with("_z");
            !is_letter(before.chars().next_back()) && !is_cut
        })
}

/// How many letters to change, add or leave out (Levenshtein).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}
