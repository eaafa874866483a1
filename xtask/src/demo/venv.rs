//! Makes what the demo application runs in: a virtual environment, and its native library.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{command, setup::python, workspace};

/// The application, ready to start.
pub struct App {
    /// The directory that holds the package `assistant`.
    pub source: PathBuf,
    /// The virtual environment.
    pub venv: PathBuf,
    /// The library behind `assistant.thumbnails`.
    pub library: PathBuf,
}

/// Makes what is not there yet, under the target directory.
pub fn prepare() -> Result<App> {
    let source = workspace::root().join("xtask/demo");
    let built = workspace::target_dir().join("demo");
    fs::create_dir_all(&built).with_context(|| format!("failed to make {}", built.display()))?;
    let app = App {
        venv: built.join("venv"),
        library: built.join("libthumbnail.so"),
        source,
    };
    install_python_packages(&app)?;
    compile_library(&app)?;
    Ok(app)
}

fn install_python_packages(app: &App) -> Result<()> {
    let python = app.venv.join("bin/python");
    if command::succeeds(Command::new(&python).args(["-c", "import django, gunicorn"])) {
        return Ok(());
    }
    let interpreter =
        python::interpreter().context("no python3 with venv: run cargo xtask setup")?;
    println!("    making a virtual environment with Django and gunicorn");
    let mut venv = command::new(interpreter, &["-m", "venv", "--clear"]);
    command::run(venv.arg(&app.venv))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ];
    command::run(
        Command::new(&python)
            .args(pip)
            .arg(app.source.join("requirements.txt")),
    )
    .context("failed to install Django and gunicorn: is PyPI reachable?")
}

/// Compiles the library with frame pointers and without tail calls, so that a stack walk sees every
/// frame.
fn compile_library(app: &App) -> Result<()> {
    let flags = [
        "-shared",
        "-fPIC",
        "-O2",
        "-g",
        "-fno-omit-frame-pointer",
        "-fno-optimize-sibling-calls",
        "-o",
    ];
    let mut cc = command::new("cc", &flags);
    cc.arg(&app.library)
        .arg(app.source.join("native/thumbnail.c"));
    command::run(&mut cc).context("failed to compile the native library: install gcc")
}
