//! Which functions of a process to probe: what symbol resolution would pick, each once.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use residue_ebpf::abi::call_shape::{AttachRank, CallShape};

use super::allocators::{Found, PROVIDER, partner, unmangled};
use super::site::{ProbeSite, SitePolicy};
use super::symbols::{AllocatorSymbol, Forward, ObjectSymbols};
use super::walkers::{is_under_valgrind, sanitizer};
use crate::target::{FileKey, FileOffset, Load};

/// An object of a process, as planning sees it.
#[derive(Clone, Debug)]
pub struct ScopeObject {
    /// As the target names it.
    pub path: PathBuf,
    /// Which file it is.
    pub file: FileKey,
    /// When it was loaded.
    pub load: Load,
    /// Whether it is dynamically linked.
    pub is_dynamic: bool,
    /// What it defines.
    pub symbols: ObjectSymbols,
}

/// A function to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFunction {
    /// Its symbol.
    pub symbol: String,
    /// The allocator that it belongs to.
    pub allocator: &'static str,
    /// How it is called.
    pub shape: CallShape,
    /// Index of its object among those planned for.
    pub object: usize,
    /// The object's file.
    pub file: FileKey,
    /// Where the function begins in that file. With the file, this names a function for good.
    pub file_offset: FileOffset,
    /// Where to probe it.
    pub site: ProbeSite,
    /// What allocates the blocks that it frees or resizes is not probed.
    pub unpaired: bool,
}

/// A function that calls go to, and that cannot be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its symbol.
    pub symbol: String,
    /// Index of its object.
    pub object: usize,
    /// Why not.
    pub reason: &'static str,
}

/// What to probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which to attach.
    pub functions: Vec<PlannedFunction>,
    /// What should be probed and cannot be.
    pub skipped: Vec<Skipped>,
}

/// Why there is nothing to probe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A static program without symbols.
    #[error(
        "{executable} is statically linked and has no symbols, so its allocator cannot be found: \
         run a build that is not stripped, or one linked dynamically; or follow requests alone, \
         by --rss-only"
    )]
    Stripped {
        /// The program.
        executable: PathBuf,
    },
    /// No object defines an allocator that residue knows.
    #[error(
        "no allocator that residue knows was found in {executable} or its libraries: run a build \
         with symbols; glibc, musl, jemalloc, mimalloc and tcmalloc are known; or follow requests alone, \
         by --rss-only"
    )]
    NoAllocator {
        /// The program.
        executable: PathBuf,
    },
    /// It runs with a sanitizer.
    #[error(
        "{executable} runs with {sanitizer}, which notes the caller of every allocation; a return probe would \
         have it note an address of nobody: run a build without; or, where it is AddressSanitizer, have it \
         report leaks by itself (ASAN_OPTIONS=detect_leaks=1); or follow requests alone, by --rss-only"
    )]
    Sanitizer {
        /// The program.
        executable: PathBuf,
        /// Its name.
        sanitizer: &'static str,
    },
    /// It runs under Valgrind.
    #[error(
        "{executable} runs under Valgrind, which executes a translation of all code, so that no probe in that \
         code is ever hit: run the program without Valgrind, or have Valgrind tell what it knows (memcheck's \
         --leak-check=full, massif); or follow requests alone, by --rss-only"
    )]
    Valgrind {
        /// The program.
        executable: PathBuf,
    },
    /// There is nothing to look into.
    #[error("the process has no code that residue can read: check that it still runs")]
    NoObjects,
}

/// Plans for the objects of a process, given in search order.
///
/// # Errors
/// When no function that allocates, or none that frees, can be probed, or none must be.
pub fn plan(objects: &[ScopeObject], policy: SitePolicy) -> Result<Plan, PlanError> {
    let executable = objects.first().ok_or(PlanError::NoObjects)?;
    if let Some(sanitizer) = sanitizer(objects) {
        let executable = executable.path.clone();
        return Err(PlanError::Sanitizer {
            executable,
            sanitizer,
        });
    }
    if is_under_valgrind(objects) {
        let executable = executable.path.clone();
        return Err(PlanError::Valgrind { executable });
    }
    let mut plan = Plan::default();
    let chosen = choose(objects);
    for candidate in without_aliases(chosen.clone()) {
        match candidate.planned(policy) {
            Ok(function) => plan.functions.push(function),
            Err(skipped) => plan.skipped.push(skipped),
        }
    }
    plan.functions
        .sort_by_key(|f| (f.shape.attach_rank(), f.object, f.file_offset));
    plan.mark_unpaired(&chosen);
    plan.name_changed(objects);
    let has = |rank| {
        plan.functions
            .iter()
            .any(|f| f.shape.attach_rank() == rank && is_heap(f.shape))
    };
    if has(AttachRank::Releases) && has(AttachRank::Takes) {
        return Ok(plan);
    }
    let executable_path = executable.path.clone();
    Err(match executable {
        ScopeObject {
            is_dynamic: false,
            symbols: ObjectSymbols {
                has_symbols: false, ..
            },
            ..
        } => PlanError::Stripped {
            executable: executable_path,
        },
        _ => PlanError::NoAllocator {
            executable: executable_path,
        },
    })
}

impl Plan {
    fn name_changed(&mut self, objects: &[ScopeObject]) {
        let of_object = |(object, it): (usize, &ScopeObject)| {
            let changed = it.symbols.changed.clone();
            changed.into_iter().map(move |symbol| Skipped {
                symbol,
                object,
                reason: "the compiler has changed this copy of it; what is allocated or freed by it is not \
                         counted",
            })
        };
        self.skipped
            .extend(objects.iter().enumerate().flat_map(of_object));
    }

    /// Finds what frees blocks of which nobody sees the allocation, and names what is missing.
    fn mark_unpaired(&mut self, chosen: &[Candidate<'_>]) {
        for function in &mut self.functions {
            let Some(partner) = partner(&function.symbol) else {
                continue;
            };
            // A program may take one from one object, and the other from another.
            let exported = |it: &Candidate<'_>| it.symbol.exported;
            let is_of_all = chosen.iter().any(|it| {
                (it.index, &it.symbol.name) == (function.object, &function.symbol) && exported(it)
            });
            let is_partner = |it: &&Candidate<'_>| {
                unmangled(&it.symbol.name) == partner
                    && (it.index == function.object || is_of_all && exported(it))
            };
            let skipped = |it: &Skipped| it.symbol == partner && it.object == function.object;
            let is_chosen = chosen.iter().any(|it| is_partner(&it));
            let is_skipped = self.skipped.iter().any(skipped);
            function.unpaired = is_skipped || !is_chosen;
            if !is_chosen && !is_skipped {
                self.skipped.push(Skipped {
                    symbol: partner,
                    object: function.object,
                    reason: "no function of that name was found, though what frees its blocks was; its \
                             allocations are not counted",
                });
            }
        }
    }
}

impl PlannedFunction {
    /// What names the function for good. After a library was loaded, plan again, and attach what
    /// has a key that is new.
    #[must_use]
    pub fn key(&self) -> (FileKey, FileOffset) {
        (self.file, self.file_offset)
    }
}

fn is_heap(shape: CallShape) -> bool {
    shape != CallShape::NoteCaller
}

/// A definition that calls go to.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    index: usize,
    object: &'a ScopeObject,
    symbol: &'a AllocatorSymbol,
}

impl Candidate<'_> {
    fn allocator(&self) -> &'static str {
        match self.symbol.known.spec.name {
            PROVIDER => self.object.provider(),
            name => name,
        }
    }

    fn planned(&self, policy: SitePolicy) -> Result<PlannedFunction, Skipped> {
        let Candidate {
            index,
            object,
            symbol,
        } = *self;
        let skipped = |reason| Skipped {
            symbol: symbol.name.clone(),
            object: index,
            reason,
        };
        if symbol.known.throws {
            return Err(skipped(
                "it may throw a C++ exception, which a return probe would break; \
                 its allocations are not counted",
            ));
        }
        if symbol.indirect {
            return Err(skipped("it is chosen at run time (IFUNC)"));
        }
        let file_offset = symbol
            .file_offset
            .ok_or_else(|| skipped("it is in no text segment"))?;
        let (place, shape) = ((symbol.address, file_offset), symbol.known.shape);
        let site = ProbeSite::choose(&symbol.name, place, &symbol.code, shape, policy);
        Ok(PlannedFunction {
            symbol: symbol.name.clone(),
            allocator: self.allocator(),
            shape,
            object: index,
            file: object.file,
            file_offset,
            site: site.map_err(skipped)?,
            unpaired: false,
        })
    }
}

impl ScopeObject {
    /// The allocator that this object brings under the C names: whose prefixed `malloc` is the same
    /// function, or what other symbols tell.
    pub(super) fn provider(&self) -> &'static str {
        let functions = &self.symbols.functions;
        let malloc = functions.iter().find(|function| function.name == "malloc");
        let same = malloc.and_then(|malloc| {
            let prefixed = functions
                .iter()
                .filter(|f| f.known.spec.found == Found::Anywhere);
            prefixed
                .into_iter()
                .find(|function| function.address == malloc.address)
        });
        same.map(|function| function.known.spec.name)
            .or(self.symbols.marked)
            .unwrap_or(PROVIDER)
    }

    fn brings_own_allocator(&self) -> bool {
        let has_malloc = self
            .symbols
            .functions
            .iter()
            .any(|function| function.name == "malloc");
        has_malloc && !matches!(self.provider(), "glibc" | "musl" | PROVIDER)
    }
}

/// All definitions that calls go to, the same function possibly under several names.
fn choose(objects: &[ScopeObject]) -> Vec<Candidate<'_>> {
    let all = || {
        objects.iter().enumerate().flat_map(|(index, object)| {
            let functions = object.symbols.functions.iter();
            functions.map(move |symbol| Candidate {
                index,
                object,
                symbol,
            })
        })
    };
    let mut resolved: HashMap<&str, usize> = HashMap::new();
    for Candidate {
        index,
        object,
        symbol,
    } in all()
    {
        if symbol.exported && object.load != Load::Later {
            resolved.entry(&symbol.name).or_insert(index);
        }
    }
    let is_resolved = |candidate: &Candidate<'_>| match candidate.object.load {
        // Who maps memory is noted for unwinding, which only static programs need.
        _ if candidate.symbol.localized => {
            is_heap(candidate.symbol.known.shape) || !candidate.object.is_dynamic
        }
        Load::Executable if !candidate.symbol.exported => candidate.symbol.global,
        Load::Later => candidate.symbol.exported,
        _ => resolved.get(&*candidate.symbol.name) == Some(&candidate.index),
    };
    let mut chosen: Vec<_> = all()
        .filter(|candidate| match candidate.symbol.known.spec.found {
            Found::Resolved => is_resolved(candidate),
            Found::ResolvedInAllocator => {
                is_resolved(candidate) && candidate.object.brings_own_allocator()
            }
            Found::ResolvedInStatic => is_resolved(candidate) && !candidate.object.is_dynamic,
            Found::Anywhere => true,
            Found::NothingBelow => false,
        })
        .collect();
    let last_resort: Vec<_> = all()
        .filter(|candidate| candidate.symbol.known.spec.found == Found::NothingBelow)
        .filter(|candidate| nothing_below(candidate, &chosen))
        .collect();
    chosen.extend(last_resort);
    chosen
}

/// Whether a language's own allocation functions are the lowest that can be seen: because nothing
/// else is, or because they lead to an allocator that residue does not know.
fn nothing_below(candidate: &Candidate<'_>, chosen: &[Candidate<'_>]) -> bool {
    let takes = |other: &&Candidate<'_>| {
        let shape = other.symbol.known.shape;
        is_heap(shape) && shape.attach_rank() == AttachRank::Takes
    };
    let own = |other: &Candidate<'_>| {
        other.index == candidate.index && other.symbol.known.spec.found == Found::Anywhere
    };
    let mut visible = chosen.iter().filter(takes).peekable();
    visible.peek().is_none() || (candidate.object.symbols.has_rust_allocator && !visible.any(own))
}

/// Leaves one name for each function, and leaves out functions that only jump to another one: the
/// probe there sees the same call, with the same arguments and caller.
fn without_aliases(candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    let mut seen = HashSet::new();
    let is_new = |c: &Candidate<'_>| seen.insert((c.object.file, c.symbol.address));
    let names: HashSet<_> = candidates
        .iter()
        .map(|c| (c.symbol.name.clone(), c.symbol.known.shape))
        .collect();
    let unique: Vec<_> = candidates.into_iter().filter(is_new).collect();
    let places: HashSet<_> = unique
        .iter()
        .map(|c| (c.object.file, c.symbol.address, c.symbol.known.shape))
        .collect();
    let forwards = |candidate: &Candidate<'_>| {
        let Candidate { object, symbol, .. } = candidate;
        match &symbol.forwards {
            Some(Forward::Address(target)) => {
                *target != symbol.address
                    && places.contains(&(object.file, *target, symbol.known.shape))
            }
            Some(Forward::Symbol(name)) => {
                *name != symbol.name && names.contains(&(name.clone(), symbol.known.shape))
            }
            None => false,
        }
    };
    unique
        .into_iter()
        .filter(|candidate| !forwards(candidate))
        .collect()
}

#[cfg(test)]
mod tests;
