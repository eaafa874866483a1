//! Tests of a whole profile: captures go in as plain data, profiles come out.

use residue_ebpf::abi::ROOT_FRAMES;
use residue_ebpf::abi::counters::{Counter, CounterKind};
use residue_ebpf::abi::event::WalkEnd;
use residue_ebpf::abi::heap::{StackKind, StackTotals};

use super::{Figures, Profile, Tier};
use crate::capture::{
    Capture, Frame, FrameKind, MappingOwner, MappingTotals, Module, Process, Stack,
};
use crate::ids::{ProcessNumber, StackId};
use crate::symbolize::Symbol;

fn symbol(name: &str, file: &str, line: u32) -> Symbol {
    Symbol {
        name: name.into(),
        file: Some(file.into()),
        line: Some(line),
    }
}

fn stack(id: u32, frames: &[u32]) -> Stack {
    Stack {
        id: StackId(id),
        process: ProcessNumber(0),
        frames: frames.to_vec(),
        left_out: 0,
        end: WalkEnd::Bottom,
        kind: StackKind::Full,
        context: None,
    }
}

fn totals(alloc: u64, freed: u64) -> StackTotals {
    StackTotals {
        alloc_bytes: alloc,
        alloc_objects: alloc / 10,
        freed_bytes: freed,
        freed_objects: freed / 10,
        ..StackTotals::default()
    }
}

/// Makes two call sites on one line (frames 0 and 1), a frame without a symbol (2), a frame with an
/// inlined function (3), and a frame in no module (4).
fn capture() -> Capture {
    let frame = |id, module, symbols| Frame {
        id,
        kind: FrameKind::Native,
        module,
        offset: 0x100 + u64::from(id),
        symbols,
    };
    Capture {
        processes: vec![(
            Process {
                number: ProcessNumber(0),
                pid: 7,
                comm: "app".into(),
                ..Process::default()
            },
            None,
        )],
        modules: vec![Module {
            id: 5,
            path: "/opt/app/bin/app".into(),
            build_id: None,
            interpreter: false,
        }],
        frames: vec![
            frame(0, Some(5), vec![symbol("keep", "/src/app.c", 7)]),
            frame(1, Some(5), vec![symbol("keep", "/src/app.c", 7)]),
            frame(2, Some(5), vec![]),
            frame(
                3,
                Some(5),
                vec![
                    symbol("inner", "/src/i.h", 2),
                    symbol("outer", "/src/app.c", 9),
                ],
            ),
            frame(4, None, vec![]),
        ],
        ..Capture::default()
    }
}

fn names(profile: &Profile, row: usize) -> Vec<String> {
    profile.stacks[row]
        .frames
        .iter()
        .map(|id| profile.frame(*id).to_string())
        .collect()
}

#[test]
fn frames_without_a_symbol_read_module_and_offset() {
    let stacks = vec![stack(1, &[2, 4])];
    let profile = Profile::from(&Capture {
        stacks,
        totals: vec![(StackId(1), totals(10, 0))],
        ..capture()
    });
    assert_eq!(names(&profile, 0), ["app+0x102", "[no module]+0x104"]);
}

#[test]
fn inlined_functions_are_frames_of_their_own() {
    let stacks = vec![stack(1, &[3, 0])];
    let profile = Profile::from(&Capture {
        stacks,
        totals: vec![(StackId(1), totals(10, 0))],
        ..capture()
    });
    assert_eq!(
        names(&profile, 0),
        ["inner (i.h:2)", "outer (app.c:9)", "keep (app.c:7)"]
    );
    let inlined = profile.stacks[0]
        .frames
        .iter()
        .map(|id| profile.frame(*id).inlined);
    assert_eq!(inlined.collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn stacks_that_read_the_same_are_one_row() {
    let stacks = vec![stack(1, &[0, 2]), stack(2, &[1, 2]), stack(3, &[0])];
    let totals = vec![
        (StackId(1), totals(100, 40)),
        (StackId(2), totals(50, 0)),
        (StackId(3), totals(30, 30)),
    ];
    let profile = Profile::from(&Capture {
        stacks,
        totals,
        ..capture()
    });
    assert_eq!(profile.stacks.len(), 2);
    let merged = Figures {
        inuse_bytes: 110,
        inuse_objects: 11,
        alloc_bytes: 150,
        alloc_objects: 15,
    };
    assert_eq!(profile.stacks[0].figures, merged);
    assert_eq!(profile.total().alloc_bytes, 180);
}

#[test]
fn what_pythons_allocator_holds_is_never_added_to_blocks() {
    let of_kind = |id, kind| Stack {
        kind,
        ..stack(id, &[0])
    };
    let mut capture = Capture {
        stacks: vec![
            of_kind(1, StackKind::Full),
            of_kind(2, StackKind::PythonObjects),
            of_kind(3, StackKind::PythonPools),
        ],
        totals: vec![
            (StackId(1), totals(10, 0)),
            (StackId(2), totals(200, 0)),
            (StackId(3), totals(3000, 0)),
        ],
        ..capture()
    };
    let interval = ("python-objects".to_owned(), "512".to_owned());
    capture.meta.options.push(interval);
    let profile = Profile::from(&capture);
    let tiers = [Tier::Blocks, Tier::PythonObjects, Tier::PythonPools];
    let bytes = tiers.map(|tier| profile.total_of(tier).inuse_bytes);
    assert_eq!(bytes, [10, 200, 3000]);
    assert_eq!(profile.total().inuse_bytes, 10);
    assert_eq!(profile.python_interval, Some(512));
}

#[test]
fn bytes_of_unknown_stacks_are_counted_under_a_name_that_says_so() {
    let totals = vec![(StackId(0), totals(10, 0)), (StackId(77), totals(20, 0))];
    let profile = Profile::from(&Capture {
        totals,
        ..capture()
    });
    assert_eq!(names(&profile, 0), ["[stack unknown]"]);
    assert_eq!(profile.stacks[0].figures.inuse_bytes, 30);
    assert_eq!(profile.stacks[0].target, None);
}

#[test]
fn a_stack_that_was_cut_says_so_at_its_outer_end() {
    let stacks = vec![Stack {
        left_out: 0,
        end: WalkEnd::TooDeep,
        ..stack(1, &[0])
    }];
    let profile = Profile::from(&Capture {
        stacks,
        totals: vec![(StackId(1), totals(10, 0))],
        ..capture()
    });
    assert_eq!(
        names(&profile, 0),
        ["keep (app.c:7)", "[stack cut: too many frames]"]
    );
}

#[test]
fn frames_that_were_left_out_are_counted_where_they_are_missing() {
    let stacks = vec![Stack {
        left_out: 44,
        ..stack(1, &[0; ROOT_FRAMES + 1])
    }];
    let profile = Profile::from(&Capture {
        stacks,
        totals: vec![(StackId(1), totals(10, 0))],
        ..capture()
    });
    let names = names(&profile, 0);
    assert_eq!(names.len(), 1 + 1 + ROOT_FRAMES);
    assert_eq!(names[1], "[... 44 frames left out ...]");
}

#[test]
fn a_free_seen_before_its_allocation_does_not_wrap() {
    let totals = vec![(StackId(1), totals(10, 20))];
    let profile = Profile::from(&Capture {
        totals,
        ..capture()
    });
    assert_eq!(profile.total().inuse_bytes, 0);
}

#[test]
fn every_counter_is_there_and_unknown_ones_count_as_lost() {
    let counters = vec![
        ("missed_free".to_owned(), 2),
        ("from_the_future".to_owned(), 1),
    ];
    let profile = Profile::from(&Capture {
        counters,
        ..capture()
    });
    assert_eq!(profile.counters.len(), Counter::COUNT + 1);
    let lost: Vec<&str> = profile
        .lost()
        .map(|counter| counter.name.as_str())
        .collect();
    assert_eq!(lost, ["missed_free", "from_the_future"]);
    assert_eq!(profile.counters[Counter::COUNT].kind, CounterKind::Lost);
}

#[test]
fn the_culprit_is_the_innermost_line_outside_the_runtime() {
    let mut capture = capture();
    let rust = symbol(
        "alloc::vec::Vec<T>::push",
        "/rustc/abc/library/alloc/src/vec/mod.rs",
        1,
    );
    capture.frames[2].symbols = vec![rust];
    capture.stacks = vec![stack(1, &[2, 4, 3]), stack(2, &[2, 4]), stack(3, &[2])];
    capture.totals = vec![
        (StackId(1), totals(30, 0)),
        (StackId(2), totals(20, 0)),
        (StackId(3), totals(10, 0)),
    ];
    let profile = Profile::from(&capture);
    let culprits = profile
        .stacks
        .iter()
        .map(|stack| profile.culprit(&stack.frames));
    assert_eq!(culprits.collect::<Vec<_>>(), [2, 1, 0]);
}

#[test]
fn the_applications_own_extension_is_a_culprit_and_an_installed_one_is_not() {
    let python = |id, file: &str| Frame {
        id,
        kind: FrameKind::Python,
        module: None,
        offset: 0,
        symbols: vec![symbol("view", file, 3)],
    };
    let mut capture = capture();
    capture.modules.push(Module {
        id: 6,
        path: "/venv/lib/python3.11/site-packages/fast/_fast.so".into(),
        build_id: None,
        interpreter: false,
    });
    capture.frames.push(Frame {
        id: 5,
        module: Some(6),
        symbols: vec![symbol("fast", "/src/fast.c", 1)],
        ..capture.frames[0].clone()
    });
    capture.frames.push(python(6, "/srv/app/views.py"));
    capture
        .frames
        .push(python(7, "/venv/lib/python3.11/site-packages/fast/api.py"));
    capture.stacks = vec![stack(1, &[0, 6]), stack(2, &[5, 7, 6])];
    capture.totals = vec![(StackId(1), totals(20, 0)), (StackId(2), totals(10, 0))];
    let profile = Profile::from(&capture);
    let culprits = profile.stacks.iter().map(|stack| {
        let culprit = stack.frames[profile.culprit(&stack.frames)];
        profile.frame(culprit).to_string()
    });
    let expected = ["keep (app.c:7)", "view (app/views.py:3)"];
    assert_eq!(culprits.collect::<Vec<_>>(), expected);
}

#[test]
fn arenas_are_what_the_interpreter_maps_in_their_size() {
    let mut capture = capture();
    capture.modules[0].interpreter = true;
    capture.stacks = vec![stack(1, &[4, 0]), stack(2, &[4, 4, 0])];
    let mapping = |stack, bytes, objects| MappingTotals {
        stack,
        owner: MappingOwner::Application,
        figures: Figures {
            inuse_bytes: bytes,
            inuse_objects: objects,
            alloc_bytes: bytes,
            alloc_objects: objects,
        },
    };
    let arenas = |mapping| {
        let mappings = vec![mapping];
        Profile::from(&Capture {
            mappings,
            ..capture.clone()
        })
        .python_arenas()
        .inuse_bytes
    };
    assert_eq!(arenas(mapping(StackId(1), 3 << 20, 3)), 3 << 20);
    assert_eq!(
        arenas(mapping(StackId(1), 3 << 20, 2)),
        0,
        "of another size"
    );
    assert_eq!(
        arenas(mapping(StackId(2), 1 << 20, 1)),
        0,
        "by an extension"
    );
}

/// As a thread of Node's that frees before it allocates has glibc do.
#[test]
fn an_arena_that_was_mapped_inside_free_is_the_allocators() {
    let mut capture = capture();
    capture.frames[2].symbols = vec![symbol("__GI___libc_free", "malloc.c", 3)];
    capture.stacks = vec![stack(1, &[4, 4, 2, 0]), stack(2, &[4, 4, 0])];
    let mapping = |stack| MappingTotals {
        stack,
        owner: MappingOwner::Application,
        figures: Figures {
            inuse_bytes: 64 << 20,
            inuse_objects: 1,
            alloc_bytes: 128 << 20,
            alloc_objects: 1,
        },
    };
    capture.mappings = vec![mapping(StackId(1)), mapping(StackId(2))];
    let profile = Profile::from(&capture);
    assert_eq!(
        profile.mapped(MappingOwner::Allocator).inuse_bytes,
        64 << 20
    );
    assert_eq!(profile.mapped_beside().inuse_bytes, 64 << 20);
}

#[test]
fn a_recording_that_was_cut_off_ends_at_its_last_interval() {
    let profile = Profile::from(&Capture {
        last_ns: 30,
        ..capture()
    });
    assert!(profile.span.cut_off);
    assert_eq!(profile.span.end_ns, 30);
    let profile = Profile::from(&Capture {
        last_ns: 30,
        ended_ns: Some(40),
        ..capture()
    });
    assert_eq!((profile.span.cut_off, profile.span.end_ns), (false, 40));
}
