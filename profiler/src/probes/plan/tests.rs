use super::super::allocators::find;
use super::super::symbols::{Forward, FunctionCode};
use super::*;
use crate::process::Svma;

/// `push rbp; ret`
const CODE: &[u8] = &[0x55, 0xc3];

fn function(name: &str, address: u64) -> AllocatorSymbol {
    AllocatorSymbol {
        name: name.to_owned(),
        known: find(name).expect("residue knows it"),
        exported: true,
        global: true,
        localized: false,
        indirect: false,
        address: Svma(address),
        file_offset: Some(FileOffset(address)),
        code: FunctionCode {
            bytes: CODE.to_vec(),
            complete: true,
        },
        forwards: None,
    }
}

fn object(path: &str, load: Load, functions: &[(&str, u64)]) -> ScopeObject {
    let inode = path.bytes().map(u64::from).sum();
    let functions = functions
        .iter()
        .map(|(name, address)| function(name, *address))
        .collect();
    ScopeObject {
        path: path.into(),
        file: FileKey { device: 1, inode },
        load,
        is_dynamic: true,
        symbols: ObjectSymbols {
            functions,
            has_symbols: true,
            ..ObjectSymbols::default()
        },
    }
}

fn libc() -> ScopeObject {
    let functions = [
        ("malloc", 0x10),
        ("calloc", 0x20),
        ("free", 0x30),
        ("mmap", 0x40),
    ];
    object("libc.so.6", Load::Startup, &functions)
}

/// `object:symbol` of each planned function, in order.
fn planned(objects: &[ScopeObject]) -> Vec<String> {
    let plan = plan(objects, SitePolicy::Cheapest).expect("there is an allocator");
    let name = |f: &PlannedFunction| format!("{}:{}", objects[f.object].path.display(), f.symbol);
    plan.functions.iter().map(name).collect()
}

#[test]
fn frees_are_attached_before_allocations() {
    let objects = [object("app", Load::Executable, &[]), libc()];
    let expected = [
        "libc.so.6:free",
        "libc.so.6:malloc",
        "libc.so.6:calloc",
        "libc.so.6:mmap",
    ];
    assert_eq!(planned(&objects), expected);
}

/// Programs call glibc's `syscall` to wait for locks, and elsewhere an unwind table covers the function.
#[test]
fn callers_of_syscall_are_noted_in_static_programs_only() {
    let functions = [("malloc", 0x10), ("free", 0x20), ("syscall", 0x30)];
    let mut program = object("app", Load::Executable, &functions);
    program.is_dynamic = false;
    assert!(planned(&[program.clone()]).contains(&"app:syscall".to_owned()));
    program.is_dynamic = true;
    assert!(!planned(&[program]).contains(&"app:syscall".to_owned()));
}

#[test]
fn the_first_definition_in_search_order_is_the_one_that_is_called() {
    let preloaded = object(
        "libjemalloc.so",
        Load::Startup,
        &[("malloc", 1), ("free", 2)],
    );
    let objects = [object("app", Load::Executable, &[]), preloaded, libc()];
    let expected = [
        "libjemalloc.so:free",
        "libjemalloc.so:malloc",
        "libc.so.6:calloc",
        "libc.so.6:mmap",
    ];
    assert_eq!(planned(&objects), expected);
}

#[test]
fn an_allocator_that_came_by_dlopen_is_probed_as_well() {
    let plugin = object("plugin.so", Load::Later, &[("malloc", 1), ("je_free", 2)]);
    let objects = [object("app", Load::Executable, &[]), libc(), plugin];
    let names = planned(&objects);
    assert!(names.contains(&"plugin.so:malloc".to_owned()));
    assert!(names.contains(&"plugin.so:je_free".to_owned()));
    assert!(names.contains(&"libc.so.6:malloc".to_owned()));
}

#[test]
fn a_malloc_that_the_executable_keeps_to_itself_does_not_replace_libcs() {
    let mut app = object("app", Load::Executable, &[("malloc", 1), ("free", 2)]);
    app.symbols
        .functions
        .iter_mut()
        .for_each(|function| function.exported = false);
    let names = planned(&[app, libc()]);
    assert!(names.contains(&"app:malloc".to_owned()));
    assert!(names.contains(&"libc.so.6:malloc".to_owned()));
}

#[test]
fn names_of_one_function_are_probed_once() {
    let functions = [("malloc", 1), ("mi_malloc", 1), ("free", 2), ("mi_free", 2)];
    let objects = [object("libmimalloc.so", Load::Executable, &functions)];
    assert_eq!(
        planned(&objects),
        ["libmimalloc.so:free", "libmimalloc.so:malloc"]
    );
    let plan = plan(&objects, SitePolicy::Cheapest).expect("there is an allocator");
    assert!(
        plan.functions
            .iter()
            .all(|function| function.allocator == "mimalloc")
    );
}

#[test]
fn a_function_that_only_jumps_to_another_one_is_left_out() {
    let mut app = object(
        "app",
        Load::Executable,
        &[("malloc", 0x10), ("valloc", 0x40), ("free", 2)],
    );
    let valloc = app
        .symbols
        .functions
        .iter_mut()
        .find(|f| f.name == "valloc")
        .expect("given");
    valloc.forwards = Some(Forward::Address(Svma(0x10)));
    assert_eq!(planned(&[app]), ["app:free", "app:malloc"]);
}

#[test]
fn a_jump_through_the_linkage_table_counts_where_it_ends() {
    let mut libc = libc();
    let mut memalign = function("memalign", 0x50);
    memalign.forwards = Some(Forward::Symbol("aligned_alloc".to_owned()));
    libc.symbols.functions.push(memalign);
    let app = object("app", Load::Executable, &[]);
    let names = |libc: &ScopeObject| planned(&[app.clone(), libc.clone()]);
    assert!(
        names(&libc).contains(&"libc.so.6:memalign".to_owned()),
        "its target is not probed"
    );
    libc.symbols.functions.push(function("aligned_alloc", 0x60));
    assert!(!names(&libc).contains(&"libc.so.6:memalign".to_owned()));
}

#[test]
fn operators_count_only_where_they_are_the_allocators_own() {
    let libstdcxx = object(
        "libstdc++.so.6",
        Load::Startup,
        &[("_Znwm", 1), ("_ZdlPv", 2)],
    );
    let objects = [object("app", Load::Executable, &[]), libstdcxx, libc()];
    assert!(!planned(&objects).iter().any(|name| name.contains("_Z")));

    let functions = [("malloc", 1), ("free", 2), ("_ZnwmRKSt9nothrow_t", 3)];
    let mut jemalloc = object("libjemalloc.so", Load::Startup, &functions);
    jemalloc.symbols.marked = Some("jemalloc");
    let objects = [object("app", Load::Executable, &[]), jemalloc, libc()];
    assert!(planned(&objects).contains(&"libjemalloc.so:_ZnwmRKSt9nothrow_t".to_owned()));
}

/// A return probe on a function that an exception leaves would terminate the program.
#[test]
fn what_may_throw_is_named_and_never_probed() {
    let functions = [("malloc", 1), ("free", 2), ("_Znwm", 3)];
    let mut jemalloc = object("libjemalloc.so", Load::Startup, &functions);
    jemalloc.symbols.marked = Some("jemalloc");
    let objects = [object("app", Load::Executable, &[]), jemalloc, libc()];
    let plan = plan(&objects, SitePolicy::Cheapest).expect("there is an allocator");
    assert!(!plan.functions.iter().any(|f| f.symbol == "_Znwm"));
    let skipped = plan
        .skipped
        .iter()
        .find(|skipped| skipped.symbol == "_Znwm");
    assert!(skipped.is_some_and(|skipped| skipped.reason.contains("exception")));
}

#[test]
fn rusts_own_functions_are_the_last_resort() {
    let rust = [("__rust_alloc", 1), ("__rust_dealloc", 2)];
    let mut app = object("app", Load::Executable, &rust);
    assert_eq!(
        planned(&[app.clone()]),
        ["app:__rust_dealloc", "app:__rust_alloc"]
    );
    assert!(
        !planned(&[app.clone(), libc()])
            .iter()
            .any(|name| name.contains("rust"))
    );

    app.symbols.has_rust_allocator = true;
    assert!(
        planned(&[app.clone(), libc()]).contains(&"app:__rust_alloc".to_owned()),
        "it leads to an allocator that residue does not know"
    );
    app.symbols.functions.push(function("_rjem_malloc", 3));
    assert!(!planned(&[app, libc()]).contains(&"app:__rust_alloc".to_owned()));
}

#[test]
fn what_cannot_be_probed_is_named() {
    let mut library = libc();
    library.symbols.functions[1].indirect = true;
    let objects = [object("app", Load::Executable, &[]), library];
    let plan = plan(&objects, SitePolicy::Cheapest).expect("malloc and free are left");
    assert_eq!(plan.skipped.len(), 1);
    assert_eq!(plan.skipped[0].symbol, "calloc");
}

#[test]
fn a_program_without_a_visible_allocator_is_refused_with_what_to_do() {
    let mut stripped = object("server", Load::Executable, &[]);
    stripped.is_dynamic = false;
    stripped.symbols.has_symbols = false;
    let executable = stripped.path.clone();
    let refused = plan(&[stripped], SitePolicy::Cheapest);
    assert_eq!(
        refused,
        Err(PlanError::Stripped {
            executable: executable.clone()
        })
    );

    let only_maps = object("server", Load::Executable, &[("mmap", 1), ("free", 2)]);
    let refused = plan(&[only_maps], SitePolicy::Cheapest);
    assert_eq!(refused, Err(PlanError::NoAllocator { executable }));
    assert_eq!(plan(&[], SitePolicy::Cheapest), Err(PlanError::NoObjects));
}

/// The linker makes functions local so in static-pie programs, and where a version script says so.
fn localized(mut object: ScopeObject) -> ScopeObject {
    for function in &mut object.symbols.functions {
        (function.exported, function.global) = (false, false);
        function.localized = true;
    }
    object
}

#[test]
fn what_the_linker_made_local_is_probed_wherever_it_is() {
    let functions = [("malloc", 0x10), ("free", 0x20), ("mmap", 0x30)];
    for load in [Load::Executable, Load::Startup, Load::Later] {
        let mut private = localized(object("private", load, &functions));
        let objects = [
            object("app", Load::Executable, &[]),
            private.clone(),
            libc(),
        ];
        let expected = [
            "private:free",
            "libc.so.6:free",
            "private:malloc",
            "libc.so.6:malloc",
            "libc.so.6:calloc",
            "libc.so.6:mmap",
        ];
        assert_eq!(planned(&objects), expected, "{load:?}");
        private.is_dynamic = false;
        assert!(planned(&[private]).contains(&"private:mmap".to_owned()));
    }
}

#[test]
fn a_local_function_that_calls_do_not_go_to_is_left_alone() {
    let mut library = localized(object("lib", Load::Startup, &[("malloc", 1), ("free", 2)]));
    for function in &mut library.symbols.functions {
        function.localized = false;
    }
    let objects = [object("app", Load::Executable, &[]), library, libc()];
    assert!(
        !planned(&objects)
            .iter()
            .any(|name| name.starts_with("lib:"))
    );
}

#[test]
fn what_frees_blocks_of_which_nobody_sees_the_allocation_is_marked() {
    let functions = [("free", 1), ("realloc", 2), ("calloc", 3)];
    let app = localized(object("app", Load::Executable, &functions));
    let marks = |objects: &[ScopeObject]| {
        let plan = plan(objects, SitePolicy::Cheapest).expect("there is an allocator");
        let marked = plan
            .functions
            .into_iter()
            .filter(|planned| planned.unpaired);
        let skipped = plan.skipped.into_iter().map(|skipped| skipped.symbol);
        let marked: Vec<_> = marked.map(|planned| planned.symbol).collect();
        (marked, skipped.collect::<Vec<_>>())
    };
    let (marked, skipped) = marks(slice::from_ref(&app));
    assert_eq!(marked, ["free", "realloc"]);
    assert_eq!(skipped, ["malloc"]);
    // The `malloc` of the C library is another one.
    assert_eq!(marks(&[app, libc()]).1, ["malloc"]);
    // But a preloaded library may well replace only one function of the two.
    let preloaded = object("lib", Load::Startup, &[("free", 1)]);
    let objects = [object("app", Load::Executable, &[]), preloaded, libc()];
    assert_eq!(marks(&objects), (Vec::new(), Vec::new()));
    // A function that is skipped already does not appear twice.
    let operators = [("malloc", 1), ("free", 2), ("_Znwm", 3), ("_ZdlPv", 4)];
    let mut jemalloc = object("libjemalloc.so", Load::Startup, &operators);
    jemalloc.symbols.marked = Some("jemalloc");
    let objects = [object("app", Load::Executable, &[]), jemalloc, libc()];
    let (marked, skipped) = marks(&objects);
    assert_eq!(
        (marked, skipped),
        (vec!["_ZdlPv".to_owned()], vec!["_Znwm".to_owned()])
    );
}

#[test]
fn what_the_compiler_has_changed_is_named() {
    let mut library = object("lib", Load::Later, &[]);
    library.symbols.changed = vec!["free.constprop.0".to_owned()];
    let objects = [object("app", Load::Executable, &[]), libc(), library];
    let plan = plan(&objects, SitePolicy::Cheapest).expect("there is an allocator");
    assert_eq!(plan.skipped.len(), 1);
    assert_eq!(
        (&*plan.skipped[0].symbol, plan.skipped[0].object),
        ("free.constprop.0", 2)
    );
}

fn with_mark(mut object: ScopeObject, mark: &'static str, place: Option<u64>) -> ScopeObject {
    object.symbols.marks.push((mark, place.map(Svma)));
    object
}

#[test]
fn a_program_that_a_sanitizer_watches_is_refused() {
    let app = with_mark(object("app", Load::Executable, &[]), "__asan_init", None);
    let run_time = with_mark(
        object("libasan.so", Load::Startup, &[]),
        "__asan_init",
        Some(1),
    );
    let refused = plan(&[app.clone(), run_time, libc()], SitePolicy::Cheapest);
    let sanitizer = "AddressSanitizer";
    assert!(
        matches!(refused, Err(PlanError::Sanitizer { sanitizer: found, .. }) if found == sanitizer)
    );
    // A program that only mentions the sanitizer does not run with one.
    assert!(plan(&[app, libc()], SitePolicy::Cheapest).is_ok());
}

#[test]
fn a_sanitizer_that_is_loaded_later_hides_no_other_library() {
    let app = object("app", Load::Executable, &[]);
    let functions = [("malloc", 1), ("free", 2)];
    let run_time = with_mark(
        object("sanitized.so", Load::Later, &functions),
        "__asan_init",
        Some(1),
    );
    let own = [("je_malloc", 3), ("je_free", 4)];
    let plugin = object("plugin.so", Load::Later, &own);
    let plan = plan_under_way(&[app, libc(), run_time, plugin], SitePolicy::Cheapest);
    let of = |object| move |it: &&PlannedFunction| it.object == object;
    assert_eq!(plan.functions.iter().filter(of(2)).count(), 0);
    assert_eq!(plan.functions.iter().filter(of(3)).count(), own.len());
    let named = plan.skipped.iter().filter(|it| it.object == 2);
    assert!(
        named
            .map(|it| it.reason)
            .all(|it| it.contains("sanitizer's"))
    );
    // Nor does what has no allocator at all.
    assert_eq!(plan_under_way(&[], SitePolicy::Cheapest), Plan::default());
}

#[test]
fn a_program_under_valgrind_is_refused() {
    let app = object("app", Load::Executable, &[]);
    let preloaded = with_mark(
        object("vgpreload_core.so", Load::Startup, &[]),
        "_vgnU_freeres",
        Some(1),
    );
    let refused = plan(&[app, preloaded, libc()], SitePolicy::Cheapest);
    assert!(matches!(refused, Err(PlanError::Valgrind { .. })));
}

#[test]
fn whatever_takes_stacks_by_itself_is_named() {
    use super::super::walkers::{Settings, walkers};
    let functions = [("malloc", 1), ("free", 2)];
    let app = object("app", Load::Executable, &[]);
    let names = |library: &ScopeObject, settings| {
        let notes = walkers(&[app.clone(), library.clone(), libc()], settings);
        notes.join("\n")
    };
    let none = Settings::default();
    let library = object("libheap.so", Load::Startup, &functions);
    assert_eq!(names(&library, none), "");
    let taker = with_mark(library.clone(), "unw_backtrace", None);
    assert!(names(&taker, none).contains("libheap.so may take stacks of its own"));

    let mut jemalloc = with_mark(library, "_Unwind_Backtrace", None);
    jemalloc.symbols.marked = Some("jemalloc");
    assert_eq!(names(&jemalloc, none), "");
    let profiling = Settings {
        jemalloc_profiles: true,
        ..none
    };
    assert!(names(&jemalloc, profiling).contains("prof:true"));

    let mut gperftools = object("libtcmalloc_and_profiler.so", Load::Startup, &functions);
    gperftools.symbols.marked = Some("tcmalloc");
    let gperftools = with_mark(gperftools, "ProfilerStart", Some(1));
    assert!(names(&gperftools, none).contains("(a CPU profiler, in signal handlers)"));
    let profiling = Settings {
        gperftools_profiles: true,
        ..none
    };
    let both = "(a CPU profiler, in signal handlers, and the heap profiler of gperftools)";
    assert!(names(&gperftools, profiling).contains(both));

    let libunwind = object("libunwind.so.8", Load::Startup, &[]);
    assert!(names(&libunwind, none).contains("libunwind"));
    let heaptrack = object("libheaptrack_inject.so", Load::Startup, &[]);
    let heaptrack = with_mark(heaptrack, "heaptrack_inject", Some(1));
    let notes = walkers(&[app.clone(), heaptrack, libunwind, libc()], none);
    assert_eq!(
        notes.len(),
        1,
        "what walks by libunwind is named, not libunwind"
    );
    assert!(notes[0].contains("(heaptrack)"));
}
