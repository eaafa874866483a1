//! Builds the eBPF programs from source and writes the object to `$OUT_DIR/residue-ebpf`. The library embeds
//! that object, so that the finished `residue` is one file.
//!
//! The build has to compile `core` for `bpfel-unknown-none`, which the stable compiler of this workspace
//! cannot do. It needs a second toolchain with the sources of `core`, which `cargo xtask setup` installs.
//! This script finds that toolchain, so that a plain `cargo build` needs no setting.

use std::env;

use anyhow::{Context as _, Result, ensure};
use aya_build::{Package, Toolchain};

#[path = "build/toolchain.rs"]
mod toolchain;

use toolchain::{LINKER, TOOLCHAINS, in_path, usable_toolchain};

fn main() -> Result<()> {
    ensure!(
        in_path(LINKER),
        "`{LINKER}` is not in PATH: run `cargo xtask setup`"
    );
    let toolchain = usable_toolchain()?.with_context(|| {
        format!("no toolchain among {TOOLCHAINS:?} has core's sources: run `cargo xtask setup`")
    })?;

    // Only the build of the eBPF programs, a child of this process, inherits these variables. The first
    // makes the stable compiler of `ebpf` accept `-Z build-std=core`. The second keeps the inner cargo from
    // announcing each crate, because the outer cargo would repeat that as warnings of this crate.
    for (variable, value) in [("RUSTC_BOOTSTRAP", "1"), ("CARGO_TERM_QUIET", "true")] {
        // SAFETY: this process has one thread, so nobody else reads the environment at the same time.
        unsafe { env::set_var(variable, value) };
    }

    let programs = Package {
        name: "residue-ebpf",
        root_dir: "../profiler-ebpf",
        features: &["programs"],
        ..Package::default()
    };
    aya_build::build_ebpf([programs], Toolchain::Custom(toolchain))
        .context("failed to build the eBPF programs; the compiler's messages are above")
}
