//! Tests of what a person reads: the answer comes first and once, with the library to blame, and
//! with what the answer leaves out.

use super::*;
use crate::report::{Refusal, Selection};
use crate::requests::head::Method;
use crate::requests::record::{Amount, Binding, MemoryAt, WindowEnd, WindowRecord};
use crate::requests::route::Route;

const PACKAGES: &str = "/venv/lib/python3.11/site-packages";

/// Makes a recording of several workers of one service, without stacks.
fn workers(count: u32) -> Capture {
    let worker = |number: u32| {
        let process = Process {
            number: ProcessNumber(number),
            pid: 100 + number,
            comm: "gunicorn".into(),
            exe: "/usr/bin/python3.11".into(),
            ..Process::default()
        };
        (process, None)
    };
    Capture {
        processes: (0..count).map(worker).collect(),
        ended_ns: Some(1_800_000_060 * SECOND),
        ..started()
    }
}

impl Capture {
    fn add_python(&mut self, name: &str, file: &str, line: u32) -> u32 {
        let symbols = vec![symbol(name, file, line)];
        self.add_frame(FrameKind::Python, None, symbols)
    }

    fn add_native(&mut self, name: &str, module: &str) -> u32 {
        let id = self.modules.len() as u32;
        self.modules.push(Module {
            id,
            path: module.into(),
            ..Module::default()
        });
        let symbols = vec![Symbol {
            name: name.into(),
            file: None,
            line: None,
        }];
        self.add_frame(FrameKind::Native, Some(id), symbols)
    }

    fn add_frame(&mut self, kind: FrameKind, module: Option<u32>, symbols: Vec<Symbol>) -> u32 {
        let id = self.frames.len() as u32;
        self.frames.push(Frame {
            id,
            kind,
            module,
            offset: 0,
            symbols,
        });
        id
    }

    /// The frames, leaf first.
    fn add_stack(&mut self, process: u32, frames: &[u32], bytes: u64) -> StackId {
        let id = StackId(self.stacks.len() as u32 + 1);
        self.stacks.push(Stack {
            id,
            process: ProcessNumber(process),
            frames: frames.to_vec(),
            left_out: 0,
            end: WalkEnd::Bottom,
            kind: StackKind::Full,
            context: None,
        });
        self.totals.push((id, totals(1, 0, bytes)));
        id
    }
}

/// Makes every worker keep the same amount, by the same stack.
fn three_workers() -> Capture {
    let mut capture = workers(3);
    let leak = capture.add_python("leak", "/srv/app/server.py", 11);
    let other = capture.add_python("other", "/srv/app/server.py", 30);
    for worker in 0..3 {
        capture.add_stack(worker, &[leak], 1000);
    }
    capture.add_stack(1, &[other], 50);
    capture
}

fn shown(
    capture: &Capture,
    format: Format,
    options: Options<'_>,
) -> Result<String, Box<dyn Error>> {
    let mut out = Vec::new();
    format.write(&Profile::from(capture), options, &mut out)?;
    Ok(String::from_utf8(out)?)
}

fn text_of(capture: &Capture) -> Result<String, Box<dyn Error>> {
    shown(capture, Format::Text, Options::default())
}

const SPLIT: Options<'_> = Options {
    by: Measure::Outstanding,
    tier: crate::profile::Tier::Blocks,
    route: None,
    by_process: true,
    colour: false,
};

#[test]
fn a_process_that_has_freed_what_others_hold_is_not_counted() -> TestResult {
    let mut capture = three_workers();
    capture.totals[2].1 = totals(1, 1, 1000);
    let text = text_of(&capture)?;
    assert!(text.contains("2 blocks, in 2 of 3 processes\n"), "{text}");
    Ok(())
}

#[test]
fn stacks_of_several_processes_that_read_the_same_are_one_row() -> TestResult {
    let capture = three_workers();
    let text = text_of(&capture)?;
    assert_eq!(text.matches("leak (app/server.py:11)").count(), 1, "{text}");
    assert!(text.contains("3 blocks, in 3 of 3 processes\n"), "{text}");
    assert!(text.contains("1 block, in 1 of 3 processes\n"), "{text}");
    let folded = shown(&capture, Format::Folded, Options::default())?;
    assert_eq!(
        folded,
        "leak (app/server.py:11) 3000\nother (app/server.py:30) 50\n"
    );
    let svg = shown(&capture, Format::Flamegraph, Options::default())?;
    assert!(
        svg.contains("leak (app/server.py:11) (3,000 bytes"),
        "{svg}"
    );
    Ok(())
}

#[test]
fn processes_can_be_told_apart() -> TestResult {
    let capture = three_workers();
    let text = shown(&capture, Format::Text, SPLIT)?;
    assert_eq!(text.matches("leak (app/server.py:11)").count(), 3, "{text}");
    assert!(text.contains("1 block, gunicorn (pid 102)\n"), "{text}");
    let folded = shown(&capture, Format::Folded, SPLIT)?;
    assert!(
        folded.starts_with("gunicorn (pid 100);leak (app/server.py:11) 1000\n"),
        "{folded}"
    );
    assert_eq!(folded.lines().count(), 4);
    let svg = shown(&capture, Format::Flamegraph, SPLIT)?;
    assert!(svg.contains("gunicorn (pid 102)"));
    Ok(())
}

#[test]
fn one_process_alone_is_not_counted_out_of_one() -> TestResult {
    let mut capture = workers(1);
    let leak = capture.add_python("leak", "/srv/app/server.py", 11);
    capture.add_stack(0, &[leak], 1000);
    assert!(!text_of(&capture)?.contains("of 1 process"));
    assert!(!shown(&capture, Format::Folded, SPLIT)?.contains("pid"));
    Ok(())
}

#[test]
fn the_culprit_keeps_the_guilty_library() -> TestResult {
    let mut capture = workers(1);
    let leak = capture.add_python("leak", "/srv/app/server.py", 11);
    let file = format!("{PACKAGES}/paddle_billing/Client.py");
    let client = capture.add_python("Client.__init__", &file, 60);
    let logger = capture.add_python("Client.null_logger", &file, 105);
    let logging = capture.add_python("getLogger", "/usr/lib/python3.11/logging/__init__.py", 9);
    capture.add_stack(0, &[logging, logger, client, leak], 1000);
    let text = text_of(&capture)?;
    // This label is too long for one line of 80 columns beside its figures.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let label = "leak (app/server.py:11), in paddle_billing Client.null_logger:105 1 block";
    assert!(words.contains(label), "{text}");
    Ok(())
}

#[test]
fn a_native_library_is_named_by_the_function_that_was_called() -> TestResult {
    let mut capture = workers(1);
    let own = symbol("parse", "/src/app.c", 7);
    let application = capture.add_native("main", "/usr/bin/app");
    let parse = capture.add_frame(FrameKind::Native, capture.frames[0].module, vec![own]);
    let inner = capture.add_native("own_helper", "/usr/bin/app");
    let read = capture.add_native("xmlReadMemory", "/usr/lib/libxml2.so.2");
    let node = capture.add_native("xmlNewNode", "/usr/lib/libxml2.so.2");
    let malloc = capture.add_native("malloc", "/lib/libc.so.6");
    capture.add_stack(0, &[malloc, node, read, parse, application], 200);
    capture.add_stack(0, &[malloc, inner, parse, application], 100);
    let text = text_of(&capture)?;
    assert!(
        text.contains("parse (app.c:7), in libxml2.so.2 xmlReadMemory\n"),
        "{text}"
    );
    // Memory that the application itself allocates belongs to no library.
    assert!(text.contains("  parse (app.c:7)\n"), "{text}");
    Ok(())
}

#[test]
fn rows_that_read_the_same_are_one_row_with_what_differs_below() -> TestResult {
    let mut capture = workers(2);
    let leak = capture.add_python("leak", "/srv/app/server.py", 11);
    let dispatch = capture.add_python("dispatch", &format!("{PACKAGES}/flask/app.py"), 902);
    let lexbor = format!("{PACKAGES}/selectolax/lexbor.cpython-311.so");
    let wrapper = "__pyx_pw_10selectolax_6lexbor_10LexborNode_29css_matches";
    let matches = capture.add_native(wrapper, &lexbor);
    for (number, inner) in (0..19).zip("abcdefghijklmnopqrs".chars()) {
        let inner = capture.add_native(&format!("lxb_{inner}"), &lexbor);
        let leaf = capture.add_native("lexbor_malloc", &lexbor);
        capture.add_stack(
            number % 2,
            &[leaf, inner, matches, leak, dispatch],
            1000 - u64::from(number),
        );
    }
    let text = text_of(&capture)?;
    let (culprits, _) = text.split_once("\ntarget").ok_or("no targets")?;
    insta::assert_snapshot!(culprits);
    Ok(())
}

#[test]
fn callers_that_differ_stand_below_as_well() -> TestResult {
    let mut capture = workers(1);
    let open = capture.add_python("open", "/srv/app/db.py", 3);
    let pool = capture.add_python("pool", "/srv/app/db.py", 9);
    let views = ["login", "logout"].map(|name| capture.add_python(name, "/srv/app/views.py", 7));
    capture.add_stack(0, &[open, pool, views[0]], 2048);
    capture.add_stack(0, &[open, pool, views[1]], 1024);
    let text = text_of(&capture)?;
    for line in [
        "< pool (app/db.py:9)\n",
        "2.0 KiB < login (app/views.py:7)\n",
        "1.0 KiB < logout (app/views.py:7)\n",
    ] {
        assert!(text.contains(line), "{line} is missing:\n{text}");
    }
    Ok(())
}

#[test]
fn a_launcher_is_no_culprit_while_a_package_or_the_program_is_there() -> TestResult {
    let mut capture = workers(1);
    let launcher = capture.add_python("<module>", "/venv/bin/gunicorn", 8);
    let start = capture.add_python("_run_code", "<frozen runpy>", 88);
    let worker = capture.add_python(
        "Worker.run",
        &format!("{PACKAGES}/gunicorn/workers/sync.py"),
        124,
    );
    let application = capture.add_python("<module>", "/srv/app/wsgi.py", 5);
    let standard = capture.add_python("select", "/usr/lib/python3.11/selectors.py", 7);
    capture.add_stack(0, &[worker, launcher, start], 4000);
    capture.add_stack(0, &[standard, application, worker, launcher], 3000);
    capture.add_stack(0, &[standard, launcher, start], 2000);
    let profile = Profile::from(&capture);
    let culprits = profile.stacks.iter().map(|stack| {
        let culprit = profile.culprit(&stack.frames);
        profile.frame(stack.frames[culprit]).to_string()
    });
    assert_eq!(
        culprits.collect::<Vec<_>>(),
        [
            "Worker.run (workers/sync.py:124)",
            "<module> (app/wsgi.py:5)",
            "<module> (bin/gunicorn:8)"
        ]
    );
    Ok(())
}

#[test]
fn a_program_that_lies_in_bin_is_its_own_culprit() {
    let mut capture = workers(1);
    let launcher = capture.add_python("<module>", "/srv/bin/serve", 40);
    let own = capture.add_python("handle", "/srv/bin/serve", 8);
    capture.add_stack(0, &[own, launcher], 100);
    let profile = Profile::from(&capture);
    assert_eq!(profile.culprit(&profile.stacks[0].frames), 0);
}

/// Makes one request to which nothing could be bound.
fn request() -> WindowRecord {
    WindowRecord {
        window: WindowNumber(1),
        process: ProcessNumber(0),
        pid: 100,
        tid: 100,
        opened_ns: 1,
        closed_ns: 2,
        duration_ns: Some(1),
        route: Route::stored(Some(Method::Get), Some("/leak")),
        status: Some(200),
        request_id: None,
        rss: None,
        allocated: Amount::default(),
        retained: Amount::default(),
        binding: Binding::None,
        end: WindowEnd::Done,
    }
}

fn rss_only() -> Capture {
    let mut capture = workers(1);
    capture.windows.records = vec![(request(), None)];
    capture.windows.memory = vec![MemoryAt {
        process: ProcessNumber(0),
        at_ns: 1,
        unbound_bytes: None,
        resident_bytes: Some(1 << 20),
    }];
    capture
}

#[test]
fn what_nobody_followed_is_not_said_to_be_nothing() -> TestResult {
    for by in [Measure::Outstanding, Measure::Allocated] {
        let options = Options {
            by,
            ..Options::default()
        };
        let text = shown(&rss_only(), Format::Text, options)?;
        assert!(text.starts_with("No allocation of gunicorn (pid 100) was followed"));
        for claim in ["0 B", "0 blocks", "No block", "Nothing"] {
            assert!(!text.contains(claim), "{claim:?} is claimed:\n{text}");
        }
    }
    let json = shown(&rss_only(), Format::Json, Options::default())?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json["allocations_followed"], false);
    assert!(json["background"].is_null() && json["ambiguous"].is_null());
    Ok(())
}

#[test]
fn no_stacks_are_drawn_of_what_nobody_followed() {
    let profile = Profile::from(&rss_only());
    for (format, refused) in [
        (Format::Flamegraph, true),
        (Format::Folded, true),
        (Format::Pprof, true),
        (Format::Text, false),
        (Format::Json, false),
    ] {
        let selection = Selection {
            format,
            by: None,
            tier: crate::profile::Tier::Blocks,
            route: None,
        };
        let refusal = selection.options(&profile).err();
        assert_eq!(
            refusal,
            refused.then_some(Refusal::NotFollowed),
            "{format:?}"
        );
    }
}

#[test]
fn a_recording_of_no_block_is_still_said_to_be_one() -> TestResult {
    let text = text_of(&workers(1))?;
    assert!(text.contains("No block is outstanding."), "{text}");
    Ok(())
}

#[test]
fn what_is_mapped_has_its_rows_and_is_first_when_it_is_the_most() -> TestResult {
    let mut capture = workers(1);
    let keep = capture.add_python("keep", "/srv/app/server.py", 11);
    let map = capture.add_python("load_index", "/srv/app/index.py", 5);
    capture.add_stack(0, &[keep], 1000);
    let stack = capture.add_stack(0, &[map], 0);
    capture.mappings = vec![mapping(stack, MappingOwner::Application, 14 << 20)];
    let text = text_of(&capture)?;
    let at = |part: &str| {
        text.find(part)
            .ok_or_else(|| format!("{part} is missing:\n{text}"))
    };
    assert!(at("load_index (app/index.py:5)")? < at("keep (app/server.py:11)")?);
    assert!(at("   14.0 MiB 100%  load_index")? > at("MAPPED")?);
    capture.mappings[0].figures.inuse_bytes = 10;
    let text = text_of(&capture)?;
    let at = |part: &str| {
        text.find(part)
            .ok_or_else(|| format!("{part} is missing:\n{text}"))
    };
    assert!(at("load_index (app/index.py:5)")? > at("keep (app/server.py:11)")?);
    Ok(())
}

#[test]
fn the_answer_stands_first_and_figures_by_route_say_what_is_not_in_them() -> TestResult {
    let mut capture = three_workers();
    let bound = WindowRecord {
        binding: Binding::Exact,
        ..request()
    };
    capture.windows.records = vec![(bound, Some(Amount::default()))];
    let interpreter = capture.add_native("_PyObject_Malloc", "/usr/bin/python3.11");
    capture.modules[0].interpreter = true;
    let arena = capture.add_stack(0, &[interpreter], 0);
    let other = capture.add_python("load", "/srv/app/index.py", 5);
    let other = capture.add_stack(0, &[other], 0);
    let arenas = Figures {
        inuse_bytes: 9 << 20,
        inuse_objects: 9,
        alloc_bytes: 9 << 20,
        alloc_objects: 9,
    };
    capture.mappings = vec![
        MappingTotals {
            stack: arena,
            owner: MappingOwner::Application,
            figures: arenas,
        },
        mapping(other, MappingOwner::Application, 3 << 20),
    ];
    let text = text_of(&capture)?;
    let places = ["leak (app/server.py:11)", "REQUESTS BY ROUTE", "target "];
    let places: Option<Vec<_>> = places.iter().map(|part| text.find(part)).collect();
    assert!(places.is_some_and(|places| places.is_sorted()), "{text}");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains(
            "Meanwhile, Python's arenas grew by 9.0 MiB, other mappings grew by 3.0 MiB: not in this."
        ),
        "{text}"
    );
    assert!(!text.contains("exact"), "{text}");
    Ok(())
}

#[test]
fn an_interpreter_without_frames_of_its_own_is_named_in_text_and_json() -> TestResult {
    let mut capture = workers(1);
    capture.processes[0].0.exe = "/usr/bin/ruby3.1".into();
    for format in [Format::Text, Format::Json] {
        let text = shown(&capture, format, Options::default())?;
        assert!(text.contains("Ruby has no frames of its own"), "{text}");
    }
    assert!(!text_of(&workers(1))?.contains("has no frames"));
    Ok(())
}

#[test]
fn a_path_alone_names_its_route_where_one_has_it() {
    let mut capture = workers(1);
    let with = |method, path| {
        let route = Route::stored(Some(method), Some(path));
        let record = WindowRecord {
            route,
            binding: Binding::Exact,
            ..request()
        };
        (record, Some(Amount::default()))
    };
    capture.windows.records = vec![
        with(Method::Get, "/leak"),
        with(Method::Get, "/both"),
        with(Method::Post, "/both"),
    ];
    let profile = Profile::from(&capture);
    let of = |route| {
        let selection = Selection {
            format: Format::Folded,
            by: None,
            tier: crate::profile::Tier::Blocks,
            route: Some(route),
        };
        let options = selection.options(&profile);
        options.map(|options| options.route.map(ToString::to_string))
    };
    assert_eq!(of("/leak"), Ok(Some("GET /leak".to_owned())));
    assert_eq!(of("GET /both"), Ok(Some("GET /both".to_owned())));
    let refused = of("/both").expect_err("two routes have it").to_string();
    assert!(
        refused.contains("\n  GET /both") && refused.contains("\n  POST /both"),
        "{refused}"
    );
    assert!(matches!(of("/no"), Err(Refusal::NoSuchRoute { .. })));
}
