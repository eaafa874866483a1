//! However somebody ends a recording, or looks away from it, the capture is complete.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    code_bytes::{assert_clean, changed_code},
    fixtures::Fixture,
    hanging::Hanging,
    lines::Lines,
    machine::{self, PATIENCE, wait_until},
    recorder::{record, report},
    report::Report,
    target::Target,
};
use rustix::{
    fs::{CWD, Mode, mkfifoat},
    pipe::{PipeFlags, fcntl_getpipe_size, pipe_with},
    process::{Pid, Signal, kill_process},
};
use tempfile::TempDir;

use crate::files::split;

/// More than a recording of a second takes beside that second, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A process that holds something, and waits.
fn holder() -> Result<Target> {
    Target::start(&Fixture::Churn.build()?, &["1", "100", "3"])
}

fn capture() -> Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("test.residue");
    Ok((directory, path))
}

/// Panics unless the capture is complete, and holds what `holder` filled.
fn assert_complete(capture: &Path) -> Result<()> {
    let json = String::from_utf8(report(capture, "json")?.stdout)?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json["span"]["cut_off"], false, "{}", json["span"]);
    let names = json["stacks"].to_string();
    assert!(names.contains("site_churn"), "{names}");
    Ok(())
}

/// A pipe that no child of another test inherits.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).context("failed to make a pipe")
}

fn ended(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let has_ended = wait_until(limit, || matches!(child.try_wait(), Ok(Some(_))));
    if !has_ended {
        drop(child.kill());
    }
    let status = child.wait()?;
    ensure!(has_ended, "residue did not end within {limit:?}");
    Ok(status)
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    kill_process(Pid::from_child(child), signal).context("failed to signal residue")
}

#[test]
fn a_hangup_and_a_quit_end_a_recording_as_cleanly_as_a_termination() -> Result<()> {
    let _turn = machine::beside_others();
    for which in [Signal::HUP, Signal::QUIT, Signal::TERM] {
        let mut target = holder()?;
        let (_directory, capture) = capture()?;
        let mut residue = record(&[target.pid()], &capture)?
            .stderr(Stdio::piped())
            .spawn()?;
        let said = Lines::of(residue.stderr.take().context("a piped stderr")?);
        said.next_starting("recording", PATIENCE)?;
        target.ask("fill", "filled")?;
        signal(&residue, which)?;
        let status = ended(&mut residue, SOON)?;
        assert!(status.success(), "{which:?}: {status}; {}", said.all());
        assert_complete(&capture)?;
        assert_clean(target.pid())?;
    }
    Ok(())
}

/// As nohup starts it: the terminal's end is not meant for it.
#[test]
fn a_hangup_that_is_ignored_ends_no_recording() -> Result<()> {
    let _turn = machine::beside_others();
    let target = holder()?;
    let (_directory, capture) = capture()?;
    let record = record(&[target.pid()], &capture)?;
    let mut residue = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(record.get_program())
        .args(record.get_args())
        .stderr(Stdio::piped())
        .spawn()?;
    let said = Lines::of(residue.stderr.take().context("a piped stderr")?);
    said.next_starting("recording", PATIENCE)?;
    signal(&residue, Signal::HUP)?;
    thread::sleep(Duration::from_secs(1));
    assert!(residue.try_wait()?.is_none(), "{}", said.all());
    signal(&residue, Signal::INT)?;
    assert!(ended(&mut residue, SOON)?.success());
    Ok(())
}

/// A recording of a second, with standard error that nobody reads. Nothing says when the recording begins, so the target
/// allocates all the time.
fn record_unread(target: &mut Target, stderr: OwnedFd) -> Result<()> {
    let (_directory, capture) = capture()?;
    target.ask("load", "loading")?;
    let mut residue = record(&[target.pid()], &capture)?
        .args(["-d", "1s"])
        .stderr(stderr)
        .spawn()?;
    let status = ended(&mut residue, SOON)?;
    target.ask("stop", "pairs_per_second")?;
    assert!(status.success(), "{status}");
    assert_complete(&capture)?;
    assert_clean(target.pid())
}

#[test]
fn standard_error_that_is_gone_ends_no_recording() -> Result<()> {
    let _turn = machine::beside_others();
    let (reader, writer) = pipe()?;
    drop(reader);
    record_unread(&mut holder()?, writer)
}

#[test]
fn standard_error_that_nobody_reads_holds_up_no_recording() -> Result<()> {
    let _turn = machine::beside_others();
    let (reader, writer) = pipe()?;
    let room = fcntl_getpipe_size(reader.as_fd())?;
    File::from(writer.try_clone()?).write_all(&vec![b'.'; room])?;
    record_unread(&mut holder()?, writer)?;
    drop(reader);
    Ok(())
}

/// Taking a probe out takes a tenth of a second and more, and the capture is not kept waiting for that.
#[test]
fn the_capture_is_complete_before_the_probes_are_out_and_who_asks_again_leaves() -> Result<()> {
    let _turn = machine::alone();
    let targets: Vec<Target> = (0..4).map(|_| holder()).collect::<Result<_>>()?;
    let pids: Vec<u32> = targets.iter().map(Target::pid).collect();
    let mut first = targets;
    let (_directory, capture) = capture()?;
    let mut residue = record(&pids, &capture)?.stderr(Stdio::piped()).spawn()?;
    let said = Lines::of(residue.stderr.take().context("a piped stderr")?);
    said.next_starting("recording", PATIENCE)?;
    first[0].ask("fill", "filled")?;
    signal(&residue, Signal::INT)?;
    said.next_starting("wrote", PATIENCE)?;
    assert_complete(&capture)?;
    said.next_starting("taking", PATIENCE)?;
    // Signals that come together count as one.
    thread::sleep(Duration::from_millis(200));
    assert!(residue.try_wait()?.is_none(), "it ended meanwhile");
    let asked = Instant::now();
    signal(&residue, Signal::INT)?;
    let status = ended(&mut residue, SOON)?;
    let took = asked.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "it took {took:?} to leave");
    said.wait_for_end(PATIENCE)?;
    assert!(said.all().contains("leaving"), "{}", said.all());
    assert_complete(&capture)?;
    assert_clean_soon(&pids)
}

/// How long it may take to leave at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// The exit code of whoever SIGINT keeps from an end of its own.
const INTERRUPTED: i32 = 128 + 2;

/// Panics unless `residue` leaves at once, on this signal, because nothing is recorded yet.
fn assert_leaves_before_the_beginning(
    mut residue: Child,
    which: Signal,
    capture: &Path,
) -> Result<String> {
    let said = Lines::of(residue.stderr.take().context("a piped stderr")?);
    signal(&residue, which)?;
    let status = ended(&mut residue, AT_ONCE)?;
    said.wait_for_end(PATIENCE)?;
    let said = said.all();
    assert_eq!(
        status.code(),
        Some(128 + which.as_raw()),
        "{status}: {said}"
    );
    assert!(said.contains("nothing was recorded"), "{said}");
    assert!(!said.contains("recording 1"), "{said}");
    assert!(!capture.exists(), "a capture of nothing is left");
    Ok(said)
}

fn assert_clean_soon(pids: &[u32]) -> Result<()> {
    for &pid in pids {
        let clean = || changed_code(pid).is_ok_and(|changed| changed.is_empty());
        wait_until(PATIENCE, clean);
        assert_clean(pid)?;
    }
    Ok(())
}

fn is_probed(pid: u32) -> bool {
    changed_code(pid).is_ok_and(|changed| !changed.is_empty())
}

/// Attaching to so many processes takes seconds.
#[test]
fn who_asks_while_probes_are_put_in_leaves_at_once_and_no_probe_stays() -> Result<()> {
    let _turn = machine::alone();
    let targets: Vec<Target> = (0..24).map(|_| holder()).collect::<Result<_>>()?;
    let pids: Vec<u32> = targets.iter().map(Target::pid).collect();
    for which in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let (_directory, capture) = capture()?;
        let residue = record(&pids, &capture)?.stderr(Stdio::piped()).spawn()?;
        let probed = wait_until(SOON, || is_probed(pids[0]));
        ensure!(probed, "residue has put no probes in");
        assert_leaves_before_the_beginning(residue, which, &capture)?;
        assert_clean_soon(&pids)?;
    }
    Ok(())
}

#[test]
fn who_asks_while_a_file_system_does_not_answer_leaves_at_once() -> Result<()> {
    let _turn = machine::alone();
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("churn");
    machine::copy_program(&Fixture::Churn.build()?, &program)?;
    let target = Target::start(&program, &["1", "100", "3"])?;
    let hanging = Hanging::over(directory.path())?;
    let (_directory, capture) = capture()?;
    let mut residue = record(&[target.pid()], &capture)?;
    let residue = residue.stderr(Stdio::piped()).spawn()?;
    thread::sleep(Duration::from_secs(1));
    assert_leaves_before_the_beginning(residue, Signal::INT, &capture)?;
    drop(hanging);
    assert_clean(target.pid())
}

/// Names are looked up for ten seconds, beside a file system that does not answer.
#[test]
fn who_asks_twice_while_the_end_is_written_leaves_with_what_is_written() -> Result<()> {
    let _turn = machine::alone();
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("churn");
    machine::copy_program(&Fixture::Churn.build()?, &program)?;
    split(&program)?;
    let mut target = Target::start(&program, &["1", "100", "3"])?;
    let (_directory, capture) = capture()?;
    let mut residue = record(&[target.pid()], &capture)?
        .stderr(Stdio::piped())
        .spawn()?;
    let said = Lines::of(residue.stderr.take().context("a piped stderr")?);
    said.next_starting("recording", PATIENCE)?;
    let hanging = Hanging::over(directory.path())?;
    target.ask("fill", "filled")?;
    let truth = target.ask_truth()?;
    // More than an interval.
    thread::sleep(Duration::from_millis(2500));
    signal(&residue, Signal::INT)?;
    thread::sleep(Duration::from_secs(1));
    assert!(residue.try_wait()?.is_none(), "it waits for names");
    signal(&residue, Signal::INT)?;
    let status = ended(&mut residue, AT_ONCE)?;
    said.wait_for_end(PATIENCE)?;
    assert_eq!(status.code(), Some(INTERRUPTED), "{status}: {}", said.all());
    assert!(said.all().contains("leaving at once"), "{}", said.all());
    drop(hanging);
    let json = String::from_utf8(report(&capture, "json")?.stdout)?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json["span"]["cut_off"], true, "{}", json["span"]);
    let report: Report = serde_json::from_value(json)?;
    assert_eq!(report.outstanding_bytes(), truth.bytes());
    assert_clean_soon(&[target.pid()])
}

/// A command that is held where its program begins is nobody's loss, and must not stand still for ever.
#[test]
fn who_asks_while_a_command_is_started_ends_it_before_it_begins() -> Result<()> {
    let _turn = machine::alone();
    // From before it is forked to when it is recorded.
    for milliseconds in [100, 200, 400, 600, 800, 1000, 1200, 1500] {
        let (directory, capture) = capture()?;
        let began = directory.path().join("began");
        let mut residue = record(&[], &capture)?
            .args(["--", "sh", "-c", "touch \"$0\"; exec sleep 30"])
            .arg(&began)
            .stderr(Stdio::piped())
            .spawn()?;
        thread::sleep(Duration::from_millis(milliseconds));
        signal(&residue, Signal::INT)?;
        let status = ended(&mut residue, SOON)?;
        let mut said = String::new();
        let mut stderr = residue.stderr.take().context("a piped stderr")?;
        stderr.read_to_string(&mut said)?;
        let never = status.code() == Some(INTERRUPTED);
        assert_eq!(
            said.contains("nothing was recorded"),
            never,
            "{status}: {said}"
        );
        if never {
            assert!(!began.exists(), "{said}");
            assert!(!capture.exists(), "{said}");
        }
        let of_ours = || commands_with(&began.display().to_string());
        match never {
            true => assert!(wait_until(SOON, || of_ours().is_empty()), "{:?}", of_ours()),
            // It was recorded, and goes on: none may stand still.
            false => assert!(wait_until(SOON, || began.exists()), "{said}"),
        }
    }
    Ok(())
}

/// Processes that have this in their command line.
fn commands_with(text: &str) -> Vec<i32> {
    let processes = procfs::process::all_processes().into_iter().flatten();
    let with = processes.filter_map(|process| {
        let process = process.ok()?;
        let command = process.cmdline().ok()?;
        (command.iter().any(|it| it.contains(text)) && !command.iter().any(|it| it == "record"))
            .then_some(process.pid)
    });
    with.collect()
}

/// Records a shell command, and returns how residue ended and what it said.
fn launched(arguments: &[&str], command: &str) -> Result<(Option<i32>, String)> {
    let (_directory, capture) = capture()?;
    let output = record(&[], &capture)?
        .args(arguments)
        .args(["--", "sh", "-c", command])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = report(&capture, "json")?.stdout;
    Ok((output.status.code(), said + &String::from_utf8_lossy(&text)))
}

#[test]
fn how_a_command_ended_is_said_and_passed_on_where_asked() -> Result<()> {
    let _turn = machine::beside_others();
    let (code, said) = launched(&[], "exit 3")?;
    assert_eq!(code, Some(0), "{said}");
    // On standard error and in the report.
    assert!(said.matches("exited with status 3").count() >= 2, "{said}");
    let preserve = ["--preserve-status"];
    assert_eq!(launched(&preserve, "exit 3")?.0, Some(3));
    let (code, said) = launched(&preserve, "kill -9 $$")?;
    assert_eq!(code, Some(128 + 9), "{said}");
    assert!(said.contains("killed by signal 9 (SIGKILL)"), "{said}");
    Ok(())
}

/// The shell between the command and the daemon has ended by the time anybody looks: the daemon is nobody's child. The
/// daemon executes no other program, because residue may name the daemon at any time after the fork.
#[test]
fn a_daemon_that_a_command_leaves_is_named() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = tempfile::tempdir()?;
    let fifo = directory.path().join("fifo");
    mkfifoat(CWD, &fifo, Mode::RWXU)?;
    // The daemon reads until this is closed.
    let _writer = File::options().read(true).write(true).open(&fifo)?;
    let fifo = fifo.display();
    let leave = format!("( (read line <{fifo}) >/dev/null 2>&1 & echo $! >&2); exit 0");
    let (code, said) = launched(&[], &leave)?;
    assert_eq!(code, Some(0), "{said}");
    let daemon = said.lines().find(|line| line.parse::<u32>().is_ok());
    let daemon = format!("{} (sh)", daemon.context("the shell tells the pid")?);
    let names = |line: &str| line.contains("not recorded") && line.contains(&daemon);
    assert!(said.lines().any(names), "{daemon} is not named: {said}");
    Ok(())
}

/// No such moment exists, and nobody has to know that.
#[test]
fn a_table_that_is_never_due_ends_no_watch() -> Result<()> {
    let _turn = machine::beside_others();
    let target = holder()?;
    let watch = Command::new(residue_tests::recorder::residue()?)
        .args(["watch", "-d", "1s", "--table-every", "500000000000years"])
        .args(["-p", &target.pid().to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&watch.stderr);
    assert!(watch.status.success(), "{}: {said}", watch.status);
    Ok(())
}
