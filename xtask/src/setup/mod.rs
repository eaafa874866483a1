//! `cargo xtask setup`: installs what a fresh machine lacks, and does nothing when everything is
//! there.

use anyhow::Result;

mod apt;
mod ebpf;
mod packages;
pub mod python;

pub use apt::is_root;

/// The packages that boot other kernels.
const VIRTUAL_MACHINES: [&str; 2] = ["busybox-static", "qemu-system-x86"];

/// Does what [`run`] does, and makes this machine able to boot other kernels.
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
