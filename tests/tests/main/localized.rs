//! Functions that the linker made local are found where calls go to them, and only there.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use residue_tests::{
    code_bytes::assert_clean,
    exact::{assert_exact, assert_exact_command},
    fixtures::Fixture,
    machine,
    recorder::{Recorder, Recording, Refusal, record},
    target::Target,
    truth::Truth,
};
use tempfile::TempDir;

fn exact(fixture: Fixture, arguments: &[&str]) -> Result<()> {
    let _turn = machine::beside_others();
    if !fixture.can_be_had() {
        return Ok(());
    }
    let mut target = Target::start(&fixture.build()?, arguments)?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    let truth = target.go()?;
    assert_exact(&truth, &recorder.stop()?.report()?);
    assert_clean(target.pid())
}

/// glibc's `malloc` is a local symbol there.
#[test]
fn a_static_pie_program_is_exact() -> Result<()> {
    exact(Fixture::HeapWalkStaticPie, &["8000"])
}

#[test]
fn a_static_pie_program_on_musl_is_exact() -> Result<()> {
    exact(Fixture::HeapWalkStaticPieMusl, &["8000"])
}

/// `operator new` calls that `malloc`.
#[test]
fn a_static_pie_program_in_cpp_is_exact() -> Result<()> {
    exact(Fixture::HeapWalkStaticPieCpp, &[])
}

/// It maps no C library for which residue could wait.
#[test]
fn a_static_pie_command_is_exact_from_its_beginning() -> Result<()> {
    let _turn = machine::beside_others();
    assert_exact_command(&Fixture::HeapWalkStaticPie.build()?)
}

/// A copy of a fixture, changed by a tool of binutils.
fn changed(fixture: Fixture, tool: &[&str]) -> Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    let copy = directory.path().join("changed");
    machine::copy_program(&fixture.build()?, &copy)?;
    let done = Command::new(tool[0]).args(&tool[1..]).arg(&copy).status()?;
    ensure!(done.success(), "{tool:?} failed");
    Ok((directory, copy))
}

#[test]
fn a_static_pie_program_without_symbols_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    let (directory, program) = changed(Fixture::HeapWalkStaticPie, &["strip"])?;
    let target = Target::start(&program, &["0"])?;
    let mut command = record(&[target.pid()], &directory.path().join("refused.residue"))?;
    let refusal = Refusal::of(command.args(["-d", "1s"]))?;
    refusal.assert_says(&["statically linked", "symbols", "not stripped", "--rss-only"]);
    assert_clean(target.pid())
}

/// As where the compiler has put all of `malloc` into its callers.
#[test]
fn frees_whose_malloc_is_not_found_are_named_and_counted() -> Result<()> {
    let _turn = machine::beside_others();
    let remove = ["objcopy", "--strip-symbol=malloc"];
    let (_directory, program) = changed(Fixture::HeapWalkStaticPie, &remove)?;
    let mut target = Target::start(&program, &["8000"])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    target.go()?;
    let recording = recorder.stop()?;
    ensure!(
        recording.stderr.contains("malloc in") && recording.stderr.contains("not probed"),
        "{}",
        recording.stderr
    );
    let report = recording.report()?;
    assert!(report.lost("free_unseen") > 0, "{:?}", report.losses());
    assert_eq!(report.notes["free_unmatched"], 0);
    let text = recording.render("text")?;
    assert!(text.starts_with("LOST"), "{text}");
    Ok(())
}

/// Loads a library on the C library's allocator, then `library`, and records what both do.
fn loading(library: Fixture) -> Result<(Truth, Recording)> {
    let plugin = Fixture::Plugin.build()?;
    let library = library.build()?;
    let path = |path: &Path| path.display().to_string();
    let (plugin, library) = (path(&plugin), path(&library));
    let mut target = Target::start(&Fixture::Dlopen.build()?, &[&plugin, &library])?;
    let recorder = Recorder::start(&[target.pid()], &["--interval", "200ms"])?;
    target.ask("go", "loaded")?;
    thread::sleep(Duration::from_secs(1));
    Ok((target.go()?, recorder.stop()?))
}

fn exact_when_loaded(library: Fixture) -> Result<()> {
    let _turn = machine::beside_others();
    let (truth, recording) = loading(library)?;
    // What the loader keeps about the libraries is in no site.
    assert_exact(&truth, &recording.report()?.only_sites());
    Ok(())
}

#[test]
fn an_allocator_that_a_version_script_hides_is_exact() -> Result<()> {
    exact_when_loaded(Fixture::BundledPrivately)
}

#[test]
fn an_allocator_that_link_time_optimization_hides_is_exact() -> Result<()> {
    exact_when_loaded(Fixture::BundledByLto)
}

/// Its free has lost its argument: what is freed cannot be known.
#[test]
fn an_allocator_that_link_time_optimization_changes_is_named() -> Result<()> {
    let _turn = machine::beside_others();
    let (_, recording) = loading(Fixture::BundledChanged)?;
    let report = recording.report()?;
    assert!(!report.by_site().contains_key("site_in_bundled"));
    ensure!(
        recording.stderr.contains("free.constprop.0 in"),
        "{}",
        recording.stderr
    );
    Ok(())
}

/// A `static` function of one source file; the others call the C library's, which the library imports.
#[test]
fn a_local_malloc_beside_an_imported_one_is_left_alone() -> Result<()> {
    exact_when_loaded(Fixture::FalseFriends)
}

#[test]
fn the_dynamic_linkers_own_malloc_is_left_alone() -> Result<()> {
    exact_when_loaded(Fixture::FalseFriendsOfLinker)
}
