//! What unit tests say about the machine that they run on.

use std::io::Write as _;

/// Says that a test did not run. Writes around the test runner's capture, so that somebody sees it.
pub fn skipped(test: &str, needs: &str) {
    let line = format!("SKIPPED {test}: needs {needs}\n");
    // If standard error is closed, there is nowhere to say it.
    drop(std::io::stderr().write_all(line.as_bytes()));
}
