//! Builds the eBPF programs from source and leaves the object at `$OUT_DIR/residue-ebpf`, from
//! where the library embeds it: the finished `residue` is one file.
//!
//! `core` has to be compiled for `bpfel-unknown-none`, so the stable compiler of this workspace
//! does not do: a second toolchain is needed, with the sources of `core`. `cargo xtask setup`
//! brings one; which one it brought is found here, so that a plain `cargo build` needs no setting.

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

    // These end with this process: only the build of the eBPF programs inherits them. The first
    // makes the stable compiler of `ebpf` take `-Z build-std=core`. The second keeps cargo from
    // announcing each crate, which would be repeated as warnings of this one.
    for (variable, value) in [("RUSTC_BOOTSTRAP", "1"), ("CARGO_TERM_QUIET", "true")] {
        // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
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
