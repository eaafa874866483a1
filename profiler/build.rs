//! Builds the eBPF programs from source and leaves the object at `$OUT_DIR/residue-ebpf`, from
//! where the library embeds it: the finished `residue` is one file.
//!
//! `core` has to be compiled for `bpfel-unknown-none`, so the stable compiler of this workspace
//! does not do: a second toolchain is needed, with the sources of `core`. `cargo xtask setup`
//! brings one; which one it brought is found here, so that a plain `cargo build` needs no setting.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya_build::{Package, Toolchain};

/// The toolchains that may build the programs, best first. `ebpf` is the name under which
/// `cargo xtask setup` links a distribution's compiler where rustup's servers cannot be reached.
const TOOLCHAINS: [&str; 2] = ["ebpf", "nightly"];

fn main() -> Result<()> {
    ensure!(
        in_path("bpf-linker"),
        "`bpf-linker` is not in PATH: run `cargo xtask setup`"
    );
    let toolchain = usable_toolchain()?;

    // SAFETY: nothing else runs in this process yet, so nobody reads the environment meanwhile.
    // It makes the stable compiler of `ebpf` take `-Z build-std=core`, and ends with this process:
    // only the compiler of the eBPF programs inherits it.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };

    let programs = Package {
        name: "residue-ebpf",
        root_dir: "../profiler-ebpf",
        features: &["programs"],
        ..Package::default()
    };
    aya_build::build_ebpf([programs], Toolchain::Custom(toolchain))
        .context("failed to build the eBPF programs; the compiler's messages are above")
}

/// The first toolchain that is installed with the sources of `core`. A `nightly` alone is not
/// enough: rustup installs it without them unless asked for `rust-src`.
fn usable_toolchain() -> Result<&'static str> {
    for toolchain in TOOLCHAINS {
        if sysroot(toolchain)?.is_some_and(|root| has_core_sources(&root)) {
            return Ok(toolchain);
        }
    }
    bail!(
        "no toolchain among {TOOLCHAINS:?} has the sources of `core`: run `cargo xtask setup`, \
         or `rustup toolchain install nightly --component rust-src`"
    )
}

/// Where a toolchain lives, if it is installed.
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

fn in_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
