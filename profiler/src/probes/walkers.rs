//! Recognizes code in a process that takes stacks by itself, and does not get them whole while return probes are
//! in.
//!
//! A return probe replaces the return address on the stack by an address that belongs to no object. Code that
//! walks through an allocator call which has not returned yet (a heap profiler inside `malloc`, the signal
//! handler of a sampler) stops at that address. Residue's own walks go on, because the kernel knows the replaced
//! address.

use super::ScopeObject;

/// The symbol by which residue recognizes each sanitizer, and the sanitizer's name for messages.
const SANITIZERS: [(&str, &str); 6] = [
    ("__asan_init", "AddressSanitizer"),
    ("__hwasan_init", "HWAddressSanitizer"),
    ("__lsan_init", "LeakSanitizer"),
    ("__msan_init", "MemorySanitizer"),
    ("__tsan_init", "ThreadSanitizer"),
    // The only symbol left in a stripped program that is linked statically with a sanitizer.
    ("__sanitizer_malloc_hook", "a sanitizer"),
];

/// What Valgrind has in every program that it runs: a function of a library that it preloads.
const VALGRIND: &str = "_vgnU_freeres";

/// Functions of glibc, libgcc and libunwind that walk stacks.
const UNWINDERS: [&str; 4] = [
    "backtrace",
    "_Unwind_Backtrace",
    "unw_backtrace",
    "_ULx86_64_step",
];

/// The names of jemalloc's option `opt.prof`, a `bool`, one for each prefix of private names.
pub const JEMALLOC_PROF: [&str; 4] = [
    "opt_prof",
    "je_opt_prof",
    "_rjem_opt_prof",
    "_rjem_je_opt_prof",
];

/// The names of the variable, a `const char *`, in which a program states options of jemalloc.
pub const JEMALLOC_CONF: [&str; 4] = [
    "malloc_conf",
    "je_malloc_conf",
    "_rjem_malloc_conf",
    "_rjem_je_malloc_conf",
];

/// Environment variables with options of jemalloc.
pub const JEMALLOC_VARIABLES: [&str; 3] = ["MALLOC_CONF", "JE_MALLOC_CONF", "_RJEM_MALLOC_CONF"];

/// Environment variables that make gperftools take stacks of allocations.
pub const GPERFTOOLS_VARIABLES: [&str; 3] =
    ["HEAPPROFILE", "HEAPCHECK", "TCMALLOC_SAMPLE_PARAMETER"];

/// What takes stacks whatever the settings are: by which function that it alone has it is told, and what it is.
const TAKERS: [(&str, &str); 4] = [
    ("ProfilerStart", "a CPU profiler, in signal handlers"),
    // Attached by `heaptrack -p`, it redirects the calls of other objects and has no malloc of its own.
    ("heaptrack_inject", "heaptrack"),
    // It brings its own way to walk.
    ("memory_profiler_set_marker", "bytehound"),
    // As heaptrack does.
    ("PyInit__memray", "memray, if it was told --native"),
];

/// The symbol as this module names it, if it is one of those above.
pub(super) fn known(name: &str) -> Option<&'static str> {
    // Most symbols begin with another letter.
    if !matches!(
        name.as_bytes().first()?,
        b'_' | b'b' | b'h' | b'j' | b'm' | b'o' | b'u' | b'P'
    ) {
        return None;
    }
    let sanitizers = SANITIZERS.into_iter().map(|(name, _)| name);
    let jemalloc = JEMALLOC_PROF.into_iter().chain(JEMALLOC_CONF);
    let takers = TAKERS.into_iter().map(|(name, _)| name);
    let mut all = sanitizers
        .chain([VALGRIND])
        .chain(UNWINDERS)
        .chain(jemalloc)
        .chain(takers);
    all.find(|known| *known == name)
}

/// The sanitizer that the process runs with, if any. A sanitizer reads the return address of each call of its
/// allocator, so with return probes its reports would show an address that belongs to no object.
#[must_use]
pub fn sanitizer(objects: &[ScopeObject]) -> Option<&'static str> {
    SANITIZERS.into_iter().find_map(|(symbol, name)| {
        // A program that only calls the sanitizer imports the symbol, and then a library defines the symbol.
        let has = |object: &ScopeObject| match symbol {
            "__sanitizer_malloc_hook" => object.symbols.mentions(symbol) && has_own_malloc(object),
            _ => object.symbols.place_of(symbol).is_some(),
        };
        objects.iter().any(has).then_some(name)
    })
}

/// Whether Valgrind runs the process: it executes no code of the objects, only translations.
#[must_use]
pub fn is_under_valgrind(objects: &[ScopeObject]) -> bool {
    let has = |object: &ScopeObject| object.symbols.place_of(VALGRIND).is_some();
    objects.iter().any(has)
}

/// The settings of a process that make its allocator take stacks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Whether jemalloc has `prof:true`.
    pub jemalloc_profiles: bool,
    /// Whether an environment variable makes gperftools take stacks.
    pub gperftools_profiles: bool,
}

/// Describes code in the process that takes stacks by itself, in a sentence for each object.
#[must_use]
pub fn walkers(objects: &[ScopeObject], settings: Settings) -> Vec<String> {
    let takers = objects.iter().filter_map(|object| {
        let what = taker(object, settings)?;
        Some((object, what))
    });
    let mut notes: Vec<_> = takers
        .map(|(object, what)| sentence(object, &what))
        .collect();
    // libunwind needs no sentence of its own if the profiler that uses it has one.
    if notes.is_empty() {
        let libunwind = objects.iter().find(|object| is_libunwind(object));
        notes.extend(libunwind.map(|object| sentence(object, "libunwind, which samplers walk by")));
    }
    notes
}

fn sentence(object: &ScopeObject, what: &str) -> String {
    let path = object.path.display();
    format!(
        "{path} may take stacks of its own ({what}): while residue is attached they end at the allocator's \
         calls, because a return probe replaces the return address; stop the one or the other to trust \
         them. What residue records is whole"
    )
}

fn taker(object: &ScopeObject, settings: Settings) -> Option<String> {
    let is_there = |symbol: &&(&str, &str)| object.symbols.place_of(symbol.0).is_some();
    let known = TAKERS.iter().find(is_there);
    let known = known.map(|(_, what)| (*what).to_owned());
    // One library of gperftools has both profilers.
    match (known, allocator(object, settings)) {
        (Some(known), Some(as_well)) => Some(format!("{known}, and {as_well}")),
        (known, allocator) => known.or(allocator),
    }
}

/// What an allocator does, or what stands in for one.
fn allocator(object: &ScopeObject, settings: Settings) -> Option<String> {
    match object.provider() {
        "jemalloc" => settings
            .jemalloc_profiles
            .then(|| "jemalloc with prof:true".to_owned()),
        "tcmalloc" => settings
            .gperftools_profiles
            .then(|| "the heap profiler of gperftools".to_owned()),
        // These allocators never look at their callers.
        "glibc" | "musl" => None,
        _ => interposer(object),
    }
}

/// Describes an object that replaces `malloc` and walks stacks, as heaptrack, bytehound and many in-house tools
/// do.
fn interposer(object: &ScopeObject) -> Option<String> {
    let unwinder = UNWINDERS
        .into_iter()
        .find(|name| object.symbols.mentions(name))?;
    has_own_malloc(object).then(|| format!("it stands in for malloc and calls {unwinder}"))
}

fn has_own_malloc(object: &ScopeObject) -> bool {
    let mut functions = object.symbols.functions.iter();
    functions.any(|function| function.name == "malloc" && function.exported)
}

fn is_libunwind(object: &ScopeObject) -> bool {
    let name = object.path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.starts_with("libunwind"))
}

/// Whether options of jemalloc, in the order in which jemalloc reads them, turn profiling on. The last option
/// counts.
#[must_use]
pub fn jemalloc_profiles<'a>(options: impl IntoIterator<Item = &'a str>) -> bool {
    let options = options.into_iter().flat_map(|text| text.split(','));
    let prof = options.filter_map(|option| option.trim().strip_prefix("prof:"));
    prof.last() == Some("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_option_wins() {
        assert!(jemalloc_profiles(["prof:true,lg_prof_sample:0"]));
        assert!(!jemalloc_profiles(["prof:true", "lg_chunk:1,prof:false"]));
        assert!(!jemalloc_profiles(["prof_leak:true", "", "xprof:true"]));
    }

    #[test]
    fn symbols_that_tell_something_are_known_by_their_names_here() {
        assert_eq!(known("__asan_init"), Some("__asan_init"));
        assert_eq!(known("_rjem_je_opt_prof"), Some("_rjem_je_opt_prof"));
        assert_eq!(known("ProfilerStart"), Some("ProfilerStart"));
        assert_eq!(known("heaptrack_inject"), Some("heaptrack_inject"));
        assert_eq!(known("backtrace_symbols"), None);
        assert_eq!(known(""), None);
    }
}
