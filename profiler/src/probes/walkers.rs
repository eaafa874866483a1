//! What in a process takes stacks by itself, and does not get them whole while return probes are in.
//!
//! A return probe replaces the return address on the stack by one of no object. Whoever walks through an
//! allocator call that is under way (a heap profiler inside `malloc`, a sampler's signal handler) stops
//! there. Residue's own walks do not: it knows what was replaced.

use super::ScopeObject;

/// By which symbols it is told, and what somebody reads who does not know it.
const SANITIZERS: [(&str, &str); 6] = [
    ("__asan_init", "AddressSanitizer"),
    ("__hwasan_init", "HWAddressSanitizer"),
    ("__lsan_init", "LeakSanitizer"),
    ("__msan_init", "MemorySanitizer"),
    ("__tsan_init", "ThreadSanitizer"),
    // All that is left of one in a program that is linked statically with it, and stripped.
    ("__sanitizer_malloc_hook", "a sanitizer"),
];

/// What Valgrind has in every program that it runs: a library that it preloads.
const VALGRIND: &str = "_vgnU_freeres";

/// What walks stacks: of glibc, libgcc and libunwind.
const UNWINDERS: [&str; 4] = [
    "backtrace",
    "_Unwind_Backtrace",
    "unw_backtrace",
    "_ULx86_64_step",
];

/// `opt.prof` of jemalloc, a `bool`, by the prefixes of its private names.
pub const JEMALLOC_PROF: [&str; 4] = [
    "opt_prof",
    "je_opt_prof",
    "_rjem_opt_prof",
    "_rjem_je_opt_prof",
];

/// Where a program states options of jemalloc, a `const char *`.
pub const JEMALLOC_CONF: [&str; 4] = [
    "malloc_conf",
    "je_malloc_conf",
    "_rjem_malloc_conf",
    "_rjem_je_malloc_conf",
];

/// Environment variables with options of jemalloc.
pub const JEMALLOC_VARIABLES: [&str; 3] = ["MALLOC_CONF", "JE_MALLOC_CONF", "_RJEM_MALLOC_CONF"];

/// Environment variables that have gperftools take stacks of allocations.
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

/// The symbol under its name here, if it tells something.
pub(super) fn known(name: &str) -> Option<&'static str> {
    // Most symbols are none of them.
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

/// The sanitizer that the process runs with: its allocator reads the return address of each call, and its
/// reports would show an address of nobody.
#[must_use]
pub fn sanitizer(objects: &[ScopeObject]) -> Option<&'static str> {
    SANITIZERS.into_iter().find_map(|(symbol, name)| {
        // A program that only calls it imports the symbol, and then a library has it.
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

/// What of a process's settings tells whether its allocator takes stacks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// jemalloc has `prof:true`.
    pub jemalloc_profiles: bool,
    /// gperftools was told to take stacks.
    pub gperftools_profiles: bool,
}

/// What takes stacks by itself: a sentence each, for a person.
#[must_use]
pub fn walkers(objects: &[ScopeObject], settings: Settings) -> Vec<String> {
    let takers = objects.iter().filter_map(|object| {
        let what = taker(object, settings)?;
        Some((object, what))
    });
    let mut notes: Vec<_> = takers
        .map(|(object, what)| sentence(object, &what))
        .collect();
    // A profiler that brings it has been named.
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
        // They never look at who calls.
        "glibc" | "musl" => None,
        _ => interposer(object),
    }
}

/// A library that stands in for `malloc` and walks stacks: heaptrack, bytehound, many a company's own.
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

/// Whether options of jemalloc, in the order in which it reads them, have it profile. Later ones win.
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
