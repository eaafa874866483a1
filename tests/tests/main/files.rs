//! Files of a target, as whoever is recorded may make them: none of them hangs or ends a recording, and what
//! is read is the target's own.

mod hostile;
mod outside;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    fixtures::Fixture,
    machine,
    recorder::{Recorder, Recording},
    report::Report,
    target::Target,
};
use rustix::fs::{CWD, Mode, mkfifoat};
use tempfile::TempDir;

/// What one call of a function of the fixture leaves behind.
const BLOCKS: u64 = 10;
const BYTES: u64 = 10 * 1000;
/// Longer than two intervals: what was allocated is written, with its names.
const WRITTEN: Duration = Duration::from_millis(2500);
/// How long the end of a recording may take.
const END: Duration = Duration::from_secs(20);

/// A copy of a fixture in a directory of its own, where it can be changed.
fn copy_of(fixture: Fixture, into: &Path, name: &str) -> Result<PathBuf> {
    let copy = into.join(name);
    machine::copy_program(&fixture.build()?, &copy)?;
    Ok(copy)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output();
    let output = output.with_context(|| format!("failed to start {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {errors}");
    Ok(())
}

/// Strips a program, which links to a debug file beside it. Returns the path of that.
pub(crate) fn split(program: &Path) -> Result<PathBuf> {
    let debug = program.with_extension("debug");
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .args([program, &debug]))?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    run(Command::new("objcopy")
        .args(["--strip-all", &link])
        .arg(program))?;
    Ok(debug)
}

fn call(target: &mut Target, what: &str) -> Result<()> {
    target.ask(&format!("call {what}"), "called").map(drop)
}

/// Records one call, and ends the recording as Ctrl-C does.
fn record_one_call(target: &mut Target, what: &str) -> Result<Recording> {
    let recorder = Recorder::start(&[target.pid()], &[])?;
    call(target, what)?;
    recorder.stop_within(END)
}

/// Panics unless everything was counted that `calls` calls have left behind.
fn assert_counted(report: &Report, calls: u64) {
    let bytes: u64 = report.stacks.iter().map(|it| it.inuse_bytes).sum();
    let blocks: u64 = report.stacks.iter().map(|it| it.inuse_objects).sum();
    assert_eq!((bytes, blocks), (calls * BYTES, calls * BLOCKS));
}

/// Whether any frame has this name.
fn names(report: &Report, name: &str) -> bool {
    let mut frames = report.stacks.iter().flat_map(|stack| &stack.frames);
    frames.any(|frame| frame.function() == name)
}

fn directory() -> Result<TempDir> {
    tempfile::tempdir().context("failed to make a directory")
}

#[test]
fn a_debug_file_beside_the_program_names_its_functions() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = directory()?;
    let program = copy_of(Fixture::Named, directory.path(), "named")?;
    split(&program)?;
    let mut target = Target::start(&program, &[])?;
    let report = record_one_call(&mut target, "0 in_program")?.report()?;
    assert_counted(&report, 1);
    assert!(names(&report, "in_program"), "{:?}", report.stacks);
    Ok(())
}

#[test]
fn a_fifo_as_debug_file_does_not_hang_a_recording() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = directory()?;
    let program = copy_of(Fixture::Named, directory.path(), "named")?;
    let debug = split(&program)?;
    fs::remove_file(&debug)?;
    mkfifoat(CWD, &debug, Mode::RWXU)?;
    let mut target = Target::start(&program, &[])?;
    let report = record_one_call(&mut target, "0 in_program")?.report()?;
    assert_counted(&report, 1);
    Ok(())
}

/// Its checksum would have to be taken, and its sections are where nothing was written.
#[test]
fn a_debug_file_without_end_does_not_hang_a_recording() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = directory()?;
    let program = copy_of(Fixture::Named, directory.path(), "named")?;
    let debug = split(&program)?;
    fs::File::options()
        .write(true)
        .open(&debug)?
        .set_len(1 << 40)?;
    let mut target = Target::start(&program, &[])?;
    let report = record_one_call(&mut target, "0 in_program")?.report()?;
    assert_counted(&report, 1);
    Ok(())
}

/// As a package upgrade may do it. The part that the target has mapped stays, so the target lives on.
#[test]
fn a_library_that_is_cut_off_does_not_end_a_recording() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = directory()?;
    let library = copy_of(Fixture::NamedLibrary, directory.path(), "libnamed.so")?;
    let mapped = end_of_segments(&library)?;
    let mut target = Target::start(&Fixture::Named.build()?, &[path(&library)?])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    call(&mut target, "1 called_early")?;
    std::thread::sleep(WRITTEN);
    fs::File::options()
        .write(true)
        .open(&library)?
        .set_len(mapped)?;
    call(&mut target, "1 called_late")?;
    let report = recorder.stop_within(END)?.report()?;
    assert_counted(&report, 2);
    // What was copied at the first is read for the second.
    for function in ["called_early", "called_late"] {
        assert!(names(&report, function), "{function}: {:?}", report.stacks);
    }
    Ok(())
}

#[test]
fn a_debug_file_that_is_cut_off_does_not_end_a_recording() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = directory()?;
    let library = copy_of(Fixture::NamedLibrary, directory.path(), "libnamed.so")?;
    let debug = split(&library)?;
    let mut target = Target::start(&Fixture::Named.build()?, &[path(&library)?])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    call(&mut target, "1 called_early")?;
    std::thread::sleep(WRITTEN);
    fs::File::options().write(true).open(&debug)?.set_len(0)?;
    call(&mut target, "1 called_late")?;
    let report = recorder.stop_within(END)?.report()?;
    assert_counted(&report, 2);
    // What was copied at the first is read for the second.
    for function in ["called_early", "called_late"] {
        assert!(names(&report, function), "{function}: {:?}", report.stacks);
    }
    Ok(())
}

/// The kernel says `libnamed.so (deleted)` of a file that is gone, which may be the name of something else.
#[test]
fn what_has_the_name_of_a_library_by_now_is_not_opened() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = directory()?;
    let library = copy_of(Fixture::NamedLibrary, directory.path(), "libnamed.so")?;
    let mut target = Target::start(&Fixture::Named.build()?, &[path(&library)?])?;
    fs::remove_file(&library)?;
    let by_now = directory.path().join("libnamed.so (deleted)");
    mkfifoat(CWD, by_now, Mode::RWXU)?;
    let report = record_one_call(&mut target, "1 called_early")?.report()?;
    assert_counted(&report, 1);
    assert!(names(&report, "called_early"), "{:?}", report.stacks);
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path of ours is text")
}

/// Where what is loaded of an ELF file ends in it, in whole pages.
fn end_of_segments(path: &Path) -> Result<u64> {
    use object::{Object as _, ObjectSegment as _};
    let whole = fs::read(path)?;
    let elf = object::File::parse(&*whole)?;
    let ends = elf
        .segments()
        .map(|it| it.file_range().0 + it.file_range().1);
    let end = ends.max().context("it has segments")?;
    ensure!(end < whole.len() as u64, "nothing can be cut off");
    Ok(end)
}
