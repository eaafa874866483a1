//! A process to record.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    lines::Lines,
    machine::{PATIENCE, wait_until},
    truth::Truth,
};

/// How long a target's whole workload may take: ten million probed calls, on a slow machine.
const WORKLOAD: Duration = Duration::from_secs(300);

/// A running process, killed when dropped.
#[derive(Debug)]
pub struct Target {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
}

impl Target {
    /// Starts a fixture and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not start, or does not become ready in time.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<Self> {
        let target = Self::spawn(Command::new(program).args(arguments))?;
        target.stdout.next_starting("ready", PATIENCE)?;
        Ok(target)
    }

    /// Starts any program. Nothing is awaited.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        let stdout = child.stdout.take().context("a piped stdout")?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: Lines::of(stdout),
            child,
        })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it do its work, and returns what it holds afterwards. It waits at the barrier.
    ///
    /// # Errors
    ///
    /// When it does not get there in time, or says something that is no truth.
    pub fn go(&mut self) -> Result<Truth> {
        self.tell("go")?;
        self.truth()
    }

    /// Waits for the truth and the barrier behind it.
    ///
    /// # Errors
    ///
    /// As [`go`](Self::go).
    pub fn truth(&self) -> Result<Truth> {
        let line = self.stdout.next_starting("{", WORKLOAD)?;
        self.stdout.next_starting("barrier", PATIENCE)?;
        parse_truth(&line)
    }

    /// Asks a target that answers commands for what it holds.
    ///
    /// # Errors
    ///
    /// As [`go`](Self::go).
    pub fn ask_truth(&mut self) -> Result<Truth> {
        parse_truth(&self.ask("truth", "{")?)
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    ///
    /// When it no longer reads.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its input was closed")?;
        writeln!(stdin, "{line}").context("the target no longer reads")
    }

    /// Writes a line and waits for an answer that begins with `start`.
    ///
    /// # Errors
    ///
    /// When it no longer reads, or no such answer comes.
    pub fn ask(&mut self, line: &str, start: &str) -> Result<String> {
        self.tell(line)?;
        self.await_line(start)
    }

    /// Waits for a line that begins with `start`.
    ///
    /// # Errors
    ///
    /// When none comes in time.
    pub fn await_line(&self, start: &str) -> Result<String> {
        self.stdout.next_starting(start, WORKLOAD)
    }

    /// Whether it runs.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it exit by closing its input, after a last line.
    ///
    /// # Errors
    ///
    /// When it is still there after a while.
    pub fn finish(mut self) -> Result<ExitStatus> {
        // A target that ended by itself no longer reads.
        drop(self.tell("exit"));
        self.stdin = None;
        if !wait_until(PATIENCE, || !self.is_running().unwrap_or(false)) {
            bail!("the target did not exit when its input ended");
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Fails only when it is gone already.
        drop(self.kill());
    }
}

fn parse_truth(line: &str) -> Result<Truth> {
    serde_json::from_str(line).with_context(|| format!("the target's truth is no truth: {line}"))
}
