//! What happens to one process of several, or keeps it from being recorded, is no matter of the others.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use residue_tests::{
    code_bytes::{assert_clean, changed_code},
    fixtures::Fixture,
    machine::{self, Needed, PATIENCE, wait_until},
    recorder::{Recorder, Refusal, record, residue},
    target::Target,
};

const A_SECOND: Duration = Duration::from_secs(1);

fn holder() -> Result<Target> {
    Target::start(&Fixture::Churn.build()?, &["1", "100", "3"])
}

/// Attaching to eight processes takes a second and more, and in all of it some end.
#[test]
fn workers_that_end_while_others_are_attached_end_no_recording() -> Result<()> {
    let _turn = machine::beside_others();
    let mut target = holder()?;
    let workers = (0..8).map(|n| {
        let seconds = format!("{:.1}", 0.2 + 0.25 * f64::from(n));
        Command::new("sleep").arg(seconds).spawn()
    });
    let workers: Vec<Child> = workers.collect::<Result<_, _>>()?;
    let mut pids: Vec<u32> = workers.iter().map(Child::id).collect();
    // Reaped as they end, so that they do not linger as zombies.
    let reaped: Vec<_> = workers
        .into_iter()
        .map(|mut worker| thread::spawn(move || worker.wait()))
        .collect();
    pids.push(target.pid());
    let recorder = Recorder::start_as_users_do(&pids, &[])?;
    target.ask("fill", "filled")?;
    let truth = target.ask_truth()?;
    let recording = recorder.stop()?;
    let report = recording.report()?;
    assert_eq!(report.outstanding_bytes(), truth.bytes());
    assert!(
        recording.stderr.contains("is not recorded"),
        "{}",
        recording.stderr
    );
    for worker in reaped {
        worker.join().ok().context("the reaper does not panic")??;
    }
    assert_clean(target.pid())
}

#[test]
fn a_zombie_among_several_is_left_out_and_named() -> Result<()> {
    let _turn = machine::beside_others();
    let target = holder()?;
    let mut ended = Command::new("true").spawn()?;
    thread::sleep(Duration::from_millis(200));
    let recording = Recorder::start_as_users_do(&[ended.id(), target.pid()], &[])?.stop()?;
    ended.wait()?;
    recording.report()?;
    let said = format!("pid {} is not recorded", ended.id());
    assert!(recording.stderr.contains(&said), "{}", recording.stderr);
    let json = recording.render("json")?;
    assert!(json.contains(&said), "{json}");
    Ok(())
}

#[test]
fn a_pid_that_never_existed_is_a_slip_at_once() -> Result<()> {
    let _turn = machine::beside_others();
    let target = holder()?;
    let mut command = refused_record(&[target.pid(), 4_194_303])?;
    Refusal::of(&mut command)?.assert_says(&["no process 4194303"]);
    assert_clean(target.pid())
}

/// A recording that would end by itself, should it not refuse. Nothing is left of its capture.
fn refused_record(pids: &[u32]) -> Result<Command> {
    let mut command = record(pids, "/dev/shm/residue-refused.residue".as_ref())?;
    command.args(["-d", "1s"]);
    Ok(command)
}

#[test]
fn processes_that_did_nothing_are_named() -> Result<()> {
    let _turn = machine::beside_others();
    let (mut busy, idle) = (holder()?, holder()?);
    let recorder = Recorder::start_as_users_do(&[busy.pid(), idle.pid()], &[])?;
    busy.ask("fill", "filled")?;
    let json = recorder.stop()?.render("json")?;
    let note = json.lines().find(|line| line.contains("neither allocated"));
    let note = note.with_context(|| format!("nothing is said of who did nothing: {json}"))?;
    assert!(note.contains(&idle.pid().to_string()), "{note}");
    assert!(!note.contains(&busy.pid().to_string()), "{note}");
    Ok(())
}

/// Its probes have left with it by the time that the recording ends.
#[test]
fn a_process_that_did_nothing_until_it_ended_is_named() -> Result<()> {
    let _turn = machine::beside_others();
    let mut idle = holder()?;
    let recorder = Recorder::start_as_users_do(&[idle.pid()], &[])?;
    idle.kill()?;
    let recording = recorder.wait(PATIENCE)?;
    let note = recording.stderr.contains("neither allocated");
    assert!(note, "{}", recording.stderr);
    Ok(())
}

/// Whoever gave `--children` is not told to give it.
#[test]
fn a_child_that_is_forked_later_is_named_as_that() -> Result<()> {
    let _turn = machine::beside_others();
    let mut shell =
        Target::spawn(Command::new("sh").args(["-c", "read x; sleep 30 & echo $!; read y"]))?;
    let recorder = Recorder::start_as_users_do(&[shell.pid()], &["--children"])?;
    let child = shell.ask("", "")?;
    let recording = recorder.stop()?;
    let said = &recording.stderr;
    let note = said
        .lines()
        .find(|line| line.contains(&format!("{child} (")));
    let note = note.with_context(|| format!("the child is not named: {said}"))?;
    assert!(note.contains("forked after the recording began"), "{note}");
    assert!(!note.contains("--children"), "{note}");
    let pid = rustix::process::Pid::from_raw(child.parse()?).context("a pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    Ok(())
}

/// Whoever begins to record must not learn at the end that a worker took the load which nobody recorded: one that
/// was not asked for, or one that was made later for another.
#[test]
fn children_that_nobody_records_are_named_at_once() -> Result<()> {
    let _turn = machine::beside_others();
    let script = "sleep 60 >/dev/null & a=$!; echo first $a; read line; \
                  sleep 60 >/dev/null & b=$!; echo second $b; read line; kill $a $b";
    let mut target = Target::spawn(Command::new("sh").args(["-c", script]))?;
    let first = target.await_line("first")?;
    let recorder = Recorder::start_as_users_do(&[target.pid()], &["--interval", "200ms"])?;
    let note = recorder.await_line("note: child processes")?;
    assert!(note.contains(first.trim_start_matches("first ")), "{note}");
    let second = target.ask("go", "second")?;
    let note = recorder.await_line("note: child processes")?;
    assert!(
        note.contains(second.trim_start_matches("second ")),
        "{note}"
    );
    assert!(!note.contains(first.trim_start_matches("first ")), "{note}");
    let recording = recorder.stop()?;
    assert_eq!(recording.stderr.matches("child processes").count(), 2);
    Ok(())
}

/// Records with a limit of the shell's, such as `-Sn 64`.
fn limited(limit: &str, pid: u32) -> Result<Refusal> {
    let directory = tempfile::tempdir()?;
    let mut record = record(&[pid], &directory.path().join("test.residue"))?;
    record.args(["-d", "500ms"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"])
        .arg(record.get_program())
        .args(record.get_args());
    Refusal::of(&mut command)
}

#[test]
fn soft_limits_are_raised_and_hard_ones_named() -> Result<()> {
    let _turn = machine::beside_others();
    let target = holder()?;
    for soft in ["-Sn 64", "-Sn 20", "-Sv 100000"] {
        let Refusal { code, stderr } = limited(soft, target.pid())?;
        assert_eq!(code, Some(0), "ulimit {soft}: {stderr}");
    }
    limited("-n 40", target.pid())?.assert_says(&["too many open files", "ulimit -Hn"]);
    for hard in ["-v 200000", "-v 290000", "-v 500000"] {
        limited(hard, target.pid())?.assert_says(&["address space", "ulimit -Hv"]);
    }
    let enough = limited("-v 650000", target.pid())?;
    assert_eq!(enough.code, Some(0), "{}", enough.stderr);
    assert_clean(target.pid())
}

/// A command of ours has the limits that it would have without us.
#[test]
fn a_command_keeps_the_limits_that_residue_raises_for_itself() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = tempfile::tempdir()?;
    let mut record = record(&[], &directory.path().join("test.residue"))?;
    record.args(["--", "sh", "-c", "ulimit -Sn"]);
    let output = Command::new("sh")
        .args(["-c", "ulimit -Sn 123 && exec \"$@\"", "sh"])
        .arg(record.get_program())
        .args(record.get_args())
        .output()?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "123\n");
    Ok(())
}

/// As root is in a container.
#[test]
fn root_without_capabilities_is_not_told_to_use_sudo() -> Result<()> {
    let _turn = machine::beside_others();
    let setpriv = Needed {
        program: "setpriv",
        package: "util-linux",
    };
    if !machine::has(setpriv) {
        return Ok(());
    }
    let target = holder()?;
    let mut command = Command::new(setpriv.program);
    command
        .args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"])
        .arg(residue()?)
        .args(["record", "-d", "1s", "-p", &target.pid().to_string()])
        .args(["-o", "/dev/shm/residue-refused.residue"]);
    let refusal = Refusal::of(&mut command)?;
    refusal.assert_says(&["CAP_SYS_PTRACE", "container"]);
    assert!(!refusal.stderr.contains("sudo"), "{}", refusal.stderr);
    Ok(())
}

/// Some messages hold their cause, and whoever prints causes prints it again.
#[test]
fn the_reason_that_the_system_gives_stands_once() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = tempfile::tempdir()?;
    let mut command = record(&[], &directory.path().join("test.residue"))?;
    let refusal = Refusal::of(command.args(["--", "/no/such/command"]))?;
    refusal.assert_says(&["/no/such/command"]);
    let said = &refusal.stderr;
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
    Ok(())
}

/// How many probes a recorder has in the kernel: each is a descriptor of its own.
fn probes(residue: u32) -> Result<usize> {
    let descriptors = fs::read_dir(format!("/proc/{residue}/fd"))?;
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let is_probe = |link: &PathBuf| link.as_os_str() == "anon_inode:[perf_event]";
    Ok(links.filter(is_probe).count())
}

/// One is killed, one ends by itself, and one replaces its program; a fourth goes on.
#[test]
fn the_probes_of_a_process_that_is_over_are_gone_within_a_second() -> Result<()> {
    let _turn = machine::alone();
    let mut target = holder()?;
    let [mut killed, ending] = [holder()?, holder()?];
    let mut replaced =
        Target::spawn(Command::new("sh").args(["-c", "echo ready; read line; exec sleep 60"]))?;
    let pids = [&target, &killed, &ending, &replaced].map(Target::pid);
    let recorder = Recorder::start(&pids, &[])?;
    let at_first = probes(recorder.pid())?;
    target.ask("fill", "filled")?;
    let before = target.ask_truth()?;
    killed.kill()?;
    assert!(ending.finish()?.success());
    replaced.tell("go")?;
    let of_one = at_first / 4;
    let are_gone = || probes(recorder.pid()).is_ok_and(|left| left <= at_first - 2 * of_one);
    assert!(
        wait_until(A_SECOND, are_gone),
        "{at_first} probes at first, {} now",
        probes(recorder.pid())?
    );
    let is_clean = || changed_code(pids[3]).is_ok_and(|changed| changed.is_empty());
    assert!(
        wait_until(A_SECOND, is_clean),
        "{:?}",
        changed_code(pids[3])
    );
    let truth = target.ask_truth()?;
    assert_eq!(truth.bytes(), before.bytes());
    let recording = recorder.stop()?;
    assert_eq!(
        recording
            .report()?
            .by_site()
            .get("site_churn")
            .map(|it| it.bytes),
        Some(truth.bytes())
    );
    assert_clean(target.pid())
}
