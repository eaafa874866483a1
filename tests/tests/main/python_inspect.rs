//! The structures of each Python that is installed: found, and shown as Python itself sees them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    fixtures::Fixture,
    machine,
    python::{all_programs, programs},
    recorder::{self, Recorder},
    target::Target,
};

fn script(name: &str) -> PathBuf {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/python");
    targets.join(name)
}

/// By thread, what it runs, innermost first.
type Stacks = BTreeMap<String, Vec<String>>;

/// `residue inspect python` of a process.
fn inspect(pid: u32, options: &[&str]) -> Result<String> {
    let mut command = Command::new(recorder::residue()?);
    let command = command
        .args(["inspect", "python", "-p"])
        .arg(pid.to_string());
    let output = command.args(options).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "residue said: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// What the target says of its threads before it is ready.
fn said(target: &Target) -> Result<Stacks> {
    let mut stacks = Stacks::new();
    loop {
        let line = target.await_line("")?;
        let Some(thread) = line.strip_prefix("thread ") else {
            ensure!(line == "ready", "the target said {line}");
            return Ok(stacks);
        };
        let (ident, stack) = thread.split_once(' ').context("a thread and a stack")?;
        let frames = stack.split(';').map(str::to_owned).collect();
        stacks.insert(ident.to_owned(), frames);
    }
}

/// What residue shows: a line `thread IDENT, ...` and below it lines `FUNCTION (FILE:LINE)`.
fn shown(text: &str) -> Stacks {
    let mut stacks = Stacks::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(thread) = line.strip_prefix("thread 0x") {
            let ident = thread.split(',').next().unwrap_or(thread);
            current = format!("0x{ident}");
            stacks.insert(current.clone(), Vec::new());
        } else if let Some((name, place)) = line.trim().split_once(" (")
            && let Some((_, number)) = place.trim_end_matches(')').rsplit_once(':')
            && let Some(stack) = stacks.get_mut(&current)
        {
            stack.push(format!("{name}:{number}"));
        }
    }
    stacks
}

#[test]
fn threads_run_what_python_says_they_run() -> Result<()> {
    let _turn = machine::beside_others();
    for python in all_programs() {
        let target = Target::spawn(Command::new(&python).arg(script("sleepers.py")))?;
        let expected = said(&target)?;
        ensure!(expected.len() == 4, "{}: {expected:#?}", python.display());
        let text = inspect(target.pid(), &[])?;
        let found = shown(&text);
        // One more has reported, and is asleep by now.
        assert_eq!(found.len(), 5, "{}: {text}", python.display());
        for (thread, stack) in &expected {
            assert_eq!(
                found.get(thread),
                Some(stack),
                "{}: {text}",
                python.display()
            );
        }
        ensure!(!text.contains("was changing"), "{text}");
    }
    Ok(())
}

/// By thread, the context that it is in, or `none`.
fn contexts_said(target: &Target) -> Result<BTreeMap<String, String>> {
    let mut contexts = BTreeMap::new();
    loop {
        let line = target.await_line("")?;
        let Some(context) = line.strip_prefix("context ") else {
            ensure!(line == "ready", "the target said {line}");
            return Ok(contexts);
        };
        let (ident, address) = context.split_once(' ').context("a thread and a context")?;
        contexts.insert(ident.to_owned(), address.to_owned());
    }
}

fn contexts_shown(text: &str) -> BTreeMap<String, String> {
    let threads = text.lines().filter(|line| line.starts_with("thread 0x"));
    let threads = threads.filter_map(|line| line.strip_prefix("thread "));
    let context = |thread: &str| {
        let mut parts = thread.split(", ");
        let ident = parts.next().unwrap_or_default().to_owned();
        let context = parts.find_map(|part| part.strip_prefix("in context "));
        (ident, context.unwrap_or("none").to_owned())
    };
    threads.map(context).collect()
}

#[test]
fn the_context_of_a_thread_is_that_of_the_task_that_it_runs() -> Result<()> {
    let _turn = machine::beside_others();
    for python in all_programs() {
        let target = Target::spawn(Command::new(&python).arg(script("contexts.py")))?;
        let expected = contexts_said(&target)?;
        ensure!(expected.len() == 6, "{}: {expected:#?}", python.display());
        let text = inspect(target.pid(), &[])?;
        assert_eq!(contexts_shown(&text), expected, "{}", python.display());
    }
    Ok(())
}

#[test]
fn a_state_behind_many_other_keys_is_found() -> Result<()> {
    let _turn = machine::beside_others();
    let keys = Fixture::PthreadKeys.build()?;
    for python in programs() {
        let mut command = Command::new(&python);
        let command = command.arg(script("sites.py")).env("LD_PRELOAD", &keys);
        let mut target = Target::spawn(command)?;
        target.await_line("ready")?;
        let text = inspect(target.pid(), &[])?;
        ensure!(text.contains("at [fsbase+0x518]+"), "{text}");
        let recorder = Recorder::start(&[target.pid()], &[])?;
        target.tell("go")?;
        target.await_line("done")?;
        let report = recorder.stop()?.report()?;
        let mut stacks = report.stacks.iter();
        let plain = stacks.find(|stack| stack.inuse_bytes == 20001);
        let plain = plain.context("a block of 20,001 bytes")?;
        let names = plain.frames.iter().map(|frame| frame.name.as_str());
        let names: Vec<_> = names
            .filter(|name| ["plain", "sites"].contains(name))
            .collect();
        assert_eq!(names, ["plain", "sites"], "{}", python.display());
    }
    Ok(())
}

#[test]
fn functions_of_a_subinterpreter_are_named() -> Result<()> {
    let _turn = machine::beside_others();
    for python in programs() {
        let mut target = Target::spawn(Command::new(&python).arg(script("subinterpreter.py")))?;
        target.await_line("ready")?;
        let text = inspect(target.pid(), &[])?;
        ensure!(text.contains("in interpreter 1"), "{text}");
        let recorder = Recorder::start(&[target.pid()], &[])?;
        target.tell("go")?;
        target.await_line("done")?;
        let report = recorder.stop()?.report()?;
        let mut stacks = report.stacks.iter();
        let leak = stacks.find(|stack| stack.inuse_bytes == 30001);
        let leak = leak.context("a block of 30,001 bytes")?;
        let is_python = |file: &Option<String>| file.as_deref() == Some("<string>");
        let frames = leak.frames.iter().filter(|frame| is_python(&frame.file));
        let frames: Vec<_> = frames.map(|it| (it.name.as_str(), it.line)).collect();
        let expected = [("in_the_subinterpreter", Some(7)), ("<module>", Some(11))];
        assert_eq!(frames, expected, "{}", python.display());
    }
    Ok(())
}

#[test]
fn a_process_without_python_is_told_apart() -> Result<()> {
    let target = Target::spawn(&mut Command::new("cat"))?;
    let failed = inspect(target.pid(), &[]).expect_err("cat is no Python");
    assert!(failed.to_string().contains("runs no Python"), "{failed}");
    Ok(())
}

#[test]
fn offsets_come_with_where_they_are_from() -> Result<()> {
    for python in all_programs() {
        let mut target = Target::spawn(Command::new(&python).arg(script("sites.py")))?;
        target.await_line("ready")?;
        let text = inspect(target.pid(), &["--offsets"])?;
        let version = text.lines().find(|line| line.starts_with("version"));
        let from = if version.is_some_and(|line| line.contains("3.13")) {
            "debug offsets"
        } else {
            "table"
        };
        let mut lines = text.lines();
        let next = lines.find(|line| line.starts_with("PyThreadState.next"));
        assert!(next.is_some_and(|line| line.ends_with(from)), "{text}");
        target.kill()?;
    }
    Ok(())
}
