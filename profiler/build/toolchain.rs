//! Finds the toolchain that builds the eBPF programs. `build.rs` uses that toolchain, and `cargo xtask setup`
//! installs one when there is none.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// The toolchains that may build the programs, best first. `ebpf` is the name under which `cargo xtask setup`
/// links the compiler of a Linux distribution, which also has a linker for that compiler's LLVM.
pub const TOOLCHAINS: [&str; 2] = ["ebpf", "nightly"];

/// The linker that turns LLVM bitcode into an eBPF object.
pub const LINKER: &str = "bpf-linker";

/// The first toolchain that is installed with the sources of `core`. Not every `nightly` has them: rustup
/// installs the sources only with the component `rust-src`.
pub fn usable_toolchain() -> Result<Option<&'static str>> {
    for toolchain in TOOLCHAINS {
        if sysroot(toolchain)?.is_some_and(|root| has_core_sources(&root)) {
            return Ok(Some(toolchain));
        }
    }
    Ok(None)
}

/// Whether a program of this name is in `PATH`.
pub fn in_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The directory of a toolchain, if the toolchain is installed.
fn sysroot(toolchain: &str) -> Result<Option<PathBuf>> {
    let output = Command::new("rustup")
        .args(["run", toolchain, "rustc", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output()
        .context("failed to run `rustup`: install it from https://rustup.rs")?;
    let path = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success().then(|| path.trim().into()))
}

fn has_core_sources(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .is_file()
}
