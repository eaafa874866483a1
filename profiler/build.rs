//! Builds the eBPF programs from source and writes the object to `$OUT_DIR/residue-ebpf`. The library embeds
//! that object, so that the finished `residue` is one file.
//!
//! The build has to compile `core` for `bpfel-unknown-none`, which the stable compiler of this workspace
//! cannot do. It needs a second toolchain with the sources of `core`, which `cargo xtask setup` installs.
//! This script finds that toolchain, so that a plain `cargo build` needs no setting.
//!
//! `cargo clippy` and each profile run this script once more, with a directory of their own. The programs are the
//! same in all of them, so the script has them built in one directory that all of them share.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use aya_build::{Package, Toolchain};

#[path = "build/toolchain.rs"]
mod toolchain;

use toolchain::{LINKER, TOOLCHAINS, in_path, usable_toolchain};

/// Where cargo has a build script put files.
const OUT_DIR: &str = "OUT_DIR";
/// The eBPF object. The package and the program have the same name.
const OBJECT: &str = "residue-ebpf";

fn main() -> Result<()> {
    ensure!(
        in_path(LINKER),
        "`{LINKER}` is not in PATH: run `cargo xtask setup`"
    );
    let toolchain = usable_toolchain()?.with_context(|| {
        format!("no toolchain among {TOOLCHAINS:?} has core's sources: run `cargo xtask setup`")
    })?;

    let own = PathBuf::from(env::var_os(OUT_DIR).context("cargo sets OUT_DIR")?);
    let shared = shared_by_all_runs(&own)?;
    fs::create_dir_all(&shared).with_context(|| format!("failed to make {}", shared.display()))?;
    // Cargo lets runs of different profiles overlap. The lock is released when this process ends.
    let lock = File::create(shared.join("lock")).context("failed to create a lock file")?;
    lock.lock().context("failed to lock")?;
    let shared = shared
        .to_str()
        .context("the target directory's name is UTF-8")?;

    // Only the build of the eBPF programs, in this process and in a child of it, sees these variables. The first
    // makes the stable compiler of `ebpf` accept `-Z build-std=core`. The second keeps the inner cargo from
    // announcing each crate, because the outer cargo would repeat that as warnings of this crate. The third says
    // where to build.
    for (variable, value) in [
        ("RUSTC_BOOTSTRAP", "1"),
        ("CARGO_TERM_QUIET", "true"),
        (OUT_DIR, shared),
    ] {
        // SAFETY: this process has one thread, so nobody else reads the environment at the same time.
        unsafe { env::set_var(variable, value) };
    }

    let programs = Package {
        name: OBJECT,
        root_dir: "../profiler-ebpf",
        features: &["programs"],
        ..Package::default()
    };
    aya_build::build_ebpf([programs], Toolchain::Custom(toolchain))
        .context("failed to build the eBPF programs; the compiler's messages are above")?;
    fs::copy(Path::new(shared).join(OBJECT), own.join(OBJECT))
        .with_context(|| format!("failed to copy {OBJECT} from {shared}"))?;
    Ok(())
}

/// The directory `ebpf` in cargo's target directory. `own` is `TARGET/PROFILE/build/PACKAGE/out`.
fn shared_by_all_runs(own: &Path) -> Result<PathBuf> {
    let target = own.ancestors().nth(4);
    let target =
        target.with_context(|| format!("{} is not in a target directory", own.display()))?;
    Ok(target.join("ebpf"))
}
