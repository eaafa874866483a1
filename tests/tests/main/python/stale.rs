//! Code that is made and freed by the thousand: its name is the right one, or none.

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    machine,
    python::{Python, STALE, python_layouts},
    recorder::Recorder,
    report::{Report, Stack},
};

/// How many functions are made.
const FUNCTIONS: u64 = 3000;
/// The size of the first one's block, bytes.
const FIRST: u64 = 30_001;

#[test]
fn code_that_is_freed_at_once_has_its_own_name_or_none() -> Result<()> {
    let _turn = machine::alone();
    for python in python_layouts() {
        let report = record(&python)?;
        let made = FIRST..FIRST + FUNCTIONS;
        let of_made = |stack: &&Stack| made.contains(&stack.inuse_bytes) || is_merged(stack);
        let (mut named, mut stale) = (0, 0);
        for stack in report.stacks.iter().filter(of_made) {
            match name_tells(stack) {
                Some(size) => {
                    let held = (stack.inuse_bytes, stack.inuse_objects);
                    assert_eq!(held, (size, 1), "{}", python.name);
                    assert!(is_called_by_make(stack), "{stack:#?}");
                    named += 1;
                }
                None => stale += stack.inuse_objects,
            }
        }
        let name = python.name;
        println!("{name}: {named} are named, {stale} are stale");
        ensure!(named + stale == FUNCTIONS, "{name}: {named} and {stale}");
        // What is read before it is freed, or kept by the kernel side when it is: all of it, unless
        // residue itself had to wait for a processor.
        ensure!(stale <= FUNCTIONS / 2, "{name}: {stale} are stale");
        let counted = report.notes["python_code_stale"];
        ensure!(counted >= stale, "{name}: {counted} are counted");
    }
    Ok(())
}

fn record(python: &Python) -> Result<Report> {
    let mut target = python.start("stale.py", &[&FUNCTIONS.to_string()])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    target.tell("go")?;
    target.await_line("done").context("the target ended")?;
    recorder.stop()?.report()
}

/// Stacks that differ only in code without a name look alike.
fn is_merged(stack: &Stack) -> bool {
    stack.frames.iter().any(|frame| frame.name == STALE)
}

/// The size that is in the name of the function which allocated.
fn name_tells(stack: &Stack) -> Option<u64> {
    let mut frames = stack.frames.iter();
    let size = frames.find_map(|frame| frame.name.strip_prefix("made_"))?;
    size.trim_end_matches('_').parse().ok()
}

/// Line by line: the function, the string that defines it, and who executes that.
fn is_called_by_make(stack: &Stack) -> bool {
    let places = stack.frames.iter().map(|it| (it.name.as_str(), it.line));
    let places: Vec<_> = places.collect();
    let inner = places
        .iter()
        .position(|(name, _)| name.starts_with("made_"));
    inner.is_some_and(|at| {
        places[at].1 == Some(3)
            && matches!(places.get(at + 1), Some((STALE, _) | ("<module>", Some(4))))
            && places.get(at + 2).is_some_and(|(name, _)| *name == "make")
    })
}
