use residue_ebpf::abi::call_shape::CallShape::{self, *};

use super::*;
use crate::probes::{FunctionCode, FunctionSymbol, StaticProbe};
use crate::process::Svma;

/// `push rbp; pop rbp; ret`
const RETURNS: &[u8] = &[0x55, 0x5d, 0xc3];
/// `jmp +0x1000`
const JUMPS: &[u8] = &[0xe9, 0, 0x10, 0, 0];

fn function(name: &str, address: u64, code: &[u8]) -> FunctionSymbol {
    FunctionSymbol {
        name: name.to_owned(),
        global: true,
        indirect: false,
        address: Svma(address),
        file_offset: Some(FileOffset(address)),
        code: FunctionCode {
            bytes: code.to_vec(),
            complete: true,
        },
    }
}

fn object(name: &str, functions: Vec<FunctionSymbol>) -> SourceObject {
    SourceObject {
        path: name.into(),
        file: FileKey {
            device: 1,
            inode: name.bytes().map(u64::from).sum(),
        },
        is_go: false,
        throws: false,
        has_rustls: false,
        functions,
        similar: Vec::new(),
        probes: Vec::new(),
    }
}

fn static_probe(provider: &str, name: &str, at: u64) -> StaticProbe {
    StaticProbe {
        provider: provider.to_owned(),
        name: name.to_owned(),
        address: Svma(at),
        file_offset: Some(FileOffset(at)),
        nop: Some(vec![0x90]),
        semaphore: None,
    }
}

/// The shape, object and file offset of each probe, or the error.
fn planned(source: &str, objects: &[SourceObject]) -> Result<Vec<(CallShape, usize, u64)>, String> {
    let source: WindowSource = source.parse().expect("it is well formed");
    let probes = source.plan(objects, SitePolicy::Cheapest);
    let probes = probes.map_err(|error| error.to_string())?;
    let place = |probe: &WindowProbe| (probe.shape, probe.object, probe.site.file_offset.0);
    Ok(probes.iter().map(place).collect())
}

fn assert_says(result: Result<Vec<(CallShape, usize, u64)>, String>, words: &[&str]) {
    let error = result.expect_err("it is refused");
    for word in words {
        assert!(error.contains(word), "{word} is not in: {error}");
    }
}

#[test]
fn sources_are_told_by_their_prefix_and_written_as_they_are_read() {
    for text in ["http", "fn:job", "fn:app::jobs::run", "usdt:app:start:done"] {
        let source: WindowSource = text.parse().expect(text);
        assert_eq!(source.to_string(), text);
    }
}

#[test]
fn what_is_no_source_is_told_with_what_to_give() {
    for (text, words) in [
        ("grpc", "fn:SYMBOL"),
        ("", "fn:SYMBOL"),
        ("http:8080", "usdt:PROVIDER:OPEN:CLOSE"),
        ("fn:", "fn:handle_job"),
        ("usdt:app:start", "usdt:app:job_start:job_done"),
        ("usdt:app:start:done:x", "usdt:PROVIDER:OPEN:CLOSE"),
        ("usdt::start:done", "usdt:PROVIDER:OPEN:CLOSE"),
        ("usdt:app:x:x", "two probes"),
    ] {
        let error = text.parse::<WindowSource>().expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_function_is_probed_at_entry_and_where_it_returns() {
    let objects = [object("app", vec![function("job", 0x10, RETURNS)])];
    let expected = vec![(WindowLeave, 0, 0x12), (WindowEnter, 0, 0x10)];
    assert_eq!(planned("fn:job", &objects), Ok(expected));
}

#[test]
fn the_executables_function_comes_before_a_librarys() {
    let objects = [
        object("app", vec![]),
        object("liba.so", vec![function("job", 0x10, JUMPS)]),
        object("libb.so", vec![function("job", 0x20, JUMPS)]),
    ];
    assert_eq!(
        planned("fn:job", &objects),
        Ok(vec![(WindowFunction, 1, 0x10)])
    );
}

/// A return probe on such a function would terminate the program.
#[test]
fn a_function_that_an_exception_may_leave_gets_no_return_probe() {
    let mut runtime = object("libstdc++.so.6", vec![]);
    runtime.throws = true;
    let functions = vec![function("job", 0x10, JUMPS), function("run", 0x20, RETURNS)];
    let objects = [object("app", functions), runtime];
    assert_says(planned("fn:job", &objects), &["exception", "sibling-calls"]);
    let shapes = planned("fn:run", &objects).expect("its exits are known");
    assert!(shapes.iter().all(|(shape, ..)| !shape.has_return()));
}

#[test]
fn what_is_rarely_run_has_exits_of_its_own() {
    // je +0xfa; ret
    let hot = function("job", 0x100, &[0x0f, 0x84, 0xfa, 0, 0, 0, 0xc3]);
    let cold = function("job.cold", 0x200, &[0x90, 0xc3]);
    let objects = [object("app", vec![hot, cold])];
    let expected = vec![
        (WindowLeave, 0, 0x106),
        (WindowLeave, 0, 0x201),
        (WindowEnter, 0, 0x100),
    ];
    assert_eq!(planned("fn:job", &objects), Ok(expected));
}

#[test]
fn functions_go_by_their_name_in_the_source() {
    let functions = vec![
        function("_ZN6worker4jobs3run17h0123456789abcdefE", 0x10, RETURNS),
        function("_ZN4Pool3runEi", 0x20, RETURNS),
        function("_ZN4Pool3runEl", 0x30, RETURNS),
    ];
    let objects = [object("app", functions)];
    let entry = |source| Some(planned(source, &objects).ok()?.last()?.2);
    assert_eq!(entry("fn:worker::jobs::run"), Some(0x10));
    assert_eq!(entry("fn:Pool::run(long)"), Some(0x30));
    assert_eq!(entry("fn:_ZN4Pool3runEi"), Some(0x20));
    let both = [
        "2 functions of app",
        "_ZN4Pool3runEi (Pool::run(int))",
        "_ZN4Pool3runEl",
    ];
    assert_says(planned("fn:Pool::run", &objects), &both);
}

/// GCC makes such a variant of a function whose callers use fewer arguments, or always the same values.
#[test]
fn variants_of_a_function_are_probed_with_it() {
    let functions = vec![
        function("job", 0x10, RETURNS),
        function("job.constprop.0", 0x20, RETURNS),
        function("_ZN4Pool3runEi.isra.0", 0x30, RETURNS),
        function("_ZN4Pool3runEi.isra.0.cold", 0x40, RETURNS),
        function("job.part.0", 0x50, RETURNS),
    ];
    let objects = [object("app", functions)];
    let entries = |source| {
        let places = planned(source, &objects).expect("it is one function");
        let entries = places.into_iter().filter(|place| place.0 == WindowEnter);
        entries.map(|place| place.2).collect::<Vec<_>>()
    };
    assert_eq!(entries("fn:job"), [0x10, 0x20]);
    assert_eq!(entries("fn:job.constprop.0"), [0x20]);
    assert_eq!(entries("fn:Pool::run"), [0x30]);
}

#[test]
fn names_are_alike_by_whole_words_or_a_few_letters() {
    use super::object::is_similar;
    for (symbol, asked) in [
        ("handle_job", "job"),
        ("handle_jobs", "handle_job"),
        ("_ZN3app6Worker3runEmb", "app::Worker::run"),
        ("Handle_Job", "handle_job"),
    ] {
        assert!(is_similar(symbol, asked), "{symbol} {asked}");
    }
    for (symbol, asked) in [
        ("__truncdfhf2", "app::run"),
        ("free", "tree"),
        ("anything", ""),
    ] {
        assert!(!is_similar(symbol, asked), "{symbol} {asked}");
    }
}

#[test]
fn of_local_functions_with_one_name_none_is_guessed() {
    let mut functions = vec![
        function("job", 0x10, RETURNS),
        function("job", 0x20, RETURNS),
    ];
    functions
        .iter_mut()
        .for_each(|function| function.global = false);
    let objects = [object("app", functions.clone())];
    assert_says(
        planned("fn:job", &objects),
        &["2 functions", "0x10", "0x20"],
    );
    functions[1].global = true;
    let found = planned("fn:job", &[object("app", functions)]).expect("one is global");
    assert_eq!(found.last(), Some(&(WindowEnter, 0, 0x20)));
}

#[test]
fn a_function_that_is_not_there_is_told_with_those_like_it() {
    let mut app = object("app", vec![]);
    app.similar = vec!["handle_job".to_owned(), "other".to_owned()];
    assert_says(
        planned("fn:job", &[app]),
        &["no function job", "there is handle_job"],
    );
    assert_says(planned("fn:job", &[]), &["nm", "stripped"]);
}

#[test]
fn what_cannot_be_probed_is_refused_by_name() {
    let mut go = object("libgo.so", vec![function("job", 0x10, RETURNS)]);
    go.is_go = true;
    assert_says(planned("fn:job", &[go]), &["Go", "libgo.so"]);
    let mut indirect = function("job", 0x10, RETURNS);
    indirect.indirect = true;
    assert_says(
        planned("fn:job", &[object("app", vec![indirect])]),
        &["IFUNC"],
    );
    let endless = function("job", 0x10, &[0xeb, 0xfe]);
    assert_says(
        planned("fn:job", &[object("app", vec![endless])]),
        &["never returns"],
    );
}

#[test]
fn every_place_of_a_static_probe_is_probed() {
    let mut app = object("app", vec![]);
    app.probes = vec![
        static_probe("app", "start", 0x10),
        static_probe("app", "done", 0x20),
        static_probe("app", "start", 0x30),
    ];
    let mut library = object("libapp.so", vec![]);
    library.probes = vec![
        static_probe("app", "done", 0x40),
        static_probe("libc", "start", 0x50),
    ];
    let expected = vec![
        (WindowClose, 0, 0x20),
        (WindowClose, 1, 0x40),
        (WindowOpen, 0, 0x10),
        (WindowOpen, 0, 0x30),
    ];
    assert_eq!(
        planned("usdt:app:start:done", &[app, library]),
        Ok(expected)
    );
}

#[test]
fn static_probes_that_are_not_there_are_told_with_those_that_are() {
    let mut app = object("app", vec![]);
    app.probes = vec![
        static_probe("app", "start", 0x10),
        static_probe("sql", "query", 0x20),
    ];
    let objects = [app];
    assert_says(
        planned("usdt:application:start:done", &objects),
        &["those of app, sql"],
    );
    assert_says(
        planned("usdt:app:start:done", &objects),
        &["no static probe done", "has start"],
    );
    assert_says(planned("usdt:app:start:done", &[]), &["sys/sdt.h"]);
}

#[test]
fn static_probes_with_a_semaphore_or_at_no_nop_are_refused() {
    let mut app = object("app", vec![]);
    app.probes = vec![static_probe("app", "start", 0x10)];
    app.probes[0].semaphore = Some(Svma(0x4000));
    assert_says(
        planned("usdt:app:start:done", &[app.clone()]),
        &["semaphore", "fn:SYMBOL"],
    );
    app.probes[0].semaphore = None;
    app.probes[0].nop = None;
    assert_says(planned("usdt:app:start:done", &[app]), &["no nop"]);
}

#[test]
fn tls_is_probed_in_every_object_that_brings_it() {
    let tls = || {
        vec![
            function("SSL_read", 0x10, RETURNS),
            function("SSL_write_ex", 0x20, RETURNS),
            function("SSL_free", 0x30, RETURNS),
        ]
    };
    let objects = [
        object("node", tls()),
        object("libgnutls.so.30", vec![]),
        object("libssl.so.3", tls()),
    ];
    let plan = plan_tls(&objects, SitePolicy::Cheapest);
    assert_eq!(plan.libraries, [0, 2]);
    let shapes: Vec<_> = plan.probes.iter().map(|probe| probe.shape).collect();
    let expected = [SslFree, SslFree, SslWriteEx, SslWriteEx, SslRead, SslRead];
    assert_eq!(shapes, expected);
    assert_eq!(plan.not_followed.len(), 1);
    assert!(plan.not_followed[0].contains("GnuTLS"));
}
