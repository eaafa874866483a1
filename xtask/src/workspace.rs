//! The paths of things in this repository.

use std::path::{Path, PathBuf};

/// The directory that holds the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// The directory in which cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The path of the release build of the profiler.
pub fn residue() -> PathBuf {
    target_dir().join("release/residue")
}
