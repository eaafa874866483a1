//! Packages as they come from PyPI: their native code, stripped and with allocators' habits of its own,
//! between the right Python frames, and with exact sizes.

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    machine,
    python::{Python, Site, assert_no_gap, holding, python_frame, pythons, sites},
    recorder::Recorder,
    report::{Frame, Report, Stack},
};

const PACKAGES: [&str; 3] = ["numpy", "lxml", "orjson"];
/// One whose library is shared, and the static one.
const INTERPRETERS: [&str; 2] = ["3.13", "debian"];

#[test]
fn packages_of_pypi_stand_between_the_python_frames_that_call_them() -> Result<()> {
    let _turn = machine::beside_others();
    let chosen = |python: &Python| INTERPRETERS.contains(&python.name);
    for python in pythons().into_iter().filter(chosen) {
        if let Some(python) = python.with_packages(&PACKAGES)? {
            compare(&python).with_context(|| python.name)?;
        }
    }
    Ok(())
}

fn compare(python: &Python) -> Result<()> {
    let mut target = python.start("packages.py", &[])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    target.tell("go")?;
    let truth = sites(&target)?;
    let report = recorder.stop()?.report()?;
    assert_eq!(truth.len(), 11, "{truth:#?}");
    let differences: Vec<_> = (truth.iter())
        .filter_map(|site| difference(site, &report))
        .collect();
    ensure!(differences.is_empty(), "{}", differences.concat());
    assert_no_gap(&report, python.name);
    Ok(())
}

fn difference(site: &Site, report: &Report) -> Option<String> {
    let Site { size, frames } = site;
    if frames.ends_with(";lxml") || frames.ends_with(";orjson") {
        return of_about(*size, frames, report);
    }
    let found: Vec<_> = holding(report, *size).map(with_packages).collect();
    (found != [frames.as_str()]).then(|| format!("{size}\n  {frames}\n  {found:#?}\n"))
}

/// What one stack holds whose block the C library has rounded up to pages; or a tree of 10,001 elements
/// and 5,000 texts, each of which takes a block at least.
fn of_about(size: u64, frames: &str, report: &Report) -> Option<String> {
    const PAGE: u64 = 4096;
    let stacks = report.stacks.iter();
    let of_site = stacks.filter(|stack| with_packages(stack) == frames);
    let held = of_site.map(|stack| (stack.inuse_bytes, stack.inuse_objects));
    let (bytes, blocks) = held.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    let agrees = match size {
        0 => blocks >= 15_000,
        _ => blocks == 1 && (size - 2 * PAGE..=size).contains(&bytes),
    };
    (!agrees).then(|| format!("{bytes} bytes in {blocks} blocks\n  {size} {frames}\n"))
}

/// Outermost first: Python's frames, and the name of a package for its native ones in a row.
fn with_packages(stack: &Stack) -> String {
    let mut frames: Vec<_> = stack.frames.iter().rev().filter_map(tell).collect();
    frames.dedup_by(|a, b| a == b && PACKAGES.contains(&a.as_str()));
    frames.join(";")
}

fn tell(frame: &Frame) -> Option<String> {
    python_frame(frame).or_else(|| {
        let module = frame.module.as_deref()?;
        let mut packages = PACKAGES.into_iter();
        let of_package = |name: &&str| module.contains(&format!("/site-packages/{name}"));
        packages.find(of_package).map(str::to_owned)
    })
}
