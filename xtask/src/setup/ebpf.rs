//! The second toolchain, which builds the eBPF programs: a compiler with the sources of `core`, and
//! a `bpf-linker` whose LLVM is at least as new as the compiler's.
//!
//! There are two routes. Each brings the compiler and the linker together, because their LLVMs have
//! to fit:
//!
//! - Route 1: rustup's nightly, and the linker that its project releases, with LLVM built in.
//! - Route 2: the distribution's own compiler, linked into rustup under the name `ebpf`, and a
//!   linker built against the distribution's LLVM. This is for hosts that reach Debian's servers
//!   and crates.io, but not the servers of rustup or GitHub.

use std::{env, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    command,
    setup::apt,
    toolchain::{LINKER, in_path, usable_toolchain},
    workspace,
};

const LINKER_VERSION: &str = "0.13.0";
/// The LLVM of Debian's `rustc-web`, and the name of the linker's feature.
const LLVM: &str = "22";
const PACKAGES: [&str; 6] = [
    "rustc-web",
    "rust-web-src",
    "rust-web-clippy",
    "cargo-web",
    "llvm-22-dev",
    "libpolly-22-dev",
];

/// The time limit of a connection. A server that does not answer must not hold up the other route.
const CONNECT_SECONDS: &str = "10";
const DOWNLOAD: Duration = Duration::from_secs(240);

/// Installs the toolchain unless it is there. Returns a line that says what there is.
pub fn ensure() -> Result<String> {
    if let Some(ready) = ready()? {
        return Ok(ready);
    }
    println!("setup: no toolchain for eBPF yet; trying rustup's nightly");
    if let Err(error) = from_rustup() {
        println!("setup: that route is closed ({error:#}); trying the distribution's packages");
        from_distribution().context(
            "no route to a toolchain for eBPF. With network, run \
             `rustup toolchain install nightly --component rust-src` and put a bpf-linker from \
             https://github.com/aya-rs/bpf-linker/releases in PATH; or, on Debian, run \
             `cargo xtask setup` as root",
        )?;
    }
    ready()?.context("the toolchain was installed, but is not found: is ~/.cargo/bin in PATH?")
}

fn ready() -> Result<Option<String>> {
    let toolchain = usable_toolchain()?.filter(|_| in_path(LINKER));
    Ok(toolchain.map(|name| format!("eBPF by toolchain `{name}`")))
}

/// Takes route 1. The linker comes first, because it is smaller, so a missing route shows soonest.
fn from_rustup() -> Result<()> {
    if !in_path(LINKER) {
        download_linker()?;
    }
    let has_nightly = command::succeeds(
        command::new("rustup", &["run", "nightly", "rustc", "--version"])
            .env("RUSTUP_AUTO_INSTALL", "0"),
    );
    let args: &[&str] = if has_nightly {
        // This leaves the nightly at its version, because somebody else may use it.
        &["component", "add", "rust-src", "--toolchain", "nightly"]
    } else {
        // Without --no-self-update, rustup would replace itself under everyone who runs it.
        &[
            "toolchain",
            "install",
            "nightly",
            "--no-self-update",
            "--profile=minimal",
            "--component=rust-src,clippy",
        ]
    };
    command::run_within(&mut command::new("rustup", args), DOWNLOAD)
}

/// Unpacks the released linker into cargo's directory for programs.
fn download_linker() -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        bail!("residue runs on x86-64 only");
    }
    let url = format!(
        "https://github.com/aya-rs/bpf-linker/releases/download/v{LINKER_VERSION}/\
         bpf-linker-x86_64-unknown-linux-musl.tar.zst"
    );
    let bin = cargo_bin()?;
    let scratch = workspace::target_dir().join("setup");
    fs::create_dir_all(&scratch).context("failed to make a directory under target")?;
    let archive = scratch.join("bpf-linker.tar.zst");
    let mut curl = command::new(
        "curl",
        &["-fsSL", "--connect-timeout", CONNECT_SECONDS, "-o"],
    );
    command::run_within(curl.arg(&archive).arg(&url), DOWNLOAD)?;
    let mut tar = command::new("tar", &["--zstd", "-xf"]);
    command::run(tar.arg(&archive).arg("-C").arg(&scratch))?;
    fs::create_dir_all(&bin)
        .and_then(|()| fs::copy(scratch.join(LINKER), bin.join(LINKER)))
        .with_context(|| format!("failed to put {LINKER} into {}", bin.display()))?;
    Ok(())
}

/// Takes route 2.
fn from_distribution() -> Result<()> {
    let missing = apt::missing(&PACKAGES);
    if !missing.is_empty() {
        apt::install(&missing)?;
    }
    if usable_toolchain()?.is_none_or(|name| name != "ebpf") {
        println!("setup: rustup toolchain link ebpf /usr");
        command::run(&mut command::new(
            "rustup",
            &["toolchain", "link", "ebpf", "/usr"],
        ))?;
    }
    if in_path(LINKER) {
        return Ok(());
    }
    let linker = format!("{LINKER}@{LINKER_VERSION}");
    let feature = format!("llvm-{LLVM}");
    println!("setup: cargo install {linker} (about a minute)");
    command::run(
        command::cargo(&["install", "--quiet", &linker, "--no-default-features"])
            .args(["--features", &feature])
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}")),
    )
}

/// Returns the directory in which cargo puts installed programs. Rustup has put it into `PATH`.
fn cargo_bin() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    Ok(home.join("bin"))
}
