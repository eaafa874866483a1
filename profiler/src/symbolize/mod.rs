//! Names for code: from a place in an ELF file to functions and lines.
//!
//! blazesym reads symbol tables and DWARF: in copies of them (`image`), and in a process of its own
//! ([`helper`]), so that nothing that a file does to its reader reaches the recorder. `debug_file` finds
//! separate debug files, in the target's root and in residue's own. A place without a name gets an empty list;
//! the report then prints `module+0xoffset`.

mod debug_file;
pub mod helper;
mod image;
mod look_up;
mod room;

#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process::{FileKey, Root, RootId, TargetFile};
use debug_file::{Found, Search, Segment};
use helper::Helper;
use image::{Budget, Image, Share, Shared, Taken};
use look_up::{LookUp, NoAnswer, Places, Question};
use room::{Room, keep};

/// The most bytes that the names of one module take.
const MAX_NAMES_OF_ONE: u64 = 64 << 20;
/// The most bytes that the names of all modules of a recording take.
const MAX_NAMES: u64 = 256 << 20;

/// A function at an address, and the line in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Where a call returns to. The call lies before that, maybe on another line, maybe at the very end of its
    /// function, so residue looks the name up one byte earlier.
    Return(u64),
    /// The instruction itself.
    Exact(u64),
}

impl CodeAddress {
    /// A file offset inside the instruction that the address stands for.
    #[must_use]
    pub const fn lookup_offset(self) -> u64 {
        match self {
            Self::Return(offset) => offset.saturating_sub(1),
            Self::Exact(offset) => offset,
        }
    }
}

/// An ELF file that a target has mapped, and how to reach it.
#[derive(Clone, Copy, Debug)]
pub struct ModuleFile<'a> {
    /// The file's path as the target sees it; the names of separate debug files follow from it.
    pub path: &'a Path,
    /// The file.
    pub file: &'a TargetFile,
    /// The target's root directory. Debug files in it name functions only for targets with the same root.
    pub root: Option<&'a Root>,
    /// The GNU build id, if the file has one.
    pub build_id: Option<&'a [u8]>,
}

/// Why no address of a module has a name.
#[derive(Debug, thiserror::Error)]
pub enum SymbolizeError {
    /// Residue cannot read the file, or the file is not what it claims to be.
    #[error(
        "cannot read the symbols of {path}: {reason}; its frames are named by offset, check the file"
    )]
    Unreadable {
        /// The file as the target sees it.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another file has the name by now, or the file has changed.
    #[error(
        "{path} was written over since it was loaded: its frames are named by offset; restart the process"
    )]
    Changed {
        /// The file as the target sees it.
        path: PathBuf,
    },
    /// Reading the file takes more time or memory than there is, or ends the process that does it.
    #[error(
        "the debug information of {path} cannot be read: {reason}; frames are named by offset, check the file"
    )]
    Hostile {
        /// The file as the target sees it.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// The identity of a module, and the root whose debug files may name its functions.
type Key = (FileKey, Option<RootId>);

impl ModuleFile<'_> {
    fn key(&self) -> Key {
        (self.file.key(), self.root.map(Root::id))
    }

    fn error(&self, why: NoAnswer) -> SymbolizeError {
        let (path, reason) = (self.path.to_owned(), why.to_string());
        match why {
            NoAnswer::Unreadable(_) => SymbolizeError::Unreadable { path, reason },
            NoAnswer::Lost | NoAnswer::TooSlow | NoAnswer::Nobody(_) => {
                SymbolizeError::Hostile { path, reason }
            }
        }
    }
}

/// Symbolizes native code. It keeps what it has read in memory, parsed, so use one `Symbolizer` for everything.
/// It keeps no answers, so ask for each address once.
#[derive(Debug)]
pub struct Symbolizer {
    look_up: Box<dyn LookUp>,
    budget: Budget,
    names: Room,
    shortened: u64,
    host: Option<Root>,
    /// The sources of each module; `None` for a module that failed, which is not tried again.
    modules: HashMap<Key, Option<Sources>>,
}

/// Where the names of a module come from.
#[derive(Debug)]
struct Sources {
    /// A copy of the separate debug file, if there is one, and the module's segments.
    debug: Option<(Image, Vec<Segment>)>,
    /// A copy of the module's own symbols, made at first use.
    own: OnceCell<Image>,
    /// The room for the names of the module's functions.
    names: Room,
}

impl Symbolizer {
    /// A symbolizer that reads what targets may have made in a process of residue's own. Only the program
    /// residue may use this, because the helper is a subcommand of it.
    #[must_use]
    pub fn with_helper() -> Self {
        Self::new(Box::new(Helper::default()))
    }

    fn new(look_up: Box<dyn LookUp>) -> Self {
        Self {
            look_up,
            budget: Budget::default(),
            names: Room::new(MAX_NAMES),
            shortened: 0,
            host: Root::host().ok(),
            modules: HashMap::new(),
        }
    }

    /// How many files have debug information that found no room so far. Their functions have the names of the
    /// symbol tables alone.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.budget.left_out
    }

    /// At how many addresses there are functions whose names found no room so far.
    #[must_use]
    pub fn shortened(&self) -> u64 {
        self.shortened
    }

    /// Whether a module failed, so that none of its addresses has a name.
    #[must_use]
    pub fn has_given_up(&self, module: ModuleFile<'_>) -> bool {
        matches!(self.modules.get(&module.key()), Some(None))
    }

    /// Gives no names for a module from now on.
    pub fn give_up(&mut self, module: ModuleFile<'_>) {
        let key = module.key();
        if let Some(Some(sources)) = self.modules.insert(key, None) {
            self.budget.share(key.1).give_back(sources.taken());
        }
    }

    /// The functions at each address, innermost inlined function first; none where nothing is known.
    ///
    /// # Errors
    ///
    /// When residue cannot read the module at all. Only the first call fails: later calls find no names.
    pub fn symbolize(
        &mut self,
        module: ModuleFile<'_>,
        addresses: &[CodeAddress],
    ) -> Result<Vec<Vec<Symbol>>, SymbolizeError> {
        let found = self.look_up(module, addresses);
        if found.is_err() {
            self.give_up(module);
        }
        found
    }

    fn look_up(
        &mut self,
        module: ModuleFile<'_>,
        addresses: &[CodeAddress],
    ) -> Result<Vec<Vec<Symbol>>, SymbolizeError> {
        let host = self.host.as_ref();
        let mut share = self.budget.share(module.key().1);
        let sources = self.modules.entry(module.key());
        let sources = sources.or_insert_with(|| Some(Sources::of(module, host, &mut share)));
        let Some(sources) = sources else {
            return Ok(vec![Vec::new(); addresses.len()]);
        };
        let mut asks = Asks {
            look_up: &mut *self.look_up,
            rooms: [&mut self.names, &mut sources.names],
            shortened: &mut self.shortened,
        };
        let offsets = addresses.iter().map(|address| address.lookup_offset());
        let offsets: Vec<u64> = offsets.collect();
        let found = asks.debug_file(module, sources.debug.as_ref(), &offsets)?;
        if found.iter().all(|names| !names.is_empty()) {
            return Ok(found);
        }
        let own = match own(&sources.own, module, host, &mut share) {
            // The debug file has given some names.
            Err(_) if found.iter().any(|names| !names.is_empty()) => return Ok(found),
            own => own?,
        };
        asks.fill_in(found, module, own, &offsets)
    }
}

/// Asks questions, and keeps the answers that there is room for.
struct Asks<'a> {
    look_up: &'a mut dyn LookUp,
    rooms: [&'a mut Room; 2],
    shortened: &'a mut u64,
}

impl Asks<'_> {
    /// The functions at each offset of a module, as its separate debug file has them; none where that file has none.
    fn debug_file(
        &mut self,
        module: ModuleFile<'_>,
        debug: Option<&(Image, Vec<Segment>)>,
        offsets: &[u64],
    ) -> Result<Vec<Vec<Symbol>>, SymbolizeError> {
        let nothing = vec![Vec::new(); offsets.len()];
        let Some((image, segments)) = debug else {
            return Ok(nothing);
        };
        // Segments of a separate debug file keep their addresses but not their file offsets, so the module's own
        // headers translate.
        let svmas = offsets.iter().map(|at| debug_file::svma(segments, *at));
        match self.ask(&image.question(Places::Svmas(svmas.collect()))) {
            Err(NoAnswer::Unreadable(_)) => Ok(nothing),
            answer => answer.map_err(|error| module.error(error)),
        }
    }

    /// Adds the functions at each offset, as the module's own symbols have them, where none were found before.
    fn fill_in(
        &mut self,
        mut found: Vec<Vec<Symbol>>,
        module: ModuleFile<'_>,
        own: &Image,
        offsets: &[u64],
    ) -> Result<Vec<Vec<Symbol>>, SymbolizeError> {
        let missing = found.iter_mut().zip(offsets);
        let missing: Vec<_> = missing.filter(|(names, _)| names.is_empty()).collect();
        let offsets = missing.iter().map(|(_, offset)| **offset).collect();
        let answer = self.ask(&own.question(Places::Offsets(offsets)));
        let answer = answer.map_err(|error| module.error(error))?;
        for ((names, _), own) in missing.into_iter().zip(answer) {
            *names = own;
        }
        Ok(found)
    }

    fn ask(&mut self, question: &Question) -> Result<Vec<Vec<Symbol>>, NoAnswer> {
        let mut all = Vec::with_capacity(question.places.len());
        for part in question.parts() {
            let mut found = self.look_up.look_up(&part)?;
            for functions in &mut found.functions {
                found.shortened += u64::from(keep(&mut self.rooms, functions));
            }
            *self.shortened += found.shortened;
            all.extend(found.functions);
        }
        Ok(all)
    }
}

impl Sources {
    fn of(module: ModuleFile<'_>, host: Option<&Root>, share: &mut Share<'_>) -> Self {
        let search = Search::new(module, host);
        let debug = search.debug_file().and_then(|found| {
            let segments = debug_file::segments(module.file)?;
            let shared = shared(&search, Some(&found), share);
            let image = Image::of(&found.file, shared, share).ok()?;
            Some((image, segments))
        });
        Self {
            debug,
            own: OnceCell::new(),
            names: Room::new(MAX_NAMES_OF_ONE),
        }
    }

    /// How many bytes the copies of the module have taken.
    fn taken(&self) -> Taken {
        let debug = self.debug.as_ref().map(|(image, _)| image);
        let mut taken = Taken::default();
        for image in debug.into_iter().chain(self.own.get()) {
            taken += image.taken();
        }
        taken
    }
}

/// The copy of the module's own symbols.
fn own<'a>(
    own: &'a OnceCell<Image>,
    module: ModuleFile<'_>,
    host: Option<&Root>,
    share: &mut Share<'_>,
) -> Result<&'a Image, SymbolizeError> {
    if let Some(own) = own.get() {
        return Ok(own);
    }
    let shared = shared(&Search::new(module, host), None, share);
    let image = Image::of(module.file, shared, share);
    let image = image.map_err(|error| module.error(NoAnswer::Unreadable(error.to_string())))?;
    if !is_same(module) {
        share.give_back(image.taken());
        let path = module.path.to_owned();
        return Err(SymbolizeError::Changed { path });
    }
    Ok(own.get_or_init(|| image))
}

fn shared(search: &Search<'_>, debug: Option<&Found<'_>>, share: &mut Share<'_>) -> Option<Shared> {
    let (file, build_id) = search.shared(debug)?;
    let image = Image::of(&file, None, share).ok()?;
    Some(Shared { image, build_id })
}

/// Whether a module is still the file that was loaded. A file that somebody only touched still has its build id.
fn is_same(module: ModuleFile<'_>) -> bool {
    let has_its_build_id = |id| debug_file::has_build_id(module.file, id);
    module.file.is_as_opened() || module.build_id.is_some_and(has_its_build_id)
}
