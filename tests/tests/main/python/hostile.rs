//! Targets whose interpreter's structures are a lie: residue ends in time, well, and in bounds.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    machine,
    python::{Python, holding, python_layouts, sites, told},
    recorder::Recorder,
    report::{Frame, Report, Stack},
};

/// Blocks at places that do not exist, each of them at another.
const MADE_UP: u64 = 3000;
/// Sizes, bytes: of those blocks, and of the first of all the others.
const MADE_UP_SIZE: u64 = 49_999;
const FIRST_LIE: u64 = 50_001;
/// How long the recording may take to end.
const LIMIT: Duration = Duration::from_secs(20);
/// How much memory it may take, bytes. An idle recording takes some 60 MiB.
const MEMORY: u64 = 256 << 20;

#[test]
fn lies_about_python_frames_harm_nobody() -> Result<()> {
    let _turn = machine::beside_others();
    for python in python_layouts() {
        if python.build_extension("hostile")? {
            record(&python).with_context(|| python.name)?;
        }
    }
    Ok(())
}

fn record(python: &Python) -> Result<()> {
    let mut target = python.start("liar.py", &[&MADE_UP.to_string()])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    target.tell("go")?;
    let mut truth = sites(&target)?;
    let of_lies = truth.iter().position(|site| site.frames == "lies");
    let lies = truth.remove(of_lies.context("the number of lies")?).size;
    let stopping = Instant::now();
    let memory = recorder.peak_memory()?;
    let report = recorder.stop()?.report()?;
    let took = stopping.elapsed();
    ensure!(took < LIMIT, "it ended after {took:?}");
    ensure!(memory < MEMORY, "it took {memory} bytes");
    for site in &truth {
        let found: Vec<_> = holding(&report, site.size).map(told).collect();
        assert_eq!(found, [site.frames.as_str()], "{}", site.size);
    }
    assert_all_is_counted(&report, lies);
    // Otherwise no lie was looked at.
    for seen in ["python_cut", "python_code_stale"] {
        ensure!(report.notes[seen] > 0, "{seen} is zero");
    }
    assert!(target.is_running()?);
    println!("{}: {lies} lies, {} MiB", python.name, memory >> 20);
    Ok(())
}

/// Whatever their stacks are.
fn assert_all_is_counted(report: &Report, lies: u64) {
    let through = |stack: &&Stack| {
        let module = |frame: &Frame| {
            let module = frame.module.as_deref().unwrap_or_default();
            module.ends_with("/hostile.so")
        };
        stack.frames.iter().any(module)
    };
    let (mut bytes, mut objects) = (0, 0);
    for stack in report.stacks.iter().filter(through) {
        bytes += stack.inuse_bytes;
        objects += stack.inuse_objects;
    }
    let of_lies: u64 = (FIRST_LIE..FIRST_LIE + lies).sum();
    assert_eq!(objects, lies + MADE_UP);
    assert_eq!(bytes, of_lies + MADE_UP * MADE_UP_SIZE);
}
