//! At the barrier, what residue calls outstanding is what the target holds: site by site, to the
//! byte, with nothing lost.

use std::{process::Command, thread, time::Duration};

use anyhow::{Result, ensure};
use residue_tests::{
    code_bytes::assert_clean,
    exact::{assert_exact, assert_exact_command},
    fixtures::Fixture,
    machine::{self, Knobs},
    recorder::Recorder,
    target::Target,
    truth::Truth,
};

/// Records the fixture's whole run, as often as asked for, and compares each time.
fn exact_in_every_run(fixture: Fixture, arguments: &[&str]) -> Result<()> {
    let _turn = machine::beside_others();
    if !fixture.can_be_had() {
        return Ok(());
    }
    let program = fixture.build()?;
    for _ in 0..Knobs::from_env().runs {
        let mut target = Target::start(&program, arguments)?;
        let recorder = Recorder::start(&[target.pid()], &[])?;
        let truth = target.go()?;
        assert_exact(&truth, &recorder.stop()?.report()?);
        assert_clean(target.pid())?;
        ensure!(target.finish()?.success(), "the target did not exit well");
    }
    Ok(())
}

fn calls() -> String {
    Knobs::from_env().calls.to_string()
}

/// A call of the Rust targets is several allocator calls: their vectors grow.
fn calls_in_rust() -> String {
    (Knobs::from_env().calls / 4).to_string()
}

#[test]
fn every_function_of_the_malloc_family_is_exact() -> Result<()> {
    exact_in_every_run(Fixture::HeapWalk, &[&calls()])
}

#[test]
fn every_kind_of_new_and_delete_is_exact() -> Result<()> {
    exact_in_every_run(Fixture::HeapWalkCpp, &[])
}

#[test]
fn a_static_musl_program_is_exact() -> Result<()> {
    exact_in_every_run(Fixture::HeapWalkMusl, &[&calls()])
}

#[test]
fn rust_on_the_system_allocator_is_exact() -> Result<()> {
    exact_in_every_run(Fixture::RustSystem, &[&calls_in_rust()])
}

#[test]
fn rust_on_a_static_jemalloc_is_exact() -> Result<()> {
    exact_in_every_run(Fixture::RustJemalloc, &[&calls_in_rust()])
}

#[test]
fn rust_on_a_static_mimalloc_is_exact() -> Result<()> {
    exact_in_every_run(Fixture::RustMimalloc, &[&calls_in_rust()])
}

#[test]
fn ten_thousand_stacks_are_told_apart() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::Stacks.build()?, &[])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    let truth = target.go()?;
    let report = recorder.stop()?.report()?;
    assert_exact(&truth, &report);
    let of_site = report
        .stacks
        .iter()
        .filter(|stack| stack.site() == Some("site_stacks"));
    assert_eq!(of_site.count(), 10_000);
    Ok(())
}

/// The second library has a malloc of its own. Probes are put into it after it appeared, so the
/// target gives residue a moment before it uses it.
#[test]
fn libraries_loaded_during_the_recording_are_exact() -> Result<()> {
    let _turn = machine::beside_others();
    let (plugin, bundled) = (Fixture::Plugin.build()?, Fixture::Bundled.build()?);
    let paths = [plugin.display().to_string(), bundled.display().to_string()];
    let mut target = Target::start(&Fixture::Dlopen.build()?, &[&paths[0], &paths[1]])?;
    let recorder = Recorder::start(&[target.pid()], &["--interval", "200ms"])?;
    target.ask("go", "loaded")?;
    thread::sleep(Duration::from_secs(2));
    let truth = target.go()?;
    // What the loader keeps about the libraries is in no site.
    let report = recorder.stop()?.report()?.only_sites();
    assert_exact(&truth, &report);
    Ok(())
}

#[test]
fn two_recorders_on_one_target_are_both_exact() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::HeapWalk.build()?, &["20000"])?;
    let first = Recorder::start(&[target.pid()], &[])?;
    let second = Recorder::start(&[target.pid()], &[])?;
    let truth = target.go()?;
    let (first, second) = (first.stop()?, second.stop()?);
    assert_exact(&truth, &first.report()?);
    assert_exact(&truth, &second.report()?);
    assert_clean(target.pid())
}

#[test]
fn two_targets_of_one_recorder_are_added_up() -> Result<()> {
    let _turn = machine::beside_others();
    let program = Fixture::HeapWalk.build()?;
    let mut targets = [
        Target::start(&program, &["8000"])?,
        Target::start(&program, &["0"])?,
    ];
    let recorder = Recorder::start(&[targets[0].pid(), targets[1].pid()], &[])?;
    let truths = [targets[0].go()?, targets[1].go()?];
    let report = recorder.stop()?.report()?;
    let expected: u64 = truths.iter().map(Truth::bytes).sum();
    assert_eq!(report.outstanding_bytes(), expected);
    Ok(())
}

/// A shell that starts two fixtures; only their pids' parent is named.
#[test]
fn the_descendants_of_a_process_are_recorded_with_it() -> Result<()> {
    let _turn = machine::beside_others();
    let program = Fixture::Churn.build()?;
    // The shell hands its standard input to the child, and waits for it.
    let script = format!("{} 1 500 1; true", program.display());
    let mut shell = Target::spawn(Command::new("sh").args(["-c", &script]))?;
    shell.await_line("ready")?;
    let recorder = Recorder::start(&[shell.pid()], &["--children"])?;
    shell.ask("fill", "filled")?;
    let truth = shell.ask_truth()?;
    let report = recorder.stop()?.report()?.only_sites();
    assert_exact(&truth, &report);
    Ok(())
}

/// Everything from the first instruction is counted, so the C library's and the target's own
/// preparations are as well; they are in no site.
#[test]
fn a_command_that_residue_starts_is_exact_from_its_beginning() -> Result<()> {
    let _turn = machine::beside_others();
    assert_exact_command(&Fixture::HeapWalk.build()?)
}
