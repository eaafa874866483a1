//! `cargo xtask setup`: brings what a fresh machine lacks, and does nothing when all is there.

use anyhow::Result;

mod apt;
mod ebpf;
mod packages;
pub mod python;

pub use apt::is_root;

/// Makes this machine able to build, test and show the demo.
pub fn run() -> Result<()> {
    let ebpf = ebpf::ensure()?;
    let packages = packages::ensure()?;
    let python = python::ensure()?;
    println!("setup: {ebpf}; {packages}; {python}");
    Ok(())
}
