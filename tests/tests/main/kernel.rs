//! The kernel that runs accepts what residue loads into it.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use residue_tests::recorder::residue;

/// Those too that no target here makes residue load.
#[test]
fn the_verifier_accepts_every_program() -> Result<()> {
    let output = Command::new(residue()?)
        .args(["inspect", "programs"])
        .stdin(Stdio::null())
        .output()?;
    let table = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{table}{errors}");
    ensure!(table.contains("enter_malloc"), "no table:\n{table}");
    Ok(())
}
