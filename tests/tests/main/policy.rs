//! Which stacks are walked is one question, what is counted another: the totals are exact under every
//! policy, and what leaks gets its own full stack.

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    exact::assert_exact,
    fixtures::{Fixture, sources},
    machine::{self, has},
    recorder::Recorder,
    report::{Report, Stack},
    target::Target,
};

/// The context of a native allocation reaches to its site.
#[test]
fn every_site_is_exact_though_few_stacks_are_walked() -> Result<()> {
    // A slow target has more of its stacks walked.
    let _turn = machine::alone();
    let program = Fixture::HeapWalk.build()?;
    let mut target = Target::start(&program, &[])?;
    let recorder = Recorder::start(&[target.pid()], &["--stacks", "auto"])?;
    let truth = target.go()?;
    let report = recorder.stop()?.report()?;
    assert_exact(&truth, &report);
    let allocated: u64 = report.stacks.iter().map(|stack| stack.alloc_objects).sum();
    let walked = report.walked.alloc_objects;
    ensure!(
        walked * 4 < allocated,
        "{walked} of {allocated} stacks were walked: the policy saves nothing"
    );
    Ok(())
}

#[test]
fn every_site_is_exact_without_any_full_stack() -> Result<()> {
    let _turn = machine::beside_others();
    let program = Fixture::HeapWalk.build()?;
    let mut target = Target::start(&program, &[])?;
    let recorder = Recorder::start(&[target.pid()], &["--stacks", "none"])?;
    let truth = target.go()?;
    let report = recorder.stop()?.report()?;
    assert_exact(&truth, &report);
    assert_eq!(report.walked.alloc_objects, 0);
    let says_so = |stack: &Stack| {
        let last = stack.frames.last();
        stack.shallow && last.is_some_and(|frame| frame.name == "[stack not walked]")
    };
    assert!(report.stacks.iter().all(says_so));
    Ok(())
}

/// Long enough for three troughs to rise, and then some.
const UNTIL_SUSPECTED: Duration = Duration::from_secs(5);

#[test]
fn what_leaks_gets_full_stacks_from_when_it_is_suspected() -> Result<()> {
    let _turn = machine::beside_others();
    if !has(machine::PYTHON) {
        return Ok(());
    }
    let script = sources().join("python/routes.py");
    let mut target = Target::spawn(Command::new(machine::PYTHON.program).arg(script))?;
    target.await_line("ready")?;
    let recorder = Recorder::start(&[target.pid()], &["--stacks", "auto"])?;
    target.tell("go")?;
    thread::sleep(UNTIL_SUSPECTED);
    let [slow_before, fast_before] = served(&mut target)?;
    thread::sleep(Duration::from_secs(2));
    let [slow, fast] = served(&mut target)?;
    // It serves on while the recording ends: a request may be counted that was not told of.
    let report = recorder.stop()?.report()?;
    for (route, told, before) in [
        ("slow_route", slow, slow_before),
        ("fast_route", fast, fast_before),
    ] {
        let held = held(&report, route);
        ensure!(
            held.walked >= told - before,
            "{route} had {told} requests, {before} of them early, and {held:?}"
        );
        let off = held.all.abs_diff(told) as f64 / told as f64;
        ensure!(off < 0.15, "{route} had {told} requests, and {held:?}");
    }
    let clean = held_of(
        &report,
        "clean_route",
        |stack| stack.alloc_objects,
        |stack| stack.estimated.alloc_objects,
    );
    ensure!(
        clean.walked * 4 < clean.all,
        "what is freed again was walked all the same: {clean:?}"
    );
    Ok(())
}

fn served(target: &mut Target) -> Result<[u64; 2]> {
    let said = target.ask("how many", "served ")?;
    let mut numbers = said.split(' ').skip(1).map(str::parse);
    let mut next = || numbers.next().context("two numbers")?.context("a number");
    Ok([next()?, next()?])
}

/// Blocks, and of how many the stack was walked.
#[derive(Debug)]
struct Blocks {
    all: u64,
    walked: u64,
}

fn held(report: &Report, function: &str) -> Blocks {
    held_of(
        report,
        function,
        |stack| stack.inuse_objects,
        |stack| stack.estimated.inuse_objects,
    )
}

/// The blocks that were allocated below a Python function of the target.
fn held_of(
    report: &Report,
    function: &str,
    all: impl Fn(&Stack) -> u64,
    estimated: impl Fn(&Stack) -> u64,
) -> Blocks {
    let is_function = |stack: &&Stack| {
        stack.frames.iter().any(|frame| {
            let file = frame.file.as_deref().map(Path::new);
            frame.name == function && file.is_some_and(|file| file.ends_with("routes.py"))
        })
    };
    let stacks: Vec<_> = report.stacks.iter().filter(is_function).collect();
    let all: u64 = stacks.iter().map(|stack| all(stack)).sum();
    let estimated: u64 = stacks.iter().map(|stack| estimated(stack)).sum();
    Blocks {
        all,
        walked: all - estimated,
    }
}
