//! Finds or installs a Python that can make virtual environments, for the demo.

use anyhow::{Context as _, Result};

use crate::{command, setup::apt};

/// The interpreters to try: first the one in `PATH`, then the distribution's.
const INTERPRETERS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// Installs `python3-venv` unless some Python has it. Returns a line that says what there is.
pub fn ensure() -> Result<String> {
    if interpreter().is_none() {
        apt::install(&["python3-venv"])?;
    }
    let python = interpreter().context("no python3 has the module venv: install python3-venv")?;
    Ok(format!("{python} with venv"))
}

/// Finds a Python with the modules that `python3 -m venv` needs.
pub fn interpreter() -> Option<&'static str> {
    INTERPRETERS.into_iter().find(|python| {
        command::succeeds(&mut command::new(python, &["-c", "import venv, ensurepip"]))
    })
}
