//! Runs other programs. Every failure names the command line.

use std::{
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace;

const POLL: Duration = Duration::from_millis(50);

/// Makes a command that runs a program in the root of the workspace.
pub fn new(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(workspace::root());
    command
}

/// Makes a command that runs the cargo which runs this program.
pub fn cargo(args: &[&str]) -> Command {
    new(env!("CARGO"), args)
}

/// Runs a command to its end. Anything but success is an error that shows the command line.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    succeeded(command, status)
}

/// Runs a command as [`run`] does, but kills the program when the time is up.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    match wait_within(&mut child, limit)? {
        Some(status) => succeeded(command, status),
        None => bail!("`{}` took longer than {limit:?}", line(command)),
    }
}

/// Waits for a child, at most `limit`. If the child is not done by then, the function kills it and
/// returns `None`.
pub fn wait_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Whether a program starts and succeeds. Nobody sees its output.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Returns the standard output of a program that has to succeed.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| cannot_start(command))?;
    succeeded(command, output.status)?;
    Ok(output.stdout)
}

/// Writes a command as a person would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "`{}` failed: {status}", line(command));
    Ok(())
}

fn cannot_start(command: &Command) -> String {
    format!("failed to start `{}`", line(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_line() {
        let error = run(&mut new("false", &["--really"])).unwrap_err();
        assert!(error.to_string().contains("`false --really` failed"));
    }

    #[test]
    fn a_program_that_hangs_is_killed_when_its_time_is_up() {
        let started = Instant::now();
        let error = run_within(&mut new("sleep", &["30"]), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("took longer"));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
