//! Chooses the functions of a process to probe: those that symbol resolution would pick, each once.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::slice;

use residue_ebpf::abi::call_shape::{AttachRank, CallShape};

use super::allocators::{Found, PROVIDER, partner, unmangled};
use super::site::{ProbeSite, SitePolicy};
use super::symbols::{AllocatorSymbol, Forward, ObjectSymbols};
use super::walkers::{is_under_valgrind, sanitizer};
use crate::process::{FileKey, FileOffset, Load};

/// An object of a process, as planning sees it.
#[derive(Clone, Debug)]
pub struct ScopeObject {
    /// The path by which the target names the object.
    pub path: PathBuf,
    /// The file of the object.
    pub file: FileKey,
    /// When the process loaded the object.
    pub load: Load,
    /// Whether the object is linked dynamically.
    pub is_dynamic: bool,
    /// The symbols of the object that matter for planning.
    pub symbols: ObjectSymbols,
}

/// A function to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFunction {
    /// The symbol of the function.
    pub symbol: String,
    /// The allocator that the function belongs to.
    pub allocator: &'static str,
    /// How callers call the function.
    pub shape: CallShape,
    /// The index of the function's object among the objects of the process.
    pub object: usize,
    /// The file of the object.
    pub file: FileKey,
    /// Where the function begins in that file. The file and this offset together identify a function, even
    /// after the process loads more libraries.
    pub file_offset: FileOffset,
    /// Where to probe the function.
    pub site: ProbeSite,
    /// Whether the blocks that this function frees or resizes come from a function without a probe.
    pub unpaired: bool,
}

/// A function that the process calls, and that residue cannot probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The symbol of the function.
    pub symbol: String,
    /// The index of the function's object.
    pub object: usize,
    /// Why residue cannot probe the function.
    pub reason: &'static str,
}

/// The functions of a process to probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The functions, in the order in which to attach the probes.
    pub functions: Vec<PlannedFunction>,
    /// The functions that residue should probe and cannot.
    pub skipped: Vec<Skipped>,
}

/// Why there is nothing to probe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The program is linked statically and has no symbols.
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
    /// The program runs with a sanitizer.
    #[error(
        "{executable} runs with {sanitizer}, which notes the caller of every allocation; a return probe would \
         have it note an address of nobody: run a build without; or, where it is AddressSanitizer, have it \
         report leaks by itself (ASAN_OPTIONS=detect_leaks=1); or follow requests alone, by --rss-only"
    )]
    Sanitizer {
        /// The program.
        executable: PathBuf,
        /// The name of the sanitizer.
        sanitizer: &'static str,
    },
    /// The program runs under Valgrind.
    #[error(
        "{executable} runs under Valgrind, which executes a translation of all code, so that no probe in that \
         code is ever hit: run the program without Valgrind, or have Valgrind tell what it knows (memcheck's \
         --leak-check=full, massif); or follow requests alone, by --rss-only"
    )]
    Valgrind {
        /// The program.
        executable: PathBuf,
    },
    /// The process has no code that residue can read.
    #[error("the process has no code that residue can read: check that it still runs")]
    NoObjects,
}

/// Plans the probes for a process. `objects` are in the order in which the dynamic linker searches them.
///
/// # Errors
/// When residue can probe no function that allocates, or none that frees, or when a sanitizer forbids probes.
pub fn plan(objects: &[ScopeObject], policy: SitePolicy) -> Result<Plan, PlanError> {
    let executable = objects.first().ok_or(PlanError::NoObjects)?;
    if let Some(sanitizer) = sanitizer(objects) {
        return Err(PlanError::Sanitizer {
            executable: executable.path.clone(),
            sanitizer,
        });
    }
    if is_under_valgrind(objects) {
        let executable = executable.path.clone();
        return Err(PlanError::Valgrind { executable });
    }
    let plan = plan_under_way(objects, policy);
    if plan.has(AttachRank::Releases) && plan.has(AttachRank::Takes) {
        return Ok(plan);
    }
    Err(no_allocator(executable))
}

fn no_allocator(program: &ScopeObject) -> PlanError {
    let executable = program.path.clone();
    if program.is_dynamic || program.symbols.has_symbols {
        PlanError::NoAllocator { executable }
    } else {
        PlanError::Stripped { executable }
    }
}

/// As [`plan`], for a process that is recorded already: plans for what there is. A library with a sanitizer ends no
/// recording; its functions are left alone.
#[must_use]
pub fn plan_under_way(objects: &[ScopeObject], policy: SitePolicy) -> Plan {
    let mut plan = Plan::default();
    let chosen = choose(objects);
    let sanitized: Vec<bool> = objects
        .iter()
        .map(|object| sanitizer(slice::from_ref(object)).is_some())
        .collect();
    for candidate in without_aliases(chosen.clone()) {
        let planned = match sanitized[candidate.index] {
            true => Err(candidate.skipped(
                "it is a sanitizer's, which notes the caller of every allocation; a return probe would have it \
                 note an address of nobody",
            )),
            false => candidate.planned(policy),
        };
        match planned {
            Ok(function) => plan.functions.push(function),
            Err(skipped) => plan.skipped.push(skipped),
        }
    }
    plan.functions
        .sort_by_key(|f| (f.shape.attach_rank(), f.object, f.file_offset));
    plan.mark_unpaired(&chosen);
    plan.name_changed(objects);
    plan
}

impl Plan {
    /// Whether the plan has a function of the heap with this rank.
    fn has(&self, rank: AttachRank) -> bool {
        let mut shapes = self.functions.iter().map(|planned| planned.shape);
        shapes.any(|shape| shape.attach_rank() == rank && is_heap(shape))
    }

    /// Notes the copies of functions that the compiler has changed as skipped.
    fn name_changed(&mut self, objects: &[ScopeObject]) {
        let of_object = |(object, scope): (usize, &ScopeObject)| {
            let changed = scope.symbols.changed.clone();
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

    /// Marks functions that free blocks while no probe sees the allocation of those blocks, and notes the missing
    /// allocation functions as skipped.
    fn mark_unpaired(&mut self, chosen: &[Candidate<'_>]) {
        for function in &mut self.functions {
            let Some(partner) = partner(&function.symbol) else {
                continue;
            };
            // A program may find the one function in one object, and its partner in another.
            let is_exported = chosen.iter().any(|candidate| {
                candidate.symbol.exported
                    && candidate.index == function.object
                    && candidate.symbol.name == function.symbol
            });
            let is_chosen = chosen.iter().any(|candidate| {
                unmangled(&candidate.symbol.name) == partner
                    && (candidate.index == function.object
                        || is_exported && candidate.symbol.exported)
            });
            let mut skipped = self.skipped.iter();
            let is_skipped = skipped
                .any(|skipped| skipped.symbol == partner && skipped.object == function.object);
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
    /// Identifies the function, even after the process loads more libraries. Whoever plans again then attaches
    /// the functions with a new key.
    #[must_use]
    pub fn key(&self) -> (FileKey, FileOffset) {
        (self.file, self.file_offset)
    }
}

fn is_heap(shape: CallShape) -> bool {
    shape != CallShape::NoteCaller
}

/// A definition that calls may go to.
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

    fn skipped(&self, reason: &'static str) -> Skipped {
        Skipped {
            symbol: self.symbol.name.clone(),
            object: self.index,
            reason,
        }
    }

    fn planned(&self, policy: SitePolicy) -> Result<PlannedFunction, Skipped> {
        let (file_offset, site) = self.site(policy).map_err(|reason| self.skipped(reason))?;
        Ok(PlannedFunction {
            symbol: self.symbol.name.clone(),
            allocator: self.allocator(),
            shape: self.symbol.known.shape,
            object: self.index,
            file: self.object.file,
            file_offset,
            site,
            unpaired: false,
        })
    }

    /// Where the function begins in the file, and where to probe it; or why residue cannot probe it.
    fn site(&self, policy: SitePolicy) -> Result<(FileOffset, ProbeSite), &'static str> {
        let symbol = self.symbol;
        if symbol.known.throws {
            return Err(
                "it may throw a C++ exception, which a return probe would break; \
    its allocations are not counted",
            );
        }
        if symbol.indirect {
            return Err("it is chosen at run time (IFUNC)");
        }
        let start = symbol.file_offset.ok_or("it is in no text segment")?;
        let (place, shape) = ((symbol.address, start), symbol.known.shape);
        let site = ProbeSite::choose(&symbol.name, place, &symbol.code, shape, policy)?;
        Ok((start, site))
    }

    /// Whether calls go to this definition. `resolved` has the index of the object that symbol resolution picks
    /// for each name.
    fn is_resolved(&self, resolved: &HashMap<&str, usize>) -> bool {
        let (object, symbol) = (self.object, self.symbol);
        match object.load {
            // Probes on functions that map memory are for unwinding, which only static programs need.
            _ if symbol.localized => is_heap(symbol.known.shape) || !object.is_dynamic,
            Load::Executable if !symbol.exported => symbol.global,
            Load::Later => symbol.exported,
            _ => resolved.get(&*symbol.name) == Some(&self.index),
        }
    }
}

impl ScopeObject {
    /// The allocator that this object brings under the names of C: an allocator whose prefixed `malloc` is the
    /// same function as `malloc`, or else the one that the marking symbols name.
    pub(super) fn provider(&self) -> &'static str {
        let functions = &self.symbols.functions;
        let malloc = functions.iter().find(|function| function.name == "malloc");
        let same = malloc.and_then(|malloc| {
            let prefixed = functions
                .iter()
                .filter(|function| function.known.spec.found == Found::Anywhere);
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

/// Every definition of an allocator function in these objects.
fn definitions(objects: &[ScopeObject]) -> impl Iterator<Item = Candidate<'_>> {
    objects.iter().enumerate().flat_map(|(index, object)| {
        let functions = object.symbols.functions.iter();
        functions.map(move |symbol| Candidate {
            index,
            object,
            symbol,
        })
    })
}

/// All definitions that calls go to. One function may appear under several names.
fn choose(objects: &[ScopeObject]) -> Vec<Candidate<'_>> {
    let mut resolved: HashMap<&str, usize> = HashMap::new();
    for definition in definitions(objects) {
        if definition.symbol.exported && definition.object.load != Load::Later {
            let name = &definition.symbol.name;
            resolved.entry(name).or_insert(definition.index);
        }
    }
    let is_resolved = |candidate: &Candidate<'_>| candidate.is_resolved(&resolved);
    let mut chosen: Vec<_> = definitions(objects)
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
    let last_resort: Vec<_> = definitions(objects)
        .filter(|candidate| candidate.symbol.known.spec.found == Found::NothingBelow)
        .filter(|candidate| nothing_below(candidate, &chosen))
        .collect();
    chosen.extend(last_resort);
    chosen
}

/// Whether the allocation functions of a language are the lowest that residue can see: because it finds no
/// others, or because these lead to an allocator that residue does not know.
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

/// Keeps one name of each function, and drops functions that only jump to another one: the probe on that other
/// function sees the same call, with the same arguments and caller.
fn without_aliases(candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    let mut seen = HashSet::new();
    let is_new = |found: &Candidate<'_>| seen.insert((found.object.file, found.symbol.address));
    let names: HashSet<_> = candidates
        .iter()
        .map(|candidate| (candidate.symbol.name.clone(), candidate.symbol.known.shape))
        .collect();
    let unique: Vec<_> = candidates.into_iter().filter(is_new).collect();
    let places: HashSet<_> = unique
        .iter()
        .map(|Candidate { object, symbol, .. }| (object.file, symbol.address, symbol.known.shape))
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
