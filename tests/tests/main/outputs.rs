//! What residue writes: where, for whom, and nothing that a stranger has chosen to drive a terminal.

use std::{
    fs,
    os::unix::{
        ffi::OsStringExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    fixtures::Fixture,
    machine,
    recorder::{Refusal, record, residue, residue_for_everyone},
    target::Target,
};
use tempfile::TempDir;

/// Nobody's, on every Linux.
const USER: u32 = 65534;
/// Beyond the largest that Linux gives (PID_MAX_LIMIT in include/linux/threads.h).
const NO_PID: u32 = 1 << 23;

fn churn(program: &Path) -> Result<Target> {
    Target::start(program, &["1", "1000", "1"])
}

/// A second of a program, in a directory that every user may enter.
fn recorded(arguments: &[(&str, &str)]) -> Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let capture = directory.path().join("out.residue");
    let target = churn(&Fixture::Churn.build()?)?;
    let mut command = record(&[target.pid()], &capture)?;
    command.args(["-d", "1s"]).envs(arguments.iter().copied());
    succeeded(&mut command)?;
    Ok((directory, capture))
}

fn succeeded(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} said {said}");
    Ok(output)
}

fn rendered(capture: &Path, to: &Path) -> Result<Command> {
    let mut command = Command::new(residue()?);
    command.arg("report").arg(capture);
    command.args(["--format", "flamegraph", "-o"]).arg(to);
    Ok(command)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory)?.filter_map(Result::ok);
    let mut names: Vec<_> = entries
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

#[test]
fn what_is_recorded_by_sudo_belongs_to_who_called_it() -> Result<()> {
    let _turn = machine::beside_others();
    let (uid, gid) = (USER.to_string(), USER.to_string());
    let by_sudo = [("SUDO_UID", &*uid), ("SUDO_GID", &*gid)];
    let (directory, capture) = recorded(&by_sudo)?;
    let svg = directory.path().join("root.svg");
    succeeded(rendered(&capture, &svg)?.envs(by_sudo))?;
    for file in [&capture, &svg] {
        let found = fs::metadata(file)?;
        assert_eq!((found.uid(), found.gid()), (USER, USER), "{file:?}");
        assert_eq!(found.mode() & 0o777, 0o600, "{file:?}");
    }
    // The second command of the README, without sudo.
    let (_copy, program) = residue_for_everyone()?;
    let mut report = Command::new(program);
    succeeded(report.arg("report").arg(&capture).uid(USER).gid(USER))?;
    Ok(())
}

#[test]
fn a_report_replaces_a_link_and_leaves_what_it_leads_to() -> Result<()> {
    let _turn = machine::beside_others();
    let (directory, capture) = recorded(&[])?;
    let [victim, link] = ["victim", "link.svg"].map(|it| directory.path().join(it));
    fs::write(&victim, "precious")?;
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o666))?;
    symlink(&victim, &link)?;
    succeeded(&mut rendered(&capture, &link)?)?;
    assert_eq!(fs::read_to_string(&victim)?, "precious");
    assert!(fs::symlink_metadata(&link)?.is_file());
    // A file that all may read does not stay so with a report in it.
    succeeded(&mut rendered(&capture, &victim)?)?;
    assert_eq!(fs::metadata(&victim)?.mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&capture)?.uid(), 0);
    Ok(())
}

/// There is neither a capture nor a process to look at before.
#[test]
fn a_bad_output_is_refused_before_anything_else_is_done() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = tempfile::tempdir()?;
    let none = directory.path().join("none");
    for (to, words) in [
        (directory.path().to_owned(), "is a directory"),
        (none.join("report.svg"), "there is no directory"),
    ] {
        Refusal::of(&mut rendered(&none, &to)?)?.assert_says(&[words, "-o"]);
    }
    let mut command = record(&[NO_PID], &none.join("out.residue"))?;
    Refusal::of(&mut command)?.assert_says(&["directory does not exist", "-o"]);
    assert_eq!(names(directory.path())?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_report_that_fails_leaves_nothing_behind() -> Result<()> {
    let _turn = machine::beside_others();
    let (directory, capture) = recorded(&[])?;
    let small = directory.path().join("small");
    fs::create_dir(&small)?;
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=4k", "residue"]);
    if !mount.arg(&small).status()?.success() {
        machine::skipped("the right to mount");
        return Ok(());
    }
    let filled = fs::write(small.join("full"), [0; 4096]);
    let refused = Refusal::of(&mut rendered(&capture, &small.join("out.svg"))?);
    let left = names(&small);
    Command::new("umount").arg(&small).status()?;
    filled?;
    refused?.assert_says(&["the disk is full", "-o"]);
    assert_eq!(left?, ["full"]);
    Ok(())
}

#[test]
fn a_report_goes_to_devices_pipes_and_standard_output() -> Result<()> {
    let _turn = machine::beside_others();
    let (directory, capture) = recorded(&[])?;
    succeeded(&mut rendered(&capture, Path::new("/dev/null"))?)?;
    let whole = directory.path().join("out.svg");
    succeeded(&mut rendered(&capture, &whole)?)?;
    let whole = fs::read(whole)?;
    let output = succeeded(&mut rendered(&capture, Path::new("/dev/stdout"))?)?;
    assert_eq!(output.stdout, whole);
    assert!(fs::symlink_metadata("/dev/stdout")?.is_symlink());
    // As a shell's `>(…)`.
    let output = succeeded(&mut rendered(&capture, Path::new("/dev/fd/1"))?)?;
    assert_eq!(output.stdout, whole);
    Ok(())
}

/// A name of a file, of a process and of a command line, in one.
#[test]
fn a_hostile_name_of_a_program_reaches_no_terminal() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = tempfile::tempdir()?;
    let name = "\u{1b}[2J\u{202e}\u{200b}\u{9b}1m\nx;<b>"
        .as_bytes()
        .to_vec();
    let program = directory.path().join(std::ffi::OsString::from_vec(name));
    machine::copy_program(&Fixture::Churn.build()?, &program)?;
    let target = churn(&program)?;
    let mut command = Command::new(residue()?);
    command.args(["record", "-d", "1s", "-p", &target.pid().to_string()]);
    let output = succeeded(command.current_dir(&directory))?;
    let said = String::from_utf8(output.stderr)?;
    assert_clean(&said);
    let capture = names(directory.path())?;
    let capture = capture.iter().find(|it| it.ends_with(".residue"));
    let capture = directory.path().join(capture.context("no capture")?);
    for format in ["text", "json", "folded", "flamegraph"] {
        let mut command = Command::new(residue()?);
        command.arg("report").arg(&capture);
        let output = succeeded(command.args(["--format", format]))?;
        assert_clean(std::str::from_utf8(&output.stdout)?);
    }
    // Errors name files.
    let mut command = Command::new(residue()?);
    let refused = command.arg("report").arg(program).output()?;
    assert_clean(std::str::from_utf8(&refused.stderr)?);
    Ok(())
}

fn assert_clean(text: &str) {
    let is_unclean = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{200b}".contains(c));
    let unclean = text.lines().find(|line| line.contains(is_unclean));
    assert_eq!(unclean, None);
}

/// A process may call itself as an option is called.
#[test]
fn the_next_command_can_be_copied_whatever_the_program_is_called() -> Result<()> {
    let _turn = machine::beside_others();
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("-rf");
    machine::copy_program(&Fixture::Churn.build()?, &program)?;
    let target = churn(&program)?;
    let pid = target.pid().to_string();
    for more in [&[][..], &["-o", "a b$(touch x)'.residue"]] {
        let mut command = Command::new(residue()?);
        command.args(["record", "-d", "1s", "-p", &pid]).args(more);
        let said = succeeded(command.current_dir(&directory))?.stderr;
        let said = String::from_utf8(said)?;
        let mut lines = said.lines();
        let next = lines.find_map(|it| Some(it.split_once("next: residue ")?.1));
        let next = next.context("no next command")?;
        let script = format!("\"$0\" {next}");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg(residue()?);
        succeeded(shell.current_dir(&directory))?;
    }
    assert!(!directory.path().join("x").exists());
    Ok(())
}
