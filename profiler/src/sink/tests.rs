//! Sinks side by side, of which some fail.

use std::{cell::RefCell, io, rc::Rc};

use super::*;

/// What a sink has heard, in order.
type Heard = Rc<RefCell<Vec<String>>>;

/// Remembers what it hears, and fails at an interval if it is to.
struct Remembers {
    name: &'static str,
    heard: Heard,
    keeps: Keeps,
    /// What the sink fails with at this interval, counted from 1.
    fails: Option<(u64, io::ErrorKind)>,
    intervals: u64,
}

impl Remembers {
    fn new(name: &'static str, keeps: Keeps) -> (Self, Heard) {
        let heard = Heard::default();
        let sink = Self {
            name,
            heard: Rc::clone(&heard),
            keeps,
            fails: None,
            intervals: 0,
        };
        (sink, heard)
    }

    fn hear(&self, what: impl Into<String>) -> Result<(), SinkError> {
        self.heard.borrow_mut().push(what.into());
        Ok(())
    }
}

impl Sink for Remembers {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn keeps(&self) -> Keeps {
        self.keeps
    }

    fn remark(&mut self, _: u64, remark: &Remark) -> Result<(), SinkError> {
        self.hear(remark.to_string())
    }

    fn interval(&mut self, interval: &Interval, _: &Tally) -> Result<(), SinkError> {
        self.intervals += 1;
        match self.fails {
            Some((at, kind)) if at == self.intervals => Err(SinkError::Output(kind.into())),
            _ => self.hear(format!("interval {}", interval.at_ns)),
        }
    }

    fn finish(&mut self, ended_ns: u64) -> Result<(), SinkError> {
        self.hear(format!("finish {ended_ns}"))
    }
}

fn interval(sinks: &mut Sinks<'_>, at_ns: u64) {
    let interval = Interval {
        at_ns,
        ..Interval::default()
    };
    sinks.interval(&interval, &Tally::default());
}

#[test]
fn the_others_go_on_when_one_fails_and_hear_what_is_missing() {
    let (capture, by_capture) = Remembers::new("the capture", Keeps::Everything);
    let (mut lines, by_lines) = Remembers::new("standard output", Keeps::Requests);
    lines.fails = Some((2, io::ErrorKind::StorageFull));
    let (progress, by_progress) = Remembers::new("standard error", Keeps::Nothing);
    let mut sinks = Sinks::default().and(progress).and(lines).and(capture);
    for at_ns in 1..=4 {
        interval(&mut sinks, at_ns);
        assert!(sinks.check().is_ok(), "the capture goes on");
    }
    let finished = sinks.finish(5);
    assert!(
        matches!(finished, Err(SinkError::Output(_))),
        "{finished:?}"
    );
    assert_eq!(*by_lines.borrow(), ["interval 1", "finish 5"]);
    let others = [
        "interval 1",
        "interval 2",
        "no more is written to standard output: cannot write to standard output: no storage space",
        "interval 3",
        "interval 4",
        "the last 3 intervals are missing in standard output",
        "finish 5",
    ];
    // The remark comes after the interval, for whoever stands before the one that fails.
    assert_eq!(*by_capture.borrow(), others);
    assert_eq!(*by_progress.borrow(), others);
}

#[test]
fn a_recording_that_nobody_keeps_any_more_ends_with_the_reason() {
    let (mut capture, _) = Remembers::new("the capture", Keeps::Everything);
    capture.fails = Some((1, io::ErrorKind::StorageFull));
    let (progress, by_progress) = Remembers::new("standard error", Keeps::Nothing);
    let mut sinks = Sinks::default().and(progress).and(capture);
    assert_eq!(sinks.keep(), Keeps::Everything);
    interval(&mut sinks, 1);
    assert_eq!(sinks.keep(), Keeps::Nothing);
    assert!(sinks.check().is_err());
    assert_eq!(
        *by_progress.borrow(),
        ["interval 1"],
        "whoever ends says it"
    );
}

#[test]
fn a_pipe_that_nobody_reads_hides_no_other_failure() {
    let (mut lines, _) = Remembers::new("standard output", Keeps::Requests);
    lines.fails = Some((1, io::ErrorKind::BrokenPipe));
    let (mut capture, _) = Remembers::new("the capture", Keeps::Everything);
    capture.fails = Some((2, io::ErrorKind::StorageFull));
    let mut sinks = Sinks::default().and(lines).and(capture);
    interval(&mut sinks, 1);
    assert!(sinks.check().is_ok());
    interval(&mut sinks, 2);
    let error = sinks.check().expect_err("nobody is left");
    assert!(!error.is_closed_pipe(), "{error:?}");
}
