//! What unit tests say of the machine that they run on.

use std::io::Write as _;

/// Says that a test did not run. Around the test runner's capture, so that it is seen.
pub fn skipped(test: &str, needs: &str) {
    let line = format!("SKIPPED {test}: needs {needs}\n");
    // Standard error that is closed leaves nowhere to say it.
    drop(std::io::stderr().write_all(line.as_bytes()));
}
