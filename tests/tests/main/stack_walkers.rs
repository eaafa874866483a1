//! What takes stacks inside the target sees them cut by return probes: it is named, or refused.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};
use residue_tests::{
    code_bytes::assert_clean,
    exact::assert_exact,
    fixtures::Fixture,
    machine,
    recorder::{Recorder, Recording, Refusal, record},
    target::Target,
};

/// Debian's, with profiling built in and without symbols.
const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// Debian's gperftools.
const TCMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4";

/// Records a program that runs with these variables while it works, and checks that it is unharmed.
fn recorded(variables: &[(&str, &str)]) -> Result<Recording> {
    let mut command = Command::new(Fixture::Churn.build()?);
    command.args(["2", "1000", "10"]);
    let mut target = Target::spawn(command.envs(variables.iter().copied()))?;
    target.await_line("ready")?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    target.ask("fill", "filled")?;
    target.ask("run 20000", "ns_per_pair")?;
    let truth = target.ask_truth()?;
    let recording = recorder.stop()?;
    assert_exact(&truth, &recording.report()?.only_sites());
    assert_clean(target.pid())?;
    ensure!(target.finish()?.success(), "the target did not exit well");
    Ok(recording)
}

fn assert_notes(recording: &Recording, words: &[&str]) -> Result<()> {
    let text = recording.render("text")?.replace('\n', " ");
    for word in words {
        let said = recording.stderr.contains(word);
        ensure!(said, "{word:?} is not in:\n{}", recording.stderr);
        ensure!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    Ok(())
}

/// It sees every stack end at its own call, and goes on.
#[test]
fn jemalloc_that_profiles_is_named_and_unharmed() -> Result<()> {
    let _turn = machine::beside_others();
    if !Path::new(JEMALLOC).exists() {
        machine::skipped("the package libjemalloc2");
        return Ok(());
    }
    let options = "prof:true,lg_prof_sample:10";
    let recording = recorded(&[("LD_PRELOAD", JEMALLOC), ("MALLOC_CONF", options)])?;
    assert_notes(&recording, &["libjemalloc.so.2", "prof:true"])?;
    let options = "prof:true,prof:false";
    let recording = recorded(&[("LD_PRELOAD", JEMALLOC), ("MALLOC_CONF", options)])?;
    ensure!(
        !recording.stderr.contains("stacks of its own"),
        "{}",
        recording.stderr
    );
    Ok(())
}

#[test]
fn a_preloaded_library_that_takes_stacks_is_named_and_the_target_unharmed() -> Result<()> {
    let _turn = machine::beside_others();
    let library = Fixture::StackTaker.build()?.display().to_string();
    let recording = recorded(&[("LD_PRELOAD", &library)])?;
    assert_notes(&recording, &["libstack_taker.so", "calls backtrace"])
}

/// gperftools marks the variable as used, by a byte that is no text.
#[test]
fn the_heap_profiler_of_gperftools_is_named_and_unharmed() -> Result<()> {
    let _turn = machine::beside_others();
    if !Path::new(TCMALLOC).exists() {
        machine::skipped("the package libgoogle-perftools4");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let profile = directory.path().join("heap").display().to_string();
    let recording = recorded(&[("LD_PRELOAD", TCMALLOC), ("HEAPPROFILE", &profile)])?;
    assert_notes(
        &recording,
        &["libtcmalloc.so", "the heap profiler of gperftools"],
    )
}

/// The one is linked with the sanitizer's library; the other contains it, and has no symbols.
#[test]
fn a_program_with_a_sanitizer_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    for (fixture, name) in [
        (Fixture::Sanitized, "AddressSanitizer"),
        (Fixture::SanitizedStatic, "a sanitizer"),
    ] {
        let mut target = Target::start(&fixture.build()?, &[])?;
        let directory = tempfile::tempdir()?;
        let mut command = record(&[target.pid()], &directory.path().join("refused.residue"))?;
        let refusal = Refusal::of(command.args(["-d", "1s"]))?;
        refusal.assert_says(&[name, "return probe", "detect_leaks=1", "--rss-only"]);
        ensure!(target.is_running()?, "the target has ended");
        assert_clean(target.pid())?;
    }
    Ok(())
}
