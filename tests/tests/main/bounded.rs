//! What does not fit is counted, and said where it cannot be missed.

use anyhow::Result;
use residue_tests::{fixtures::Fixture, machine, recorder::Recorder, target::Target};

#[test]
fn with_a_full_live_set_outstanding_and_lost_add_up_to_the_truth() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::Churn.build()?, &["2", "50000", "3"])?;
    let recorder = Recorder::start(&[target.pid()], &["--max-live", "1000"])?;
    target.ask("fill", "filled")?;
    let recording = recorder.stop()?;
    let (truth, report) = (target.ask_truth()?, recording.report()?);

    let objects = report.outstanding_objects();
    assert!(
        (1000..=2004).contains(&objects),
        "room for 1000 is promised, and twice that is there; {objects} are tracked"
    );
    assert_eq!(objects + report.lost("live_set_full"), truth.objects());
    assert_eq!(
        report.outstanding_bytes() + report.lost("live_set_full_bytes"),
        truth.bytes()
    );

    let text = recording.render("text")?;
    let top: String = text.lines().take(12).collect::<Vec<_>>().join("\n");
    assert!(
        top.contains("--max-live"),
        "the top does not say what was lost:\n{top}"
    );
    Ok(())
}

#[test]
fn a_target_runs_on_unharmed_while_the_live_set_is_full() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::Churn.build()?, &["4", "20000", "3"])?;
    let recorder = Recorder::start(&[target.pid()], &["--max-live", "100"])?;
    target.ask("fill", "filled")?;
    target.ask("run 200000", "ns_per_pair")?;
    let report = recorder.stop()?.report()?;
    assert!(report.lost("live_set_full") > 0);
    assert!(report.outstanding_objects() <= 210);
    target.ask("run 200000", "ns_per_pair")?;
    target.ask_truth()?.assert_unharmed();
    Ok(())
}

#[test]
fn with_a_full_stack_table_every_byte_is_still_counted() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = Target::start(&Fixture::Stacks.build()?, &[])?;
    let recorder = Recorder::start(&[target.pid()], &["--max-stacks", "100"])?;
    let truth = target.go()?;
    let report = recorder.stop()?.report()?;
    assert!(report.lost("stack_table_full") > 0);
    assert_eq!(report.outstanding_bytes(), truth.bytes());
    assert_eq!(report.outstanding_objects(), truth.objects());
    Ok(())
}
