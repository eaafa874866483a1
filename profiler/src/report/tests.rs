//! Tests of every format, with one small recording that holds what is hard to print.

mod hostile;
mod picture;
mod pprof;
mod processes;
mod reading;
mod requests;
mod wire;

use std::error::Error;
use std::io::{Cursor, Read};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use residue_ebpf::abi::event::WalkEnd;
use residue_ebpf::abi::heap::{StackKind, StackTotals};

use super::{Format, Measure, Options};
use crate::capture::{
    Capture, Ended, Figures, Frame, FrameKind, MappingOwner, MappingTotals, Module, Note, Process,
    Stack,
};
use crate::ids::{ProcessNumber, StackId, WindowNumber};
use crate::profile::Profile;
use crate::symbolize::Symbol;
use crate::wording;
use wire::Message;

type TestResult = Result<(), Box<dyn Error>>;

const SECOND: u64 = 1_000_000_000;

fn symbol(name: &str, file: &str, line: u32) -> Symbol {
    Symbol {
        name: name.into(),
        file: Some(file.into()),
        line: Some(line),
    }
}

fn totals(objects: u64, freed: u64, size: u64) -> StackTotals {
    StackTotals {
        alloc_bytes: objects * size,
        alloc_objects: objects,
        freed_bytes: freed * size,
        freed_objects: freed,
        ..StackTotals::default()
    }
}

fn capture() -> Capture {
    let process = Process {
        number: ProcessNumber(0),
        pid: 4242,
        comm: "gunicorn".into(),
        exe: "/usr/bin/python3.11".into(),
        cmdline: "gunicorn app:wsgi".into(),
        started_ns: 0,
    };
    let frame = |id, module, symbols| Frame {
        id,
        kind: FrameKind::Native,
        module: Some(module),
        offset: 0x100 + u64::from(id),
        symbols,
    };
    let stack = |id, frames: &[u32]| Stack {
        id: StackId(id),
        process: ProcessNumber(0),
        frames: frames.to_vec(),
        left_out: 0,
        end: WalkEnd::Bottom,
        kind: StackKind::Full,
        context: None,
    };
    Capture {
        processes: vec![(
            process,
            Some(Ended {
                at_ns: 9,
                reason: "killed by signal 9".into(),
            }),
        )],
        modules: vec![
            Module {
                id: 0,
                path: "/srv/app/libsession.so".into(),
                build_id: None,
                interpreter: false,
            },
            Module {
                id: 1,
                path: "/lib/x86_64-linux-gnu/libc.so.6".into(),
                build_id: None,
                interpreter: false,
            },
        ],
        frames: vec![
            frame(
                0,
                0,
                vec![
                    symbol("copy", "/src/copy.h", 3),
                    symbol("Session::open", "/src/session.cc", 88),
                ],
            ),
            frame(1, 0, vec![symbol("handle;request", "/src/server.cc", 12)]),
            frame(2, 1, vec![]),
            frame(
                3,
                1,
                vec![Symbol {
                    name: "bucket 64".into(),
                    file: None,
                    line: None,
                }],
            ),
            frame(
                4,
                0,
                vec![symbol("evil\n\x1b[2Jname<&>\"'", "/src/a b.c", 1)],
            ),
        ],
        stacks: vec![
            stack(1, &[0, 1, 2]),
            stack(2, &[3, 1, 2]),
            stack(3, &[4]),
            stack(4, &[1]),
        ],
        totals: vec![
            (StackId(0), totals(1, 0, 5)),
            (
                StackId(1),
                StackTotals {
                    lost_bytes: 640,
                    lost_objects: 10,
                    ..totals(1000, 100, 4096)
                },
            ),
            (StackId(2), totals(3, 0, 64)),
            (StackId(3), totals(2, 1, 100)),
            (StackId(4), totals(50_000, 50_000, 16)),
        ],
        mappings: vec![
            mapping(StackId(4), MappingOwner::Application, 1 << 20),
            mapping(StackId(1), MappingOwner::Allocator, 132 << 10),
        ],
        counters: vec![
            ("live_set_full".into(), 10),
            ("live_set_full_bytes".into(), 640),
            ("free_unmatched".into(), 1234),
        ],
        notes: vec![Note {
            at_ns: 9,
            text: "the target was killed by signal 9".into(),
        }],
        ended_ns: Some(1_800_000_060 * SECOND),
        ..started()
    }
}

fn started() -> Capture {
    let mut capture = Capture::default();
    capture.meta.started_ns = 1_800_000_000 * SECOND;
    capture
}

fn mapping(stack: StackId, owner: MappingOwner, bytes: u64) -> MappingTotals {
    let figures = Figures {
        inuse_bytes: bytes,
        inuse_objects: 1,
        alloc_bytes: bytes,
        alloc_objects: 1,
    };
    MappingTotals {
        stack,
        owner,
        figures,
    }
}

fn render(capture: &Capture, format: Format, by: Measure) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = Vec::new();
    format.write(
        &Profile::from(capture),
        Options {
            by,
            ..Options::default()
        },
        &mut out,
    )?;
    Ok(out)
}

fn render_text(capture: &Capture, format: Format, by: Measure) -> Result<String, Box<dyn Error>> {
    Ok(String::from_utf8(render(capture, format, by)?)?)
}

#[test]
fn text() -> TestResult {
    insta::assert_snapshot!(render_text(&capture(), Format::Text, Measure::Outstanding)?);
    Ok(())
}

#[test]
fn text_by_allocated() -> TestResult {
    insta::assert_snapshot!(render_text(&capture(), Format::Text, Measure::Allocated)?);
    Ok(())
}

#[test]
fn json() -> TestResult {
    insta::assert_snapshot!(render_text(&capture(), Format::Json, Measure::Outstanding)?);
    Ok(())
}

#[test]
fn folded() -> TestResult {
    insta::assert_snapshot!(render_text(
        &capture(),
        Format::Folded,
        Measure::Outstanding
    )?);
    Ok(())
}

#[test]
fn folded_has_a_root_for_each_of_several_processes_that_are_told_apart() -> TestResult {
    let mut capture = capture();
    capture.processes.push((
        Process {
            number: ProcessNumber(1),
            pid: 5,
            comm: "worker".into(),
            ..Process::default()
        },
        None,
    ));
    capture.stacks[2].process = ProcessNumber(1);
    let mut out = Vec::new();
    let options = Options {
        by_process: true,
        ..Options::default()
    };
    Format::Folded.write(&Profile::from(&capture), options, &mut out)?;
    insta::assert_snapshot!(String::from_utf8(out)?);
    Ok(())
}

#[test]
fn what_was_lost_is_the_first_line() -> TestResult {
    let text = render_text(&capture(), Format::Text, Measure::Outstanding)?;
    assert!(
        text.starts_with("LOST  10 allocations not tracked"),
        "{text}"
    );
    Ok(())
}

#[test]
fn text_fits_80_columns_and_carries_no_control_characters() -> TestResult {
    let mut capture = capture();
    capture.frames[1].symbols[0].name = "very::long::".repeat(40);
    capture.processes[0].0.exe = "/opt/with a blank/and more".repeat(9);
    capture.processes[0].0.comm = "without-a-blank".repeat(9);
    capture.notes[0].text = "without-a-blank".repeat(19);
    for line in render_text(&capture, Format::Text, Measure::Allocated)?.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert!(!line.contains(char::is_control), "{line}");
    }
    Ok(())
}

#[test]
fn colour_is_used_only_when_asked_for() -> TestResult {
    let mut out = Vec::new();
    let options = Options {
        colour: true,
        ..Options::default()
    };
    Format::Text.write(&Profile::from(&capture()), options, &mut out)?;
    assert!(out.contains(&0x1b));
    assert!(!render(&capture(), Format::Text, Measure::Outstanding)?.contains(&0x1b));
    Ok(())
}

#[test]
fn the_word_leak_is_never_used() -> TestResult {
    for format in [
        Format::Text,
        Format::Json,
        Format::Folded,
        Format::Flamegraph,
    ] {
        for by in [Measure::Outstanding, Measure::Allocated] {
            assert!(
                !render_text(&capture(), format, by)?
                    .to_lowercase()
                    .contains("leak")
            );
        }
    }
    Ok(())
}

#[test]
fn inferno_reads_the_folded_stacks_and_finds_every_byte() -> TestResult {
    let folded = render(&capture(), Format::Folded, Measure::Outstanding)?;
    let mut svg = Vec::new();
    let mut options = inferno::flamegraph::Options::default();
    inferno::flamegraph::from_reader(&mut options, Cursor::new(folded), &mut svg)?;
    let total = wording::number(Profile::from(&capture()).total().inuse_bytes);
    assert!(String::from_utf8(svg)?.contains(&format!("all ({total} samples, 100%)")));
    Ok(())
}

#[test]
fn the_flamegraph_names_target_span_measure_and_losses() -> TestResult {
    let svg = render_text(&capture(), Format::Flamegraph, Measure::Outstanding)?;
    for part in [
        "Outstanding memory of gunicorn (pid 4242)",
        "60.0 s from 2027-01-15 08:00:00 UTC",
        "not yet freed",
        "lost: 10 live_set_full, 640 live_set_full_bytes",
        "Session::open (session.cc:88)",
    ] {
        assert!(svg.contains(part), "{part} is missing");
    }
    Ok(())
}

#[test]
fn a_recording_of_nothing_renders_in_every_format() -> TestResult {
    for format in [
        Format::Text,
        Format::Json,
        Format::Folded,
        Format::Flamegraph,
    ] {
        let text = render_text(&started(), format, Measure::Outstanding)?;
        assert!(!text.contains("NaN"), "{text}");
    }
    assert!(render_text(&started(), Format::Flamegraph, Measure::Outstanding)?.contains("</svg>"));
    Ok(())
}

#[test]
fn numbers_read_well() {
    assert_eq!(wording::bytes(1023), "1023 B");
    assert_eq!(wording::bytes(1536), "1.5 KiB");
    assert_eq!(wording::bytes(1024 * 1024 - 1), "1.0 MiB");
    assert_eq!(wording::bytes(u64::MAX), "16.0 EiB");
    assert_eq!(wording::number(999), "999");
    assert_eq!(wording::number(1_234_567), "1,234,567");
    assert_eq!(wording::counted(1, "block"), "1 block");
}

/// The release build has two seconds to draw 10,000 stacks. A debug build gets ten times as long.
#[test]
fn ten_thousand_stacks_are_drawn_in_time() -> TestResult {
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });
    let capture = many_stacks(10_000);
    let begun = Instant::now();
    let svg = render(&capture, Format::Flamegraph, Measure::Outstanding)?;
    let taken = begun.elapsed();
    assert!(taken < limit, "drawing took {taken:?}");
    assert!(svg.len() > 100_000);
    Ok(())
}

/// Makes distinct stacks of 20 frames that fan out towards their leaves.
fn many_stacks(count: u32) -> Capture {
    let depth = 20;
    let symbols = |id: u32| {
        vec![symbol(
            &format!("module_{}::function_{id}", id % 17),
            "/src/lib.rs",
            id,
        )]
    };
    let frames = (0..count)
        .map(|id| Frame {
            id,
            kind: FrameKind::Native,
            module: None,
            offset: id.into(),
            symbols: symbols(id),
        })
        .collect();
    let stack = |id: u32| Stack {
        id: StackId(id + 1),
        process: ProcessNumber(0),
        frames: (0..depth).map(|level| (id >> level) + level).collect(),
        left_out: 0,
        end: WalkEnd::Bottom,
        kind: StackKind::Full,
        context: None,
    };
    Capture {
        frames,
        stacks: (0..count).map(stack).collect(),
        totals: (0..count)
            .map(|id| (StackId(id + 1), totals(u64::from(id % 97) + 1, 0, 64)))
            .collect(),
        ..started()
    }
}
