//! Python's frames, against what each Python that is installed says about itself.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    machine::{self, skipped},
    recorder::Recorder,
    report::{Frame, Stack},
    target::Target,
};

/// The versions whose frames residue knows.
const VERSIONS: [&str; 6] = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"];

/// Every Python that is there: those of pyenv, whose library is shared, and Debian's, which is static
/// and stripped. Says which versions are missing.
pub(super) fn pythons(test: &str) -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let root = env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    let entries = std::fs::read_dir(root.join("versions"));
    let installed: Vec<_> = entries.into_iter().flatten().flatten().collect();
    let mut found = Vec::new();
    for version in VERSIONS {
        let of_version = |name: &str| name.starts_with(&format!("{version}."));
        let mut named = installed.iter();
        match named.find(|entry| entry.file_name().to_str().is_some_and(of_version)) {
            Some(entry) => found.push(entry.path().join("bin/python3")),
            None => skipped(test, &format!("Python {version} (pyenv install {version})")),
        }
    }
    let debian = Path::new("/usr/bin/python3.11");
    if debian.exists() {
        found.push(debian.to_owned());
    } else {
        skipped(test, "Debian's python3.11");
    }
    found
}

/// By the size that it leaked: the stack as Python prints it, outermost first.
type Sites = BTreeMap<u64, String>;

#[test]
fn python_stacks_are_those_that_python_sees() -> Result<()> {
    let _turn = machine::alone();
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/python");
    for python in pythons("python_stacks_are_those_that_python_sees") {
        let mut target = Target::spawn(Command::new(&python).arg(targets.join("sites.py")))?;
        target.await_line("ready")?;
        let recorder = Recorder::start(&[target.pid()], &[])?;
        target.tell("go")?;
        let truth = sites(&target)?;
        let report = recorder.stop()?.report()?;
        ensure!(truth.len() == 19, "{}: {truth:#?}", python.display());
        for (size, expected) in &truth {
            let found: Vec<_> = (report.stacks.iter())
                .filter(|stack| stack.inuse_objects > 0 && leaks(stack, *size))
                .map(python_frames)
                .collect();
            assert_eq!(found, [expected.as_str()], "{} {size}", python.display());
        }
        assert_eq!(report.notes.get("python_cut"), Some(&0));
    }
    Ok(())
}

fn sites(target: &Target) -> Result<Sites> {
    let mut sites = Sites::new();
    loop {
        let line = target.await_line("")?;
        let Some(site) = line.strip_prefix("site ") else {
            ensure!(line == "done", "the target said {line}");
            return Ok(sites);
        };
        let (size, stack) = site.split_once(' ').context("a size and a stack")?;
        sites.insert(size.parse()?, stack.to_owned());
    }
}

/// Whether a stack has leaked one block of this size by a call from Python to C.
fn leaks(stack: &Stack, size: u64) -> bool {
    stack.inuse_bytes == size * stack.inuse_objects
}

/// As the target prints them.
fn python_frames(stack: &Stack) -> String {
    let is_python = |frame: &&Frame| {
        let file = frame.file.as_deref().unwrap_or_default();
        file.ends_with(".py") || file == "<string>"
    };
    let named = |frame: &Frame| format!("{}:{}", frame.name, frame.line.unwrap_or(0));
    let frames = stack.frames.iter().rev().filter(is_python).map(named);
    frames.collect::<Vec<_>>().join(";")
}
