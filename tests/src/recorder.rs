//! A running `residue record`, and what it leaves behind.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    fixtures::target_directory,
    lines::Lines,
    machine::{PATIENCE, copy_program, wait_until},
    report::Report,
};

/// The exit code of a usage or environment error.
pub const REFUSED: i32 = 2;

/// The binary under test: `RESIDUE_BIN`, or the release build.
///
/// # Errors
///
/// When there is none.
pub fn residue() -> Result<PathBuf> {
    let path = env::var_os("RESIDUE_BIN")
        .map_or_else(|| target_directory().join("release/residue"), PathBuf::from);
    ensure!(
        path.is_file(),
        "{} does not exist: run `cargo build --release -p residue`",
        path.display()
    );
    Ok(path)
}

/// Unless a test says otherwise, every stack is walked: what it compares is exact then, line by line.
const EVERY_STACK: [&str; 2] = ["--stacks", "all"];

/// Targets do nothing but allocate, and are to be recorded whatever that costs them.
const WHATEVER_IT_COSTS: [&str; 2] = ["--max-slowdown", "off"];

/// `residue record -p PID…`, ready to run; `capture` is what it writes.
///
/// # Errors
///
/// When there is no residue.
pub fn record(pids: &[u32], capture: &Path) -> Result<Command> {
    let mut command = Command::new(residue()?);
    command.arg("record").arg("-o").arg(capture);
    for pid in pids {
        command.args(["-p", &pid.to_string()]);
    }
    Ok(command)
}

/// A recording that goes on. Killed when dropped.
#[derive(Debug)]
pub struct Recorder {
    child: Child,
    stderr: Lines,
    directory: Option<TempDir>,
}

impl Recorder {
    /// Records `pids` with more arguments, and waits until everything counts.
    ///
    /// # Errors
    ///
    /// When residue refuses, with what it says.
    pub fn start(pids: &[u32], arguments: &[&str]) -> Result<Self> {
        let directory =
            tempfile::tempdir().context("failed to make a directory for the capture")?;
        Self::start_in(directory, pids, arguments)
    }

    /// As [`start`](Self::start), with the capture in `directory`.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_in(directory: TempDir, pids: &[u32], arguments: &[&str]) -> Result<Self> {
        let mut command = record(pids, &capture_in(&directory))?;
        if !arguments.contains(&"--stacks") {
            command.args(EVERY_STACK);
        }
        command.args(WHATEVER_IT_COSTS);
        Self::spawn(command.args(arguments), directory)?.once_recording()
    }

    /// As [`start`](Self::start), with no arguments but these.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_as_users_do(pids: &[u32], arguments: &[&str]) -> Result<Self> {
        let directory =
            tempfile::tempdir().context("failed to make a directory for the capture")?;
        let mut command = record(pids, &capture_in(&directory))?;
        Self::spawn(command.args(arguments), directory)?.once_recording()
    }

    /// The process id of the recorder.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of what it says that begins so.
    ///
    /// # Errors
    ///
    /// When none comes in time.
    pub fn await_line(&self, start: &str) -> Result<String> {
        self.stderr.next_starting(start, PATIENCE)
    }

    /// `residue record … -- COMMAND`, which starts the process itself, with this input and output.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn launch<S: AsRef<OsStr>>(command: &[S], (input, output): (Stdio, Stdio)) -> Result<Self> {
        let directory =
            tempfile::tempdir().context("failed to make a directory for the capture")?;
        let mut record = record(&[], &capture_in(&directory))?;
        record
            .args(EVERY_STACK)
            .arg("--")
            .args(command)
            .stdin(input)
            .stdout(output);
        Self::spawn(&mut record, directory)?.once_recording()
    }

    fn spawn(command: &mut Command, directory: TempDir) -> Result<Self> {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        let stderr = Lines::of(child.stderr.take().context("a piped stderr")?);
        Ok(Self {
            child,
            stderr,
            directory: Some(directory),
        })
    }

    fn once_recording(self) -> Result<Self> {
        self.stderr
            .next_starting("recording", PATIENCE)
            .context("residue does not record")?;
        Ok(self)
    }

    /// Where its capture is.
    ///
    /// # Panics
    ///
    /// Never: the directory is only given up with the recorder.
    #[must_use]
    pub fn capture(&self) -> PathBuf {
        capture_in(
            self.directory
                .as_ref()
                .expect("kept until the recorder ends"),
        )
    }

    /// The most memory that it has taken so far, bytes.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let mut lines = status.lines();
        let peak = lines.find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|line| line.split_whitespace().next());
        Ok(1024 * kib.context("the kernel says VmHWM")?.parse::<u64>()?)
    }

    /// Ends it by SIGINT, as Ctrl-C does.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn stop(self) -> Result<Recording> {
        self.signal(Signal::INT)?;
        self.wait(PATIENCE)
    }

    /// As [`stop`](Self::stop), with less patience.
    ///
    /// # Errors
    ///
    /// When it does not end within `limit`.
    pub fn stop_within(self, limit: Duration) -> Result<Recording> {
        self.signal(Signal::INT)?;
        self.wait(limit)
    }

    /// Ends it by SIGKILL, in the middle of whatever it does.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn kill(self) -> Result<Recording> {
        self.signal(Signal::KILL)?;
        self.wait(PATIENCE)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    ///
    /// When it does not within `limit`.
    pub fn wait(mut self, limit: Duration) -> Result<Recording> {
        let ended = wait_until(limit, || matches!(self.child.try_wait(), Ok(Some(_))));
        ensure!(
            ended,
            "residue did not end within {limit:?}; it wrote:\n{}",
            self.stderr.all()
        );
        self.stderr.wait_for_end(PATIENCE)?;
        Ok(Recording {
            status: self.child.wait()?,
            stderr: self.stderr.all(),
            directory: self.directory.take().context("kept until now")?,
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).context("failed to signal residue")
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Fails only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn capture_in(directory: &TempDir) -> PathBuf {
    directory.path().join("test.residue")
}

/// A recording that has ended.
#[derive(Debug)]
pub struct Recording {
    status: ExitStatus,
    /// All that residue said.
    pub stderr: String,
    directory: TempDir,
}

impl Recording {
    /// The capture.
    #[must_use]
    pub fn capture(&self) -> PathBuf {
        capture_in(&self.directory)
    }

    /// Whether residue died of a signal, and of which.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// How residue ended, as a refusal.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal {
            code: self.status.code(),
            stderr: self.stderr.clone(),
        }
    }

    /// The report of a recording that ended well.
    ///
    /// # Errors
    ///
    /// When residue's exit code was not 0, or there is no report.
    pub fn report(&self) -> Result<Report> {
        ensure!(
            self.status.success(),
            "residue ended with {}; it wrote:\n{}",
            self.status,
            self.stderr
        );
        self.report_all_the_same()
    }

    /// The report, however residue ended.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn report_all_the_same(&self) -> Result<Report> {
        let json = self.render("json")?;
        serde_json::from_str(&json).context("the report is not the JSON that is documented")
    }

    /// A report in any format.
    ///
    /// # Errors
    ///
    /// When residue cannot make it.
    pub fn render(&self, format: &str) -> Result<String> {
        let output = report(&self.capture(), format)?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("residue report failed: {errors}");
        }
        String::from_utf8(output.stdout).context("a report is UTF-8")
    }
}

/// Runs `residue report`.
///
/// # Errors
///
/// When it does not start.
pub fn report(capture: &Path, format: &str) -> Result<Output> {
    Command::new(residue()?)
        .arg("report")
        .arg(capture)
        .args(["--format", format])
        .stdin(Stdio::null())
        .output()
        .context("failed to start residue")
}

/// A copy of residue where every user can run it, in a directory that is removed when dropped.
///
/// # Errors
///
/// When it cannot be copied.
pub fn residue_for_everyone() -> Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let copy = directory.path().join("residue");
    copy_program(&residue()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok((directory, copy))
}

/// What a command said before it gave up.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its standard error.
    pub stderr: String,
}

impl Refusal {
    /// Runs a command that is expected to refuse.
    ///
    /// # Errors
    ///
    /// When it does not end in time: it records.
    pub fn of(command: &mut Command) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Recorder::spawn(command, directory)?
            .wait(PATIENCE)?
            .refusal())
    }

    /// Panics unless it was a refusal that says all of `words`, in any case of letters.
    pub fn assert_says(&self, words: &[&str]) {
        let Self { code, stderr } = self;
        assert_eq!(
            *code,
            Some(REFUSED),
            "the exit code; residue wrote:\n{stderr}"
        );
        let said = stderr.to_lowercase();
        for word in words {
            assert!(
                said.contains(&word.to_lowercase()),
                "{word:?} is not in:\n{stderr}"
            );
        }
    }
}
