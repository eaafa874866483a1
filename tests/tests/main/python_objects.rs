//! Python's own allocator: objects by samples, pools, and what malloc serves beside them.

use std::{collections::BTreeMap, path::Path, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    machine::{self, Knobs},
    python::{all_programs, programs},
    recorder::{Recorder, Recording},
    report::{Report, Stack},
    target::Target,
};

/// Samples as close as they can be: then each block of 512 bytes is one.
const EVERY_512: &str = "--python-objects=512";
/// Entries that the cache of a growing target is given.
const ENTRIES: u64 = 20_000;
/// So many objects stay of each round, of 272 bytes on average: the standard error of a round is 0.8 %.
const KEPT: u64 = 479 * 21;

fn start(python: &Path, environment: &[(&str, &str)]) -> Result<Target> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/python/objects.py");
    let mut command = Command::new(python);
    let target = Target::spawn(command.arg(script).envs(environment.iter().copied()))?;
    target.await_line("ready")?;
    Ok(target)
}

/// Has the target do something, and returns what it prints.
fn run(target: &mut Target, command: &str) -> Result<Vec<String>> {
    target.tell(command)?;
    let mut lines = Vec::new();
    loop {
        match target.await_line("")? {
            line if line == "done" => return Ok(lines),
            line => lines.push(line),
        }
    }
}

fn record(target: &mut Target, arguments: &[&str], commands: &[&str]) -> Result<Recording> {
    let recorder = Recorder::start(&[target.pid()], arguments)?;
    for command in commands {
        run(target, command)?;
    }
    recorder.stop()
}

/// Function and line of the innermost Python frame in a file.
fn line_in<'a>(stack: &'a Stack, file: &str) -> Option<(&'a str, u32)> {
    let mut frames = stack.frames.iter();
    let is_in_file = |name: &str| name.ends_with(file);
    let frame = frames.find(|frame| frame.file.as_deref().is_some_and(is_in_file))?;
    Some((frame.name.as_str(), frame.line?))
}

fn function(stack: &Stack) -> &str {
    line_in(stack, "objects.py").map_or("", |(function, _)| function)
}

/// Whether a Python has its allocator inlined all over, as distributions build it.
fn is_optimized(python: &Path) -> bool {
    python.starts_with("/usr")
}

#[test]
fn a_cache_that_grows_by_small_entries_is_found_at_its_line() -> Result<()> {
    let _turn = machine::beside_others();
    for python in programs() {
        let mut target = start(&python, &[])?;
        let grow = format!("grow {ENTRIES}");
        let recording = record(&mut target, &["--python-objects"], &[&grow])?;
        let report = recording.report()?;
        assert_pools(&python, &report);
        if is_optimized(&python) {
            ensure!(recording.stderr.contains("inlined"), "{}", recording.stderr);
            assert_eq!(report.python_objects.len(), 0);
            continue;
        }
        ensure!(
            recording.stderr.contains("every Python object costs"),
            "{}",
            recording.stderr
        );
        let top = report.python_objects.first().context("there are samples")?;
        let name = python.display();
        assert_eq!(function(top), "request", "{name}: {top:#?}");
        // A tuple of two and what the collector needs: 56 bytes from 3.8 on.
        let exact = ENTRIES as f64 * 56.0;
        let error = 5.0 * (8192.0 / exact).sqrt();
        let found = top.inuse_bytes as f64 / exact;
        assert!((found - 1.0).abs() < error, "{name}: {found} of the bytes");
        let objects = top.inuse_objects as f64 / ENTRIES as f64;
        assert!(
            (objects - 1.0).abs() < error,
            "{name}: {objects} of the objects"
        );
        let calls = report.notes["python_object_calls"];
        assert!(calls >= 3 * ENTRIES, "{name}: {calls} calls");
    }
    Ok(())
}

/// Pools point at the same function, wherever what takes them is known.
fn assert_pools(python: &Path, report: &Report) {
    let name = python.display();
    if name.to_string().contains("/3.8") {
        assert_eq!(report.python_pools.len(), 0, "{name}");
        return;
    }
    let mut by_function: BTreeMap<&str, u64> = BTreeMap::new();
    for stack in &report.python_pools {
        *by_function.entry(function(stack)).or_default() += stack.inuse_bytes;
    }
    let most = by_function.iter().max_by_key(|(_, bytes)| **bytes);
    assert_eq!(
        most.map(|(function, _)| *function),
        Some("request"),
        "{name}: {by_function:?}"
    );
    // A pool holds a little less than its size in entries, of 56 or 64 bytes.
    let bytes = by_function["request"] as f64 / (ENTRIES as f64 * 64.0);
    assert!(
        (0.85..1.15).contains(&bytes),
        "{name}: {bytes} of the entries' bytes in pools"
    );
}

#[test]
fn estimates_are_close_to_what_tracemalloc_counts_and_unbiased() -> Result<()> {
    let _turn = machine::beside_others();
    let rounds = u64::from(20 * Knobs::from_env().runs);
    let mut means = Vec::new();
    let pythons = programs();
    for (index, python) in pythons.iter().filter(|it| !is_optimized(it)).enumerate() {
        let mut target = start(python, &[])?;
        // Its hooks may be there before residue is, or come later.
        let traced_before = index % 2 == 0;
        if traced_before {
            run(&mut target, "trace")?;
        }
        let recorder = Recorder::start(&[target.pid()], &[EVERY_512])?;
        if !traced_before {
            run(&mut target, "trace")?;
        }
        run(&mut target, &format!("rounds {rounds} {KEPT}"))?;
        let report = recorder.stop()?.report()?;
        let truth = run(&mut target, "truth")?;
        let ratios = ratios(&report, &truth)?;
        let name = python.display();
        assert_eq!(ratios.len() as u64, rounds, "{name}");
        for ratio in &ratios {
            assert!((ratio - 1.0).abs() < 0.05, "{name}: {ratios:?}");
        }
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        eprintln!("{name}: mean of {rounds} rounds {mean:.4}");
        assert!((mean - 1.0).abs() < 0.01, "{name}: on average {mean}");
        means.push(mean);
    }
    let mean = means.iter().sum::<f64>() / means.len().max(1) as f64;
    assert!(
        means.is_empty() || (mean - 1.0).abs() < 0.005,
        "over all versions {mean}"
    );
    Ok(())
}

/// For each line that keeps something: what residue says over what tracemalloc says.
fn ratios(report: &Report, truth: &[String]) -> Result<Vec<f64>> {
    let mut found: BTreeMap<u32, u64> = BTreeMap::new();
    for stack in &report.python_objects {
        if let Some((_, line)) = line_in(stack, "rounds.py") {
            *found.entry(line).or_default() += stack.inuse_bytes;
        }
    }
    let mut ratios = Vec::new();
    for line in truth {
        let numbers = line.strip_prefix("line ").context("a line")?.split(' ');
        let numbers: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>()?;
        let [line, bytes, objects] = numbers[..] else {
            anyhow::bail!("three numbers: {numbers:?}");
        };
        // One byte alone is an object that is there already.
        if objects >= KEPT - KEPT / 100 {
            let found = found.get(&(line as u32)).copied().unwrap_or(0);
            ratios.push(found as f64 / bytes as f64);
        }
    }
    Ok(ratios)
}

/// Outstanding bytes and blocks by function, of those that were asked for through ctypes.
fn by_function(stacks: &[Stack]) -> BTreeMap<&str, (u64, u64)> {
    let mut by_function = BTreeMap::new();
    let is_call = |stack: &&Stack| {
        let mut modules = stack.frames.iter().filter_map(|it| it.module.as_deref());
        modules.any(|module| module.contains("libffi"))
    };
    for stack in stacks.iter().filter(is_call) {
        let held: &mut (u64, u64) = by_function.entry(function(stack)).or_default();
        held.0 += stack.inuse_bytes;
        held.1 += stack.inuse_objects;
    }
    by_function.retain(|_, held| *held != (0, 0));
    by_function
}

#[test]
fn no_block_counts_both_as_pythons_and_as_mallocs() -> Result<()> {
    let _turn = machine::beside_others();
    let pythons = programs();
    for python in pythons.iter().filter(|it| !is_optimized(it)) {
        let mut target = start(python, &[])?;
        let report = record(&mut target, &[EVERY_512], &["realloc"])?.report()?;
        let name = python.display();
        let objects = [("moved", (50 * 512, 50)), ("small", (50 * 512, 50))];
        assert_eq!(
            by_function(&report.python_objects),
            BTreeMap::from(objects),
            "{name}"
        );
        let blocks = [("grown", (50 * 20_001, 50)), ("shrunk", (50 * 512, 50))];
        assert_eq!(
            by_function(&report.stacks),
            BTreeMap::from(blocks),
            "{name}"
        );
        assert_eq!(report.losses(), BTreeMap::new(), "{name}");
    }
    Ok(())
}

#[test]
fn a_python_that_uses_malloc_is_counted_there_alone() -> Result<()> {
    let _turn = machine::beside_others();
    let pythons = all_programs();
    for python in pythons.first().into_iter().chain(pythons.last()) {
        let mut target = start(python, &[("PYTHONMALLOC", "malloc")])?;
        let grow = format!("grow {ENTRIES}");
        let recording = record(&mut target, &[EVERY_512], &[&grow])?;
        let report = recording.report()?;
        let said = &recording.stderr;
        ensure!(
            said.contains("PYTHONMALLOC=malloc"),
            "{}: {said}",
            python.display()
        );
        assert_eq!(report.python_objects.len(), 0);
        let blocks = report.stacks.iter().filter(|it| function(it) == "request");
        let entries: u64 = blocks.map(|stack| stack.inuse_objects).sum();
        // A few tuples come from those that the interpreter keeps.
        let enough = ENTRIES - ENTRIES / 100;
        assert!(entries >= enough, "{}: {entries}", python.display());
    }
    Ok(())
}

#[test]
fn a_python_with_debug_hooks_is_sampled_behind_them() -> Result<()> {
    let _turn = machine::beside_others();
    let pythons = all_programs();
    let pythons: Vec<PathBuf> = pythons.into_iter().filter(|it| !is_optimized(it)).collect();
    // The oldest and the newest: what the hooks keep has moved between them.
    for python in pythons.first().into_iter().chain(pythons.last()) {
        let mut target = start(python, &[("PYTHONMALLOC", "debug")])?;
        let grow = format!("grow {ENTRIES}");
        let recording = record(&mut target, &["--python-objects"], &[&grow])?;
        ensure!(recording.stderr.contains("hooks"), "{}", recording.stderr);
        let report = recording.report()?;
        let top = report.python_objects.first().context("there are samples")?;
        assert_eq!(function(top), "request", "{}", python.display());
    }
    Ok(())
}
