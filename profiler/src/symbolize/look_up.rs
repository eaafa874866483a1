//! Looks names up in a copy of a file.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Reason, Sym, Symbolized, Symbolizer};
use serde::{Deserialize, Serialize};

use super::Symbol;
use super::room::{Room, keep};

/// The longest name that residue keeps, in bytes. Real C++ template names reach some thousands; a hostile
/// symbol table may hold one of the size of the file, for every frame.
pub(super) const MAX_NAME_BYTES: usize = 4096;
/// The most functions that residue reports for one address. Compilers inline a few dozen levels.
const MAX_INLINED: usize = 64;
/// How many places one question has: it fits into a pipe, so that asking never waits.
const AT_ONCE: usize = 1024;
/// How many bytes the names of one answer may take.
const MAX_NAMES: u64 = 16 << 20;

/// A question about a copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Question {
    /// A path that opens the copy.
    pub(super) copy: PathBuf,
    /// The places to look up.
    pub(super) places: Places,
}

impl Question {
    /// The same question in parts that are short enough.
    pub(super) fn parts(&self) -> Vec<Self> {
        type Make = fn(Vec<u64>) -> Places;
        let (places, make) = match &self.places {
            Places::Offsets(places) => (places, Places::Offsets as Make),
            Places::Svmas(places) => (places, Places::Svmas as Make),
        };
        let parts = places.chunks(AT_ONCE).map(|part| Self {
            copy: self.copy.clone(),
            places: make(part.to_vec()),
        });
        parts.collect()
    }
}

/// Places in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Places {
    /// Offsets in the file that the copy is of.
    Offsets(Vec<u64>),
    /// Addresses in the file's own terms.
    Svmas(Vec<u64>),
}

impl Places {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Offsets(places) | Self::Svmas(places) => places.len(),
        }
    }

    fn input(&self) -> Input<&[u64]> {
        match self {
            Self::Offsets(places) => Input::FileOffset(places),
            Self::Svmas(places) => Input::VirtOffset(places),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// There are no names in the file.
    #[error("{0}")]
    Unreadable(String),
    /// The symbolizer panicked over the file.
    #[error("it confuses the symbolizer")]
    Lost,
    /// The helper did not answer in time.
    #[error("it takes too long")]
    TooSlow,
    /// There is no helper.
    #[error("residue cannot start a process of its own that looks them up")]
    Nobody(#[source] std::io::Error),
}

/// The functions at some places.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Found {
    /// The functions at each place; none where nothing is known.
    pub(super) functions: Vec<Vec<Symbol>>,
    /// At how many of the places there are functions for which there was no room.
    pub(super) shortened: u64,
}

/// The functions that a question asked for, or why there are none.
pub(super) type Answer = Result<Found, NoAnswer>;

/// A way to look names up.
pub(super) trait LookUp: std::fmt::Debug {
    /// Answers for each place of the question.
    fn look_up(&mut self, question: &Question) -> Answer;
}

/// Looks names up in this process. A file that somebody made for the purpose can take all memory and time, and
/// end the process, so a recorder uses [`super::helper`] instead.
#[derive(Debug)]
pub(super) struct Here(Symbolizer);

impl Here {
    /// Makes a symbolizer that has opened nothing yet and searches for no files: the copies have all there is.
    pub(super) fn new() -> Self {
        let blazesym = Symbolizer::builder()
            .enable_code_info(true)
            .enable_inlined_fns(true)
            .enable_demangling(true)
            .set_debug_dirs(Some([] as [PathBuf; 0]))
            .build();
        Self(blazesym)
    }
}

impl LookUp for Here {
    fn look_up(&mut self, question: &Question) -> Answer {
        let found = catch_unwind(AssertUnwindSafe(|| look_up(&self.0, question)));
        match found {
            Ok(Ok(functions)) => Ok(within_room(functions)),
            Ok(Err(error)) => Err(NoAnswer::Unreadable(error.to_string())),
            Err(_) => {
                // The panic left the symbolizer in the middle of something.
                *self = Self::new();
                Err(NoAnswer::Lost)
            }
        }
    }
}

fn within_room(mut functions: Vec<Vec<Symbol>>) -> Found {
    let mut room = Room::new(MAX_NAMES);
    let shortened = functions
        .iter_mut()
        .map(|functions| keep(&mut [&mut room], functions));
    Found {
        shortened: shortened.filter(|is_short| *is_short).count() as u64,
        functions,
    }
}

/// Looks a question up. Where the debug information is unfit (damaged, or it refers to something that is
/// missing), the symbol table alone may still do.
fn look_up(blazesym: &Symbolizer, question: &Question) -> blazesym::Result<Vec<Vec<Symbol>>> {
    let Question { copy, places } = question;
    let mut elf = Elf::new(copy);
    let with_lines = blazesym.symbolize(&Source::Elf(elf.clone()), places.input());
    let with_lines = with_lines
        .unwrap_or_else(|_| vec![Symbolized::Unknown(Reason::IgnoredError); places.len()]);
    if !with_lines.iter().any(failed) {
        return Ok(with_lines.iter().map(functions).collect());
    }
    elf.debug_syms = false;
    let plain = blazesym.symbolize(&Source::Elf(elf), places.input())?;
    let better = with_lines.iter().zip(&plain);
    Ok(better
        .map(|(lines, plain)| functions(if failed(lines) { plain } else { lines }))
        .collect())
}

/// Whether there may be a name that blazesym could not read, as opposed to no name.
fn failed(symbolized: &Symbolized<'_>) -> bool {
    matches!(symbolized, Symbolized::Unknown(Reason::IgnoredError))
}

/// The functions, innermost first. blazesym lists inlined functions outermost first, after the function that
/// holds them.
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
