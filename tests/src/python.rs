//! The Pythons of this machine, and what is compiled or installed for them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    fixtures::{once, sources, target_directory},
    machine::{has_time_for, skipped},
    report::{Frame, Report, Stack},
    target::Target,
};

/// The versions whose frames residue knows.
const VERSIONS: [&str; 6] = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13"];
/// Debian's, which is static and stripped.
const DEBIAN: &str = "/usr/bin/python3.11";

/// One interpreter.
#[derive(Clone, Debug)]
pub struct Python {
    /// The program.
    pub path: PathBuf,
    /// For a person, and for directories: `3.8`, `debian`.
    pub name: &'static str,
}

/// Every Python that is there: those of pyenv, whose library is shared, and Debian's. Says which are
/// missing.
#[must_use]
pub fn pythons() -> Vec<Python> {
    let mut found = Vec::new();
    for name in VERSIONS {
        match pyenv(name) {
            Some(path) => found.push(Python { path, name }),
            None => skipped(&format!("Python {name} (pyenv install {name})")),
        }
    }
    if Path::new(DEBIAN).exists() {
        let path = DEBIAN.into();
        let name = "debian";
        found.push(Python { path, name });
    } else {
        skipped("Debian's python3.11");
    }
    found
}

/// Those of [`pythons`] that a test has to run with: all where every test runs, and otherwise the oldest, the newest and
/// the static one. Says which are left out.
#[must_use]
pub fn pythons_to_run() -> Vec<Python> {
    to_run(pythons())
}

/// As [`pythons`], the programs alone.
#[must_use]
pub fn all_programs() -> Vec<PathBuf> {
    let pythons = pythons().into_iter();
    pythons.map(|python| python.path).collect()
}

/// As [`pythons_to_run`], the programs alone.
#[must_use]
pub fn programs() -> Vec<PathBuf> {
    let pythons = pythons_to_run().into_iter();
    pythons.map(|python| python.path).collect()
}

/// As [`pythons_to_run`], without those whose interpreter is laid out as another's: Debian's and 3.9.
#[must_use]
pub fn python_layouts() -> Vec<Python> {
    let mut found = pythons();
    found.retain(|python| !matches!(python.name, "3.9" | "debian"));
    to_run(found)
}

/// The versions that differ most from each other.
const FAR_APART: [&str; 3] = [VERSIONS[0], VERSIONS[VERSIONS.len() - 1], "debian"];

fn to_run(mut pythons: Vec<Python>) -> Vec<Python> {
    let is_far_apart = |python: &Python| FAR_APART.contains(&python.name);
    let others = pythons.iter().filter(|python| !is_far_apart(python));
    let others: Vec<_> = others.map(|python| python.name).collect();
    if !others.is_empty() && !has_time_for(&format!("Python {}", others.join(", "))) {
        pythons.retain(is_far_apart);
    }
    pythons
}

fn pyenv(version: &str) -> Option<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let root = env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    let prefix = format!("{version}.");
    let versions = fs::read_dir(root.join("versions")).ok()?.flatten();
    let named = |name: &str| name.starts_with(&prefix);
    let mut of_version = versions.filter(|it| it.file_name().to_str().is_some_and(named));
    Some(of_version.next()?.path().join("bin/python3"))
}

impl Python {
    /// Runs a script of `targets/python`, with the extension module in its path.
    ///
    /// # Errors
    ///
    /// When it does not start, or does not say that it is ready.
    pub fn start(&self, script: &str, arguments: &[&str]) -> Result<Target> {
        let mut command = Command::new(&self.path);
        command
            .arg(directory().join(script))
            .args(arguments)
            .env("PYTHONPATH", self.built())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let target = Target::spawn(&mut command)?;
        target.await_line("ready")?;
        Ok(target)
    }

    fn built(&self) -> PathBuf {
        target_directory().join("fixtures/python").join(self.name)
    }

    fn says(&self, expression: &str) -> Result<String> {
        let program = format!("import sysconfig; print({expression})");
        let output = Command::new(&self.path).args(["-c", &program]).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Compiles a module of `targets/python` against this version's headers. When they are missing,
    /// says on standard output which package `test` lacks.
    ///
    /// # Errors
    ///
    /// When the compiler does not accept it.
    pub fn build_extension(&self, module: &str) -> Result<bool> {
        let headers = PathBuf::from(self.says("sysconfig.get_paths()['include']")?);
        if !headers.join("Python.h").exists() {
            skipped(&format!("headers of {} (python3-dev)", self.name));
            return Ok(false);
        }
        let output = self.built().join(format!("{module}.so"));
        once(&output.to_string_lossy(), || {
            self.compile(module, &headers, &output)?;
            Ok(output.clone())
        })?;
        Ok(true)
    }

    fn compile(&self, module: &str, headers: &Path, output: &Path) -> Result<()> {
        fs::create_dir_all(self.built())?;
        let mut cc = Command::new("cc");
        cc.args([
            "-shared",
            "-fPIC",
            "-O2",
            "-g",
            "-Wall",
            "-Werror",
            "-fno-builtin",
        ])
        .arg("-fno-optimize-sibling-calls")
        .arg("-I")
        .arg(headers)
        .arg(directory().join(format!("{module}.c")))
        .arg("-o")
        .arg(output);
        let output = cc.output().context("failed to start cc")?;
        ensure!(
            output.status.success(),
            "{}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Another interpreter of the same version, with packages of PyPI. When they cannot be had, says
    /// so for `test`.
    ///
    /// # Errors
    ///
    /// When the virtual environment cannot be made.
    pub fn with_packages(&self, packages: &[&str]) -> Result<Option<Self>> {
        // An environment for each set of packages: a server takes a faster loop or parser where it finds one, and a test
        // means the server without.
        let venv = format!("{}-{}", self.name, packages.join("-"));
        let venv = target_directory().join("fixtures/venv").join(venv);
        let path = venv.join("bin/python3");
        let mut lacking = None;
        let made = once(&path.to_string_lossy(), || {
            lacking = self.make_venv(&venv, packages)?;
            ensure!(lacking.is_none(), "there is no {}", venv.display());
            Ok(path.clone())
        });
        if let Some(lacking) = lacking {
            skipped(&lacking);
            return Ok(None);
        }
        let (path, name) = (made?, self.name);
        Ok(Some(Self { path, name }))
    }

    /// Makes a virtual environment with packages, unless it is there. Returns what the machine lacks for that.
    fn make_venv(&self, venv: &Path, packages: &[&str]) -> Result<Option<String>> {
        let python = venv.join("bin/python3");
        let imports = format!("import {}", packages.join(", "));
        let has_all = || {
            let mut import = Command::new(&python);
            let output = import.args(["-c", &imports]).output();
            output.is_ok_and(|it| it.status.success())
        };
        if has_all() {
            return Ok(None);
        }
        // A pip of its own is most of what a new environment costs.
        let has_pip = Command::new(&self.path)
            .args(["-m", "pip", "--python"])
            .arg(&self.path)
            .arg("--version")
            .output()?;
        let has_pip = has_pip.status.success();
        let mut make = Command::new(&self.path);
        make.args(["-m", "venv", "--clear"]).arg(venv);
        if has_pip {
            make.arg("--without-pip");
        }
        if !make.output()?.status.success() {
            return Ok(Some(format!("venv in {} (python3-venv)", self.name)));
        }
        let mut pip = Command::new(if has_pip { &self.path } else { &python });
        pip.args(["-m", "pip"]);
        if has_pip {
            pip.arg("--python").arg(&python);
        }
        pip.args(["install", "--quiet", "--only-binary=:all:"]);
        if !pip.args(packages).output()?.status.success() {
            return Ok(Some(format!("{} from PyPI", packages.join(" and "))));
        }
        ensure!(has_all(), "pip has installed what cannot be imported");
        Ok(None)
    }
}

fn directory() -> PathBuf {
    sources().join("python")
}

/// One block that a target has left behind, as it tells.
#[derive(Clone, Debug)]
pub struct Site {
    /// Bytes, different for each site.
    pub size: u64,
    /// Outermost first: `FUNCTION:LINE` of Python, `FUNCTION` of the extension.
    pub frames: String,
}

/// What a target says until `done`.
///
/// # Errors
///
/// When it says something else.
pub fn sites(target: &Target) -> Result<Vec<Site>> {
    let mut sites = Vec::new();
    loop {
        let line = target.await_line("")?;
        let Some(site) = line.strip_prefix("site ") else {
            if line == "done" {
                return Ok(sites);
            }
            bail!("the target said {line}");
        };
        let (size, frames) = site.split_once(' ').context("a size and a stack")?;
        let size = size.parse()?;
        let frames = frames.to_owned();
        // A loop comes by the same place again.
        if sites
            .iter()
            .all(|site: &Site| site.size != size || site.frames != frames)
        {
            sites.push(Site { size, frames });
        }
    }
}

/// The stacks that hold nothing but blocks of one size.
pub fn holding(report: &Report, size: u64) -> impl Iterator<Item = &Stack> {
    let holds = move |stack: &&Stack| {
        stack.inuse_objects > 0 && stack.inuse_bytes == size * stack.inuse_objects
    };
    report.stacks.iter().filter(holds)
}

/// The frames of Python and of the module `bridge`, as targets tell them.
#[must_use]
pub fn told(stack: &Stack) -> String {
    let frames = stack.frames.iter().rev().filter_map(tell);
    frames.collect::<Vec<_>>().join(";")
}

fn tell(frame: &Frame) -> Option<String> {
    python_frame(frame).or_else(|| {
        let module = frame.module.as_deref()?;
        module.ends_with("/bridge.so").then(|| frame.name.clone())
    })
}

/// A frame as targets tell it, if it is Python's. No native frame has a source file and no module.
#[must_use]
pub fn python_frame(frame: &Frame) -> Option<String> {
    if frame.name == STALE {
        return Some(STALE.to_owned());
    }
    let is_python = frame.module.is_none() && frame.file.is_some();
    is_python.then(|| format!("{}:{}", frame.name, frame.line.unwrap_or(0)))
}

/// What Python code is called that was freed before its name was read.
pub const STALE: &str = "<stale code>";

/// What is zero where nothing of Python's stacks is missing.
const GAPS: [&str; 4] = [
    "python_cut",
    "python_missing",
    "python_code_table_full",
    "python_code_stale",
];

/// Panics if any Python frame is missing, or has no name.
///
/// # Panics
///
/// See above.
pub fn assert_no_gap(report: &Report, name: &str) {
    for gap in GAPS {
        assert_eq!(report.notes.get(gap), Some(&0), "{name}: {gap}");
    }
}
