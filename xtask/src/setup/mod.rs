//! `cargo xtask setup`: brings what a fresh machine lacks, and does nothing when all is there.

use anyhow::Result;

mod apt;
mod ebpf;
mod packages;
pub mod python;

pub use apt::is_root;

/// What boots other kernels.
const VIRTUAL_MACHINES: [&str; 2] = ["busybox-static", "qemu-system-x86"];

/// As [`run`], and makes this machine able to boot other kernels too.
pub fn with_virtual_machines() -> Result<()> {
    run()?;
    let missing = apt::missing(&VIRTUAL_MACHINES);
    if !missing.is_empty() {
        apt::install(&missing)?;
    }
    Ok(())
}

/// Makes this machine able to build, test and show the demo.
pub fn run() -> Result<()> {
    let ebpf = ebpf::ensure()?;
    let packages = packages::ensure()?;
    let python = python::ensure()?;
    println!("setup: {ebpf}; {packages}; {python}");
    Ok(())
}
