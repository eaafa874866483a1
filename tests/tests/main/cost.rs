//! What being recorded costs is said, and bounded.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use residue_tests::{
    code_bytes::{assert_clean, changed_code},
    fixtures::Fixture,
    machine::{self, PATIENCE, wait_until},
    recorder::Recorder,
    target::Target,
};

/// What a second of nothing but pairs of allocations and frees comes to.
fn pairs_per_second(target: &mut Target) -> Result<f64> {
    target.ask("load", "loading")?;
    thread::sleep(Duration::from_secs(1));
    let said = target.ask("stop", "pairs_per_second")?;
    let number = said.split(' ').nth(1).context("a number")?;
    Ok(number.parse()?)
}

#[test]
fn a_process_that_is_slowed_down_too_much_is_let_go() -> Result<()> {
    let _turn = machine::alone();
    let mut target = Target::start(&Fixture::Churn.build()?, &["1", "2000", "10"])?;
    let recorder = Recorder::start_as_users_do(&[target.pid()], &["--stacks", "none"])?;
    let slow = pairs_per_second(&mut target)?;
    let pid = target.pid();
    // It is said within seconds what it costs.
    let said = recorder.await_line(&format!("note: pid {pid} (churn) is"))?;
    assert!(said.contains("times slower"), "{said}");
    target.ask("load", "loading")?;
    recorder.await_line(&format!("note: pid {pid} (churn) was"))?;
    target.ask("stop", "pairs_per_second")?;
    let clean = || changed_code(pid).is_ok_and(|changed| changed.is_empty());
    wait_until(PATIENCE, clean);
    assert_clean(pid)?;
    let quick = pairs_per_second(&mut target)?;
    assert!(quick > 5.0 * slow, "{slow} pairs a second, then {quick}");

    let recording = recorder.stop()?;
    let report = recording.report()?;
    let allocated: u64 = report.stacks.iter().map(|it| it.alloc_objects).sum();
    assert!(allocated > 0, "what was counted until then is there");
    let text = recording.render("text")?.replace("\n", " ");
    for word in ["until its probes were taken out", "--max-slowdown 2"] {
        let folded: Vec<&str> = text.split_whitespace().collect();
        assert!(
            folded.join(" ").contains(word),
            "{word:?} is not in:\n{text}"
        );
    }
    Ok(())
}

/// While it goes on it is said as often as it grows; a report has what it came to.
#[test]
fn what_it_cost_stands_once_in_a_report() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::Churn.build()?, &["1", "2000", "10"])?;
    let options = ["--stacks", "none", "--max-slowdown", "off"];
    let recorder = Recorder::start_as_users_do(&[target.pid()], &options)?;
    target.ask("load", "loading")?;
    recorder.await_line(&format!("note: pid {} (churn) is", target.pid()))?;
    target.ask("stop", "pairs_per_second")?;
    let recording = recorder.stop()?;
    let text = recording.render("text")?;
    assert_eq!(text.matches("recording made pid").count(), 1, "{text}");
    assert!(!text.contains("while it is"), "{text}");
    Ok(())
}

#[test]
fn a_process_that_allocates_little_is_not_said_to_be_slowed_down() -> Result<()> {
    let _turn = machine::alone();
    let mut target = Target::start(&Fixture::Churn.build()?, &["1", "2000", "10"])?;
    let recorder = Recorder::start_as_users_do(&[target.pid()], &[])?;
    target.ask("fill", "filled")?;
    thread::sleep(Duration::from_secs(2));
    let json = recorder.stop()?.render("json")?;
    assert!(!json.contains("slower"), "{json}");
    Ok(())
}
