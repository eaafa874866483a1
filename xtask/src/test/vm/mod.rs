//! `cargo xtask test --vm`: runs the exactness tests, and two tests of whole stacks, on other
//! kernels than the one that runs here.
//!
//! Each kernel boots in QEMU and runs the test binary of the host, with targets that the host has
//! built. QEMU emulates the processor, so the tests need neither root nor virtualization, and work
//! inside a virtual machine.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    INTEGRATION,
    tally::{self, Tally},
};
use crate::{
    command::{self, cargo},
    setup,
    step::Steps,
    workspace,
};

mod initramfs;
mod kernel;

use initramfs::Programs;

/// Debian's kernels: the name of a step, and the series. The first is the oldest kernel that
/// residue supports.
const KERNELS: [(&str, &str); 2] = [("Linux 6.1", "6.1"), ("Linux 6.12", "6.12")];

/// Seconds after which a guest counts as dead. A guest takes about two minutes on two cores.
const LIMIT: &str = "600";

/// Runs the tests on every kernel, and stops at the first kernel on which they fail.
pub fn run() -> Result<()> {
    let mut steps = Steps::default();
    steps.run("setup", setup::with_virtual_machines)?;
    let programs = steps.run("release build", build)?;
    let initramfs = steps.run("initramfs", || initramfs::write(&programs))?;
    let mut tally = Tally::default();
    for (name, series) in KERNELS {
        tally += steps.run(name, || boot(&kernel::of_series(series)?, &initramfs))?;
    }
    steps.summarize();
    println!("\ntest result: ok. {tally}");
    Ok(())
}

fn build() -> Result<Programs> {
    command::run(&mut cargo(&["build", "--release", "--package=residue"]))?;
    let messages = command::output(&mut cargo(&[
        "test",
        "--release",
        "--no-run",
        "--package",
        INTEGRATION,
        // `--test=main` builds only this test. Otherwise cargo also builds the unit tests of each
        // binary, under the name of the binary.
        "--test=main",
        "--message-format=json-render-diagnostics",
    ]))?;
    let messages = String::from_utf8(messages).context("cargo's messages are UTF-8")?;
    let fixtures = executable(&messages, "bin", "fixtures")?;
    let paths = command::output(&mut command::new(&fixtures, &[]))?;
    let paths = String::from_utf8(paths).context("the fixtures' paths are UTF-8")?;
    Ok(Programs {
        residue: workspace::residue(),
        tests: executable(&messages, "test", "main")?.into(),
        fixtures: paths.lines().map(PathBuf::from).collect(),
    })
}

/// Finds the executable that cargo says it has built for a target.
fn executable(messages: &str, kind: &str, name: &str) -> Result<String> {
    let built = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let target = &message["target"];
        let is_wanted = target["name"] == name && target["kind"][0] == kind;
        let executable = message["executable"].as_str().filter(|_| is_wanted)?;
        Some(executable.to_owned())
    });
    built.with_context(|| format!("cargo has built no {kind} {name}"))
}

/// Shows the guest's console, and reads the results of the tests from it.
fn boot(kernel: &Path, initramfs: &Path) -> Result<Tally> {
    let mut qemu = command::new("timeout", &["--foreground", LIMIT, "qemu-system-x86_64"]);
    // The guest's processors take turns on one thread of the host. With a thread each, one
    // processor may run into a breakpoint of the kernel's own code patching after another processor
    // has taken the breakpoint out (`Oops: int3`), because QEMU has translated the code before.
    qemu.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2"])
        .args(["-m", "1024"])
        .args(["-nic", "none", "-display", "none", "-monitor", "none"])
        .args(["-serial", "stdio", "-no-reboot"])
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null());
    let tally = tally::run(&mut qemu)?;
    ensure!(tally.all_passed(), "the guest's console is above: {tally}");
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_known_by_its_targets_kind_and_name() -> Result<()> {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"main"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"main"},"executable":"/t/main-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "test", "main")?, "/t/main-1");
        assert!(executable(messages, "bin", "main").is_err());
        Ok(())
    }
}
