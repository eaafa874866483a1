//! Every way in which Python calls Python, or C calls it: names, lines and order, and exact sizes.

use anyhow::{Result, ensure};
use residue_tests::{
    machine,
    python::{Python, Site, assert_no_gap, holding, pythons_to_run, sites, told},
    recorder::Recorder,
    report::{Report, Stack},
};

/// How many sites the target has, without the extension module and with it.
const SITES: [usize; 2] = [65, 108];

#[test]
fn python_stacks_are_those_that_python_sees() -> Result<()> {
    let _turn = machine::beside_others();
    for python in pythons_to_run() {
        let bridge = python.build_extension("bridge")?;
        compare(&python, bridge)?;
    }
    Ok(())
}

fn compare(python: &Python, bridge: bool) -> Result<()> {
    let arguments: &[&str] = if bridge { &["bridge"] } else { &[] };
    let mut target = python.start("sites.py", arguments)?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    target.tell("go")?;
    let truth = sites(&target)?;
    let report = recorder.stop()?.report()?;
    assert_eq!(truth.len(), SITES[usize::from(bridge)], "{}", python.name);
    let differences: Vec<_> = (truth.iter())
        .filter_map(|site| difference(site, &report))
        .collect();
    let (name, count) = (python.name, differences.len());
    ensure!(count == 0, "{name}: {count}\n{}", differences.concat());
    assert_no_gap(&report, name);
    Ok(())
}

/// What is not as the target says.
fn difference(site: &Site, report: &Report) -> Option<String> {
    let Site { size, frames } = site;
    let stacks: Vec<_> = holding(report, *size).collect();
    let found: Vec<_> = stacks.iter().map(|stack| told(stack)).collect();
    // Nothing but the target's own frames is to be seen where its extension allocates.
    let is_own = frames.ends_with(";allocate");
    let is_whole = |stack: &&Stack| whole(stack) == frames.split(';').count();
    let agrees = found == [frames.as_str()] && (!is_own || stacks.iter().all(is_whole));
    (!agrees).then(|| format!("{size}\n  {frames}\n  {found:#?}\n"))
}

/// How many frames a stack has that are not of the standard library's own extensions.
fn whole(stack: &Stack) -> usize {
    let is_standard = |module: &str| module.contains("/lib-dynload/");
    let frames = stack.frames.iter();
    let other = frames.filter(|frame| !frame.module.as_deref().is_some_and(is_standard));
    other.count()
}
