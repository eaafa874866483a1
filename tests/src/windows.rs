//! A running `residue watch`, and what it says of each request.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::{
    http::Answer,
    lines::Lines,
    machine::{PATIENCE, wait_until},
    recorder::residue,
    report::Frame,
};

/// One window, as `--json` writes it.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "as the profiler's `JsonLine` documents them")]
pub struct Window {
    pub window: u64,
    pub pid: u32,
    pub tid: u32,
    pub request_id: Option<String>,
    pub method: Option<String>,
    pub route: String,
    pub status: Option<u16>,
    pub opened_ns: u64,
    pub closed_ns: u64,
    pub duration_ns: Option<u64>,
    pub rss_open_bytes: Option<u64>,
    pub rss_close_bytes: Option<u64>,
    pub delta_bytes: Option<i64>,
    pub alloc_bytes: Option<u64>,
    pub alloc_objects: Option<u64>,
    pub retained_bytes: Option<u64>,
    pub retained_objects: Option<u64>,
    pub confidence: String,
    pub candidates: Option<u8>,
    pub ended: String,
    pub leak_suspected: bool,
}

/// Memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "as the profiler's `Amount` documents them")]
pub struct Amount {
    pub bytes: u64,
    pub objects: u64,
}

/// Memory of no single window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "as the profiler's `Unbound` documents them")]
pub struct Unbound {
    pub allocated: Amount,
    pub outstanding: Amount,
}

/// A route's row in a report, as far as the tests read it.
#[derive(Clone, Debug, Deserialize)]
#[expect(
    missing_docs,
    reason = "as the profiler's `RouteRow` and docs/json.md document them"
)]
pub struct RouteRow {
    pub route: String,
    pub requests: u64,
    pub alloc_bytes_per_request: Option<f64>,
    pub retained_bytes_per_request: Option<f64>,
    pub survivor_bytes_per_request: Option<f64>,
    pub confidences: BTreeMap<String, u64>,
    pub estimated_bytes_per_request: Option<f64>,
    pub estimate_standard_error: Option<f64>,
    pub estimated_from: Option<String>,
    pub no_estimate: Option<String>,
    pub survivors: Option<Amount>,
    pub stacks: Vec<SurvivingStack>,
    pub further_stacks: Amount,
    pub without_stack: Amount,
}

/// What survived of a route's requests, of one stack.
#[derive(Clone, Debug, Deserialize)]
pub struct SurvivingStack {
    /// Leaf first.
    pub frames: Vec<Frame>,
    /// How much.
    #[serde(flatten)]
    pub amount: Amount,
}

impl RouteRow {
    /// What survived of the blocks of one function.
    #[must_use]
    pub fn survivors_of(&self, site: &str) -> Amount {
        let mut sum = Amount::default();
        let of_site = |it: &&SurvivingStack| it.frames.iter().any(|it| it.function() == site);
        for stack in self.stacks.iter().filter(of_site) {
            sum.bytes += stack.amount.bytes;
            sum.objects += stack.amount.objects;
        }
        sum
    }
}

/// A `residue watch` that goes on. Killed when dropped.
#[derive(Debug)]
pub struct Watcher {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Watcher {
    /// Watches a process, and waits until everything counts.
    ///
    /// # Errors
    ///
    /// When residue refuses, with what it says.
    pub fn start(pid: u32, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(residue()?);
        let pid = pid.to_string();
        command
            .args(["watch", "--max-slowdown", "off", "-p", &pid])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("failed to start residue")?;
        let stdout = Lines::of(child.stdout.take().context("a piped stdout")?);
        let stderr = Lines::of(child.stderr.take().context("a piped stderr")?);
        let watcher = Self {
            child,
            stdout,
            stderr,
        };
        let said = watcher.stderr.next_starting("watching", PATIENCE);
        said.context("residue does not watch")?;
        Ok(watcher)
    }

    /// As [`start`](Self::start), with lines for programs.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn json(pid: u32) -> Result<Self> {
        Self::start(pid, &["--json"])
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has written so many lines.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn await_lines(&self, count: usize) -> Result<()> {
        let lines = || self.stdout.all().lines().count();
        ensure!(
            wait_until(PATIENCE, || lines() >= count),
            "{} lines, and not {count}:\n{}{}",
            lines(),
            self.stdout.all(),
            self.stderr.all(),
        );
        Ok(())
    }

    /// What it has said so far beside its lines.
    #[must_use]
    pub fn said(&self) -> String {
        self.stderr.all()
    }

    /// Ends it by SIGINT, as Ctrl-C does.
    ///
    /// # Errors
    ///
    /// When it does not end well.
    pub fn stop(mut self) -> Result<Watched> {
        kill_process(Pid::from_child(&self.child), Signal::INT).context("failed to signal")?;
        let ended = wait_until(PATIENCE, || matches!(self.child.try_wait(), Ok(Some(_))));
        ensure!(
            ended,
            "residue did not end; it wrote:\n{}",
            self.stderr.all()
        );
        self.stdout.wait_for_end(PATIENCE)?;
        self.stderr.wait_for_end(PATIENCE)?;
        let status = self.child.wait()?;
        let stderr = self.stderr.all();
        ensure!(status.success(), "residue ended with {status}:\n{stderr}");
        Ok(Watched {
            stdout: self.stdout.all(),
            stderr,
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Fails only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a `residue watch` has written.
#[derive(Clone, Debug)]
pub struct Watched {
    /// One line a window.
    pub stdout: String,
    /// What it said, and the table.
    pub stderr: String,
}

impl Watched {
    /// The lines of `--json`.
    ///
    /// # Errors
    ///
    /// When one is something else.
    pub fn windows(&self) -> Result<Vec<Window>> {
        let parse = |line| serde_json::from_str(line).with_context(|| format!("a window: {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// The window of each answer, in the same order.
///
/// # Errors
///
/// With a list of what is missing, of what is there twice or is not as it was answered, and of windows
/// that no answer has.
pub fn matched<'a>(windows: &'a [Window], answers: &[Answer]) -> Result<Vec<&'a Window>> {
    let mut by_id: BTreeMap<Option<&str>, Vec<&Window>> = BTreeMap::new();
    for window in windows {
        by_id
            .entry(window.request_id.as_deref())
            .or_default()
            .push(window);
    }
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    for answer in answers {
        match by_id.remove(&Some(&answer.id)).as_deref() {
            Some([window]) if is_of(window, answer) => found.push(*window),
            Some(other) => wrong.push(format!("{answer:?} has {other:#?}")),
            None => wrong.push(format!("{answer:?} has no window")),
        }
    }
    let left = by_id.into_values().flatten();
    wrong.extend(left.map(|window| format!("no answer has {window:#?}")));
    ensure!(
        wrong.is_empty(),
        "{} of {} answers and {} windows differ:\n{}",
        wrong.len(),
        answers.len(),
        windows.len(),
        wrong[..wrong.len().min(10)].join("\n")
    );
    Ok(found)
}

fn is_of(window: &Window, answer: &Answer) -> bool {
    window.route == answer.path && window.status == Some(answer.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"window":7,"pid":1,"tid":2,"request_id":"a","method":"GET","route":"/x",
        "status":200,"opened_ns":1,"closed_ns":3,"duration_ns":1,"rss_open_bytes":null,
        "rss_close_bytes":null,"delta_bytes":null,"alloc_bytes":0,"alloc_objects":0,"retained_bytes":0,
        "retained_objects":0,"confidence":"exact","candidates":null,"ended":"done","leak_suspected":false}"#;

    fn windows(ids: &[&str]) -> Vec<Window> {
        let line = |id: &&str| LINE.replace("\"a\"", &format!("\"{id}\""));
        let parse = |line: String| serde_json::from_str(&line).expect("it is a window");
        ids.iter().map(|id| parse(line(id))).collect()
    }

    fn answers(ids: &[&str]) -> Vec<Answer> {
        let answer = |id: &&str| Answer {
            id: (*id).to_owned(),
            path: "/x".to_owned(),
            status: 200,
        };
        ids.iter().map(answer).collect()
    }

    #[test]
    fn every_answer_finds_its_window() {
        let windows = windows(&["b", "a"]);
        let found = matched(&windows, &answers(&["a", "b"])).expect("they match");
        assert_eq!(found[0].request_id.as_deref(), Some("a"));
        assert_eq!(found[1].request_id.as_deref(), Some("b"));
    }

    #[test]
    fn what_is_missing_twice_or_too_many_is_found() {
        for (of_windows, of_answers) in [
            (&["a"][..], &["a", "b"][..]),
            (&["a", "a"], &["a"]),
            (&["a", "b"], &["a"]),
        ] {
            assert!(matched(&windows(of_windows), &answers(of_answers)).is_err());
        }
    }
}
