//! Which processes are named and counted.

use super::*;

#[test]
fn a_process_that_was_not_recorded_is_in_no_heading_and_no_count() -> TestResult {
    let mut capture = capture();
    for (number, why) in [(1, "not recorded: it may not be traced"), (2, "exited")] {
        let process = Process {
            number: ProcessNumber(number),
            pid: 5,
            comm: "worker".into(),
            ..Process::default()
        };
        let ended = Ended {
            at_ns: 1,
            reason: why.to_owned(),
        };
        capture.processes.push((process, Some(ended)));
    }
    let text = render_text(&capture, Format::Text, Measure::Outstanding)?;
    let whole: Vec<&str> = text.split_whitespace().collect();
    let whole = whole.join(" ");
    assert!(whole.contains("gunicorn (pid 4242) and 1 more"), "{text}");
    assert!(whole.contains("in 1 of 2 processes"), "{text}");
    assert!(
        whole.contains("not recorded: it may not be traced"),
        "{text}"
    );
    Ok(())
}
