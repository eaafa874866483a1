//! What residue cannot do it says at once, with what to do instead, and touches nothing.

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    code_bytes::assert_clean,
    disk::SmallDisk,
    fixtures::Fixture,
    machine::{self, EXPORTER, Needed, PATIENCE, find_in_path, wait_until},
    recorder::{REFUSED, Recorder, Recording, Refusal, record, report, residue_for_everyone},
    target::Target,
};

/// What `residue record` says to one pid. It has a second to count, should it not refuse.
fn refusal(pid: u32) -> Result<Refusal> {
    let directory = tempfile::tempdir()?;
    let mut command = record(&[pid], &directory.path().join("refused.residue"))?;
    Refusal::of(command.args(["-d", "1s"]))
}

/// A refused target runs on, with its code as it was.
fn assert_untouched(target: &mut Target) -> Result<()> {
    ensure!(target.is_running()?, "the target has ended");
    assert_clean(target.pid())
}

#[test]
fn a_pid_that_does_not_exist_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    let mut gone = Command::new("true").spawn()?;
    gone.wait()?;
    refusal(gone.id())?.assert_says(&["no process", &gone.id().to_string(), "pgrep"]);
    Ok(())
}

#[test]
fn a_kernel_thread_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    // Every kernel thread is a child of this one; inside a PID namespace there is none.
    if !fs::read_to_string("/proc/2/comm").is_ok_and(|comm| comm.trim() == "kthreadd") {
        machine::skipped("the initial PID namespace");
        return Ok(());
    }
    refusal(2)?.assert_says(&["kernel thread", "server process"]);
    Ok(())
}

#[test]
fn a_zombie_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    let mut child = Command::new("true").spawn()?;
    let stat = format!("/proc/{}/stat", child.id());
    let dead = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "));
    assert!(wait_until(PATIENCE, dead), "true(1) ends");
    refusal(child.id())?.assert_says(&["zombie", "still runs"]);
    child.wait()?;
    Ok(())
}

#[test]
fn without_privileges_residue_names_the_ones_it_needs() -> Result<()> {
    let _turn = machine::beside_others();
    let setpriv = Needed {
        program: "setpriv",
        package: "util-linux",
    };
    if !machine::has(setpriv) {
        return Ok(());
    }
    let mut target = Target::start(&Fixture::Churn.build()?, &["1", "10", "1"])?;
    let (_directory, residue) = residue_for_everyone()?;
    let pid = target.pid().to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(residue)
        .args([
            "record",
            "-p",
            &pid,
            "-d",
            "1s",
            "-o",
            "/tmp/refused.residue",
        ]);
    Refusal::of(&mut command)?.assert_says(&["sudo", "CAP_BPF", "CAP_PERFMON"]);
    assert_untouched(&mut target)
}

#[test]
fn a_go_program_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    if !machine::has(EXPORTER) {
        return Ok(());
    }
    let mut command = Command::new(EXPORTER.program);
    let mut target = Target::spawn(command.arg("--web.listen-address=127.0.0.1:0"))?;
    thread::sleep(Duration::from_millis(500));
    refusal(target.pid())?.assert_says(&["Go program", "pprof", "--rss-only"]);
    assert_untouched(&mut target)
}

#[test]
fn a_32_bit_process_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    let started = Fixture::ThirtyTwoBit
        .build()
        .and_then(|program| Target::start(&program, &[]));
    let Ok(mut target) = started else {
        let needs = "a gcc with -m32 (gcc-multilib) and a kernel that runs 32-bit programs";
        machine::skipped(needs);
        return Ok(());
    };
    refusal(target.pid())?.assert_says(&["32-bit", "64-bit build"]);
    assert_untouched(&mut target)
}

#[test]
fn a_static_binary_without_symbols_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    let fixture = Fixture::StaticStripped;
    if !fixture.can_be_had() {
        return Ok(());
    }
    let mut target = Target::start(&fixture.build()?, &[])?;
    refusal(target.pid())?.assert_says(&["symbols", "not stripped"]);
    assert_untouched(&mut target)
}

/// Attaching takes some tens of milliseconds, and the process ends somewhere in them.
#[test]
fn a_process_that_ends_while_residue_attaches_is_no_accident() -> Result<()> {
    let _turn = machine::beside_others();
    for centiseconds in 0..12 {
        let mut child = Command::new("sleep")
            .arg(format!("0.{centiseconds:02}"))
            .spawn()?;
        let reaper = child.id();
        // Reaped at once, so that it does not linger as a zombie.
        let reaped = thread::spawn(move || child.wait());
        let Refusal { code, stderr } = refusal(reaper)?;
        assert!(
            code == Some(0) || code == Some(REFUSED),
            "after {centiseconds} cs residue ended with {code:?}:\n{stderr}"
        );
        assert!(!stderr.contains("panicked"), "{stderr}");
        reaped.join().ok().context("the reaper does not panic")??;
    }
    Ok(())
}

#[test]
fn a_disk_that_is_full_from_the_start_is_named_as_the_reason() -> Result<()> {
    let _turn = machine::beside_others();
    let disk = SmallDisk::mount("64k")?;
    let directory = disk.directory()?;
    let mut filler = File::create(directory.path().join("filler"))?;
    while filler.write_all(&[0; 4096]).is_ok() {}
    let mut target = Target::start(&Fixture::Churn.build()?, &["1", "10", "1"])?;
    let mut command = record(&[target.pid()], &directory.path().join("full.residue"))?;
    Refusal::of(command.args(["-d", "1s"]))?.assert_says(&["full", "-o"]);
    assert_untouched(&mut target)
}

/// The empty capture fits, the ten thousand stacks of the workload do not.
#[test]
fn a_disk_that_fills_up_ends_the_recording_with_the_reason() -> Result<()> {
    let _turn = machine::beside_others();
    let disk = SmallDisk::mount("256k")?;
    let mut target = Target::start(&Fixture::Stacks.build()?, &[])?;
    let pids = [target.pid()];
    let recorder = Recorder::start_in(disk.directory()?, &pids, &["--interval", "200ms"])?;
    target.go()?;
    let recording = recorder.wait(PATIENCE)?;
    recording.refusal().assert_says(&["full", "-o"]);
    assert_untouched(&mut target)
}

/// A small capture that is complete.
fn a_capture() -> Result<Recording> {
    let mut target = Target::start(&Fixture::Churn.build()?, &["1", "100", "3"])?;
    let recorder = Recorder::start(&[target.pid()], &[])?;
    target.ask("fill", "filled")?;
    recorder.stop()
}

fn assert_report_refuses(capture: &Path, words: &[&str]) -> Result<()> {
    let output = report(capture, "text")?;
    Refusal {
        code: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
    .assert_says(words);
    Ok(())
}

/// Where SQLite keeps `user_version`, big-endian (sqlite.org/fileformat2.html, 1.3).
const USER_VERSION: u64 = 60;

#[test]
fn a_capture_from_a_newer_residue_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    let recording = a_capture()?;
    let mut file = File::options().write(true).open(recording.capture())?;
    file.seek(SeekFrom::Start(USER_VERSION))?;
    file.write_all(&9999_u32.to_be_bytes())?;
    assert_report_refuses(&recording.capture(), &["newer", "9999"])
}

#[test]
fn a_truncated_capture_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    let recording = a_capture()?;
    let file = File::options().write(true).open(recording.capture())?;
    let length = file.metadata()?.len();
    for left in [length / 2, 1000, 10, 0] {
        file.set_len(left)?;
        assert_report_refuses(&recording.capture(), &["record"])
            .with_context(|| format!("cut to {left} of {length} bytes"))?;
    }
    Ok(())
}

#[test]
fn a_file_that_is_no_capture_is_refused() -> Result<()> {
    let _turn = machine::beside_others();
    let program = find_in_path("sh").context("there is a shell")?;
    assert_report_refuses(&program, &["not a", "capture"])?;
    assert_report_refuses(Path::new("no-such.residue"), &["no-such.residue"])
}
