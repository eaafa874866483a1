//! Picks from one object what sources of windows need to know.

use std::path::{Path, PathBuf};

use object::read::ReadRef;

use super::{WindowSource, tls};
use crate::{
    probes::{
        DamagedSymbols, FunctionSymbol, StaticProbe, SymbolName, demangle, functions, static_probes,
    },
    process::{FileKey, elf::ElfFacts},
};

/// The most similar names to keep, for the message when residue does not find a function.
const MAX_SIMILAR: usize = 64;
/// How many letters may differ in a mistyped name.
const MAX_TYPOS: usize = 2;
/// Code that throws a C++ exception or unwinds from a Rust panic needs the first of these symbols; code that
/// catches one needs one of the others.
const EXCEPTIONS: [&str; 3] = [
    "_Unwind_RaiseException",
    "__gxx_personality_v0",
    "rust_eh_personality",
];

/// An object of a process, as the planning of windows sees it.
#[derive(Clone, Debug)]
pub struct SourceObject {
    /// The path by which the target names the object.
    pub path: PathBuf,
    /// The file of the object.
    pub file: FileKey,
    /// Whether the Go linker made the object.
    pub is_go: bool,
    /// Whether code of the object may throw exceptions, or let them pass.
    pub throws: bool,
    /// Whether rustls is linked into the object.
    pub has_rustls: bool,
    /// The functions that a source may mean: those with the wanted name, their parts, and those of TLS.
    pub functions: Vec<FunctionSymbol>,
    /// Names of functions that are similar to the wanted ones, as the program's source has them.
    pub similar: Vec<String>,
    /// The static probes of the object, if a source asks for any.
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
        let is_usdt = |source: &WindowSource| matches!(source, WindowSource::Usdt(_));
        if sources.iter().any(is_usdt) {
            object.probes = static_probes(data, &facts.text)?;
        }
        Ok(object)
    }

    fn wants(&mut self, symbol: SymbolName<'_>, asked: &[&str]) -> bool {
        let (name, is_function) = (symbol.name, symbol.is_function);
        self.throws |= may_throw(name, symbol.is_defined);
        // Rust mangles the name of the crate `rustls` so.
        self.has_rustls |= is_function && name.contains("6rustls");
        let is_meant = |asked: &&str| is_named(without_part(name), asked);
        if !is_function || tls::shape(name).is_some() || asked.iter().any(is_meant) {
            return is_function;
        }
        if self.similar.len() < MAX_SIMILAR && asked.iter().any(|asked| is_similar(name, asked)) {
            self.similar.push(demangle::readable(name));
        }
        false
    }

    /// The name of the object's file, for a message.
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

/// Whether a symbol shows that its object may throw. An object that defines the throwing function need not use it:
/// glibc loads libgcc, which defines it, only to cancel threads.
fn may_throw(symbol: &str, is_defined: bool) -> bool {
    let [raise, catch @ ..] = EXCEPTIONS;
    (symbol == raise && !is_defined) || catch.iter().any(|catcher| symbol.ends_with(catcher))
}

/// Whether a symbol is the one that the user asked for, or a variant of that one.
pub(super) fn is_named(symbol: &str, asked: &str) -> bool {
    symbol == asked || whole(symbol) == asked || demangle::is_called(whole(symbol), asked)
}

/// The symbol of the function that this one is a variant of, without what GCC and Clang append to the name of a
/// variant with other arguments. A program may call both, or only variants.
pub(super) fn whole(symbol: &str) -> &str {
    const VARIANTS: [&str; 4] = [".isra", ".constprop", ".lto_priv", ".llvm"];
    let mut symbol = symbol;
    while let Some((before, number)) = symbol.rsplit_once('.')
        && number.bytes().all(|digit| digit.is_ascii_digit())
        && let Some(function) = VARIANTS
            .iter()
            .find_map(|variant| before.strip_suffix(variant))
    {
        symbol = function;
    }
    symbol
}

/// The symbol of the function that this one is the rarely executed part of, as GCC and Clang name such parts.
pub(super) fn without_part(symbol: &str) -> &str {
    symbol
        .split_once(".cold")
        .map_or(symbol, |(function, _)| function)
}

/// Whether a user who asked for one name may have meant this symbol, because the symbol contains the name or is
/// nearly the same.
pub(super) fn is_similar(symbol: &str, asked: &str) -> bool {
    let path = demangle::last_identifier(asked);
    if contains_word(symbol, path) {
        return true;
    }
    let is_near = symbol.len().abs_diff(path.len()) <= MAX_TYPOS && path.len() > 2 * MAX_TYPOS;
    is_near && distance(symbol.as_bytes(), path.as_bytes()) <= MAX_TYPOS
}

/// Whether a symbol contains a word, and not as the middle of a longer word.
fn contains_word(symbol: &str, word: &str) -> bool {
    let (symbol, word) = (symbol.to_ascii_lowercase(), word.to_ascii_lowercase());
    let is_letter = |letter: Option<char>| letter.is_some_and(char::is_alphabetic);
    let mut found = symbol.match_indices(&word);
    !word.is_empty()
        && found.any(|(at, _)| {
            let (before, after) = (&symbol[..at], &symbol[at + word.len()..]);
            // In a mangled symbol, letters that do not belong to the name may follow it.
            let is_cut = is_letter(after.chars().next()) && !symbol.starts_with("_z");
            !is_letter(before.chars().next_back()) && !is_cut
        })
}

/// How many letters to change, add or leave out to make `b` of `a` (Levenshtein).
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
