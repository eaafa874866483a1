//! Counts what test binaries report, while their output goes by.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    ops::AddAssign,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::command;

/// The sums over all test binaries of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    passed: u32,
    failed: u32,
    ignored: u32,
    /// Tests and parts of tests that said `SKIPPED`, because the machine lacks something. Such a test
    /// counts as passed, too.
    skipped: u32,
    /// Tests and parts of tests that said `LEFT OUT`, because only `--full` runs them. Such a test counts
    /// as passed, too.
    left_out: u32,
}

/// Runs `cargo test` or another program that runs tests, shows its output, and adds up its results.
pub fn run(tests: &mut Command) -> Result<Tally> {
    let line = command::line(tests);
    let mut child = tests
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start `{line}`"))?;
    let stdout = child
        .stdout
        .take()
        .with_context(|| format!("`{line}` has no standard output"))?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("failed to read the tests' output")?;
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait()?;
    ensure!(status.success(), "`{line}` failed: {tally}");
    Ok(tally)
}

impl Tally {
    /// Whether there were tests, and none of them failed.
    pub const fn all_passed(&self) -> bool {
        self.passed > 0 && self.failed == 0
    }

    /// Reads a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`, `SKIPPED name: reason`
    /// or `LEFT OUT name: reason`. The test runner may have begun the line with another test's name.
    fn read(&mut self, line: &str) {
        self.skipped += u32::from(line.contains("SKIPPED "));
        self.left_out += u32::from(line.contains("LEFT OUT "));
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let result = result.split_once(". ").map_or(result, |(_, counts)| counts);
        for count in result.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self {
            passed,
            failed,
            ignored,
            skipped,
            left_out,
        } = other;
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
        self.skipped += skipped;
        self.left_out += left_out;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            ignored,
            skipped,
            left_out,
        } = self;
        write!(
            f,
            "{passed} passed; {failed} failed; {ignored} ignored; {skipped} times a test or a part skipped \
             for lack of something; {left_out} times left out without --full"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_are_added() {
        let mut tally = Tally::default();
        tally.read("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        tally.read("test heap::tests::passed ... ok");
        tally
            .read("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(
            tally,
            Tally {
                passed: 5,
                failed: 1,
                ignored: 1,
                skipped: 0,
                left_out: 0
            }
        );
    }

    #[test]
    fn a_test_that_did_not_run_is_counted_as_such() {
        let mut tally = Tally::default();
        tally.read("SKIPPED redis_is_counted: needs redis-server");
        tally.read("test other_test ... LEFT OUT every_python_is_walked: only --full runs it");
        assert_eq!((tally.skipped, tally.left_out), (1, 1));
    }

    #[test]
    fn a_run_that_fails_is_an_error_with_its_counts() {
        let script = "echo 'test result: FAILED. 0 passed; 2 failed; 0 ignored'; exit 101";
        let error = run(&mut command::new("sh", &["-c", script])).unwrap_err();
        assert!(error.to_string().contains("2 failed"));
    }
}
