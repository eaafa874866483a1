//! Finds the profilers that take stacks in a process, such as a heap profiler of the process's own
//! allocator.

use crate::{
    probes::{
        ScopeObject,
        walkers::{self, Settings},
    },
    process::{LoadedObject, Memory as _, Process, ProcessMemory, Svma},
};

/// The most bytes of jemalloc's options that residue reads: they are one line.
const MAX_OPTIONS_BYTES: usize = 1024;

/// What takes stacks by itself in a process with these objects, one sentence each.
pub fn notes(process: &Process, loaded: &[LoadedObject], scope: &[ScopeObject]) -> Vec<String> {
    let variables = |names: &[&str]| -> Vec<String> {
        let set = names.iter().filter_map(|name| process.variable(name));
        set.collect()
    };
    let settings = Settings {
        jemalloc_profiles: jemalloc_profiles(
            (process, loaded, scope),
            &variables(&walkers::JEMALLOC_VARIABLES),
        ),
        gperftools_profiles: !variables(&walkers::GPERFTOOLS_VARIABLES).is_empty(),
    };
    walkers::walkers(scope, settings)
}

/// Whether jemalloc profiles: by what it has made of its options, if its symbols are there, else by
/// the options.
fn jemalloc_profiles(
    (process, loaded, scope): (&Process, &[LoadedObject], &[ScopeObject]),
    variables: &[String],
) -> bool {
    let Some(memory) = ProcessMemory::of(process) else {
        return false;
    };
    let find = |marks: &[&str]| {
        let mut objects = loaded.iter().zip(scope);
        objects.find_map(|(loaded, scope)| {
            let place: Option<Svma> = marks.iter().find_map(|mark| scope.symbols.place_of(mark));
            place.map(|place| loaded.load_bias.avma(place))
        })
    };
    if let Some([decided]) = find(&walkers::JEMALLOC_PROF).and_then(|at| memory.array(at)) {
        return decided != 0;
    }
    let stated = find(&walkers::JEMALLOC_CONF).and_then(|at| {
        let text = memory.pointer(at).filter(|text| text.0 != 0)?;
        memory.text(text, MAX_OPTIONS_BYTES)
    });
    let link = process.link("etc/malloc.conf");
    let options = stated.iter().chain(&link).chain(variables);
    walkers::jemalloc_profiles(options.map(String::as_str))
}
