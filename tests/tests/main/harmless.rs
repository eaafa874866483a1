//! However a recording begins and ends, the target's data and code are as they were.

use std::{process::Command, thread, time::Duration};

use anyhow::{Result, ensure};
use residue_tests::{
    code_bytes::{assert_clean, changed_code},
    exact::assert_exact,
    fixtures::Fixture,
    machine::{self, Knobs, PATIENCE, wait_until},
    python::pythons,
    recorder::{Recorder, report},
    target::Target,
};

/// Long enough for several intervals of the recorders here.
const A_WHILE: Duration = Duration::from_millis(1500);
const SHORT_INTERVAL: &[&str] = &["--interval", "200ms"];

fn churn(arguments: &[&str]) -> Result<Target> {
    Target::start(&Fixture::Churn.build()?, arguments)
}

/// Ends the load and checks that the target wrote and read only its own data.
fn assert_unharmed(mut target: Target) -> Result<()> {
    target.ask("stop", "pairs_per_second")?;
    target.ask_truth()?.assert_unharmed();
    ensure!(target.finish()?.success(), "the target did not exit well");
    Ok(())
}

#[test]
fn attaching_and_detaching_under_full_load_leaves_no_trace() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = churn(&["4", "2000", "10"])?;
    target.ask("load", "loading")?;
    for _ in 0..Knobs::from_env().cycles {
        let report = Recorder::start(&[target.pid()], SHORT_INTERVAL)?
            .stop()?
            .report()?;
        assert_eq!(
            report.lost("missed_free"),
            0,
            "frees are seen from before the first allocation"
        );
        assert_clean(target.pid())?;
    }
    assert_unharmed(target)
}

#[test]
fn a_recorder_that_is_killed_leaves_no_probe_and_a_capture_that_opens() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = churn(&["2", "5000", "5"])?;
    let recorder = Recorder::start(&[target.pid()], SHORT_INTERVAL)?;
    target.ask("fill", "filled")?;
    let truth = target.ask_truth()?;
    // Nothing changes any more: all that is held is older than the last interval.
    thread::sleep(A_WHILE);
    let recording = recorder.kill()?;
    assert_eq!(recording.signal(), Some(9));
    // The kernel takes the probes out when it closes the dead recorder's files.
    let pid = target.pid();
    wait_until(PATIENCE, || {
        changed_code(pid).is_ok_and(|changed| changed.is_empty())
    });
    assert_clean(pid)?;

    let report = recording.report_all_the_same()?;
    assert_eq!(report.outstanding_bytes(), truth.bytes());
    assert_eq!(report.outstanding_objects(), truth.objects());

    target.ask("load", "loading")?;
    assert_unharmed(target)
}

#[test]
fn a_recorder_that_is_killed_under_load_leaves_the_target_running() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = churn(&["4", "2000", "10"])?;
    target.ask("load", "loading")?;
    let recorder = Recorder::start(&[target.pid()], SHORT_INTERVAL)?;
    thread::sleep(A_WHILE);
    let recording = recorder.kill()?;
    let pid = target.pid();
    wait_until(PATIENCE, || {
        changed_code(pid).is_ok_and(|changed| changed.is_empty())
    });
    assert_clean(pid)?;
    let report = recording.report_all_the_same()?;
    assert!(
        report
            .stacks
            .iter()
            .any(|stack| stack.site() == Some("site_churn"))
    );
    assert_unharmed(target)
}

#[test]
fn a_target_that_is_killed_leaves_a_complete_report() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = churn(&["2", "5000", "5"])?;
    let recorder = Recorder::start(&[target.pid()], SHORT_INTERVAL)?;
    target.ask("fill", "filled")?;
    let truth = target.ask_truth()?;
    target.kill()?;
    let recording = recorder.wait(PATIENCE)?;
    let report = recording.report()?;
    assert_eq!(report.outstanding_bytes(), truth.bytes());
    assert_eq!(report.outstanding_objects(), truth.objects());
    let pid = target.pid().to_string();
    let said = recording.stderr.lines().any(|line| {
        line.contains(&pid)
            && ["ended", "exited", "killed"]
                .iter()
                .any(|word| line.contains(word))
    });
    assert!(
        said,
        "nothing says that the target ended:\n{}",
        recording.stderr
    );
    Ok(())
}

/// The kernel's code in a probed process makes system calls that no sandbox knows.
#[test]
fn a_sandboxed_target_is_recorded_unharmed() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::Sandboxed.build()?, &[])?;
    let recorder = Recorder::start(&[target.pid()], SHORT_INTERVAL)?;
    let truth = target.go()?;
    assert_exact(&truth, &recorder.stop()?.report()?);
    assert_clean(target.pid())?;
    assert!(target.finish()?.success());
    Ok(())
}

/// A child begins as a copy of its parent, with the breakpoints in its code.
#[test]
fn children_and_successors_of_a_target_run_on() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::ForkExec.build()?, &[])?;
    let recorder = Recorder::start(&[target.pid()], SHORT_INTERVAL)?;
    target.go()?.assert_unharmed();
    let report = recorder.stop()?.report()?;
    assert_clean(target.pid())?;
    assert!(target.finish()?.success());

    let sites = report.by_site();
    assert_eq!(sites["site_before_fork"].allocated_objects, Some(100));
    assert!(
        !sites.contains_key("site_in_child"),
        "children count for themselves"
    );
    Ok(())
}

/// Loads the library that it is given, when it is told to.
const LOADS: &str = "
import ctypes, sys
print('ready', flush=True)
sys.stdin.readline()
ctypes.CDLL(sys.argv[1])
print('loaded', flush=True)
sys.stdin.readline()
";

/// The kernel puts no probe into it. What one process loads ends the recording of none.
#[test]
fn a_library_that_cannot_be_probed_is_noted() -> Result<()> {
    let _turn = machine::beside_others();
    let library = Fixture::Unprobeable.build()?;
    let pythons = pythons();
    let Some(python) = pythons.last() else {
        return Ok(());
    };
    let mut command = Command::new(&python.path);
    let mut target = Target::spawn(command.args(["-c", LOADS]).arg(library))?;
    target.await_line("ready")?;
    let mut other = churn(&["1", "2000", "10"])?;
    other.ask("load", "loading")?;
    let recorder = Recorder::start(&[target.pid(), other.pid()], SHORT_INTERVAL)?;
    target.ask("go", "loaded")?;
    thread::sleep(A_WHILE);
    let recording = recorder.stop()?;
    let json = String::from_utf8(report(&recording.capture(), "json")?.stdout)?;
    assert!(json.contains("could not be probed"), "{json}");
    assert_unharmed(other)?;
    assert_clean(target.pid())
}
