//! Builds the fixture programs, each once: a build is repeated only when its sources or its
//! command have changed.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::machine::{self, Needed, find_in_path};

/// A program in `tests/targets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is documented at the top of its source")]
pub enum Fixture {
    HeapWalk,
    HeapWalkMusl,
    HeapWalkCpp,
    Churn,
    ForkExec,
    Sandboxed,
    Dlopen,
    Plugin,
    Bundled,
    Stacks,
    RustSystem,
    RustJemalloc,
    RustMimalloc,
    StaticStripped,
    ThirtyTwoBit,
}

/// Frame pointers in every function, and each function a frame of its own.
const WITH_FRAMES: &[&str] = &[
    "-g",
    "-fno-omit-frame-pointer",
    "-mno-omit-leaf-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-fno-builtin",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-Werror",
];

/// How a fixture is built.
struct Recipe {
    compiler: Needed,
    source: &'static str,
    output: &'static str,
    flags: &'static [&'static str],
}

const fn by_cc(
    source: &'static str,
    output: &'static str,
    flags: &'static [&'static str],
) -> Recipe {
    Recipe {
        compiler: Needed {
            program: "cc",
            package: "gcc",
        },
        source,
        output,
        flags,
    }
}

const MUSL_GCC: Needed = Needed {
    program: "musl-gcc",
    package: "musl-tools",
};
const CXX: Needed = Needed {
    program: "c++",
    package: "g++",
};
const CARGO: Needed = Needed {
    program: "cargo",
    package: "cargo",
};

impl Fixture {
    /// Every fixture.
    pub const ALL: [Self; 15] = [
        Self::HeapWalk,
        Self::HeapWalkMusl,
        Self::HeapWalkCpp,
        Self::Churn,
        Self::ForkExec,
        Self::Sandboxed,
        Self::Dlopen,
        Self::Plugin,
        Self::Bundled,
        Self::Stacks,
        Self::RustSystem,
        Self::RustJemalloc,
        Self::RustMimalloc,
        Self::StaticStripped,
        Self::ThirtyTwoBit,
    ];

    /// Whether it is built already, or its compiler is here. When not, says on standard error which
    /// package `test` lacks.
    #[must_use]
    pub fn can_be_had(self, test: &str) -> bool {
        built_elsewhere().is_some() || machine::has(test, self.recipe().compiler)
    }

    const fn recipe(self) -> Recipe {
        match self {
            Self::HeapWalk => by_cc("heap_walk.c", "heap_walk", &["-O2"]),
            Self::HeapWalkMusl => Recipe {
                compiler: MUSL_GCC,
                ..by_cc("heap_walk.c", "heap_walk_musl", &["-O2", "-static"])
            },
            Self::HeapWalkCpp => Recipe {
                compiler: CXX,
                ..by_cc("heap_walk_cpp.cc", "heap_walk_cpp", &["-O2", "-std=c++17"])
            },
            Self::Churn => by_cc("churn.c", "churn", &["-O2"]),
            Self::ForkExec => by_cc("fork_exec.c", "fork_exec", &["-O2"]),
            Self::Sandboxed => by_cc("sandboxed.c", "sandboxed", &["-O2"]),
            Self::Dlopen => by_cc("dlopen.c", "dlopen", &["-O2", "-ldl"]),
            Self::Plugin => by_cc("plugin.c", "libplugin.so", &["-O2", "-fPIC", "-shared"]),
            Self::Bundled => by_cc(
                "plugin.c",
                "libbundled.so",
                &["-O2", "-fPIC", "-shared", "-DBUNDLED"],
            ),
            // Ten thousand functions: anything above -O0 takes half a minute.
            Self::Stacks => by_cc("stacks.c", "stacks", &["-O0"]),
            Self::StaticStripped => Recipe {
                compiler: MUSL_GCC,
                ..by_cc("refused.c", "static_stripped", &["-O2", "-static", "-s"])
            },
            Self::ThirtyTwoBit => by_cc(
                "thirty_two.S",
                "thirty_two",
                &["-m32", "-nostdlib", "-static", "-no-pie"],
            ),
            Self::RustSystem => cargo_binary("rust_system"),
            Self::RustJemalloc => cargo_binary("rust_jemalloc"),
            Self::RustMimalloc => cargo_binary("rust_mimalloc"),
        }
    }

    /// Builds it, if need be, and returns its path. `RESIDUE_FIXTURES` names a directory where all of
    /// them are built already, for a machine that has no compilers.
    ///
    /// # Errors
    ///
    /// When the compiler is missing, with the package to install; or does not accept the source.
    pub fn build(self) -> Result<PathBuf> {
        let recipe = self.recipe();
        if let Some(directory) = built_elsewhere() {
            return Ok(directory.join(recipe.output));
        }
        let Needed { program, package } = recipe.compiler;
        ensure!(
            find_in_path(program).is_some(),
            "{program} is needed to build {}: run `apt-get install {package}`",
            recipe.output,
        );
        let directory = target_directory().join("fixtures");
        fs::create_dir_all(&directory).context("failed to make the fixtures' directory")?;
        if program == CARGO.program {
            return build_by_cargo(&recipe, &directory.join("rust"));
        }
        build_by_cc(&recipe, &directory)
    }
}

fn built_elsewhere() -> Option<PathBuf> {
    env::var_os("RESIDUE_FIXTURES").map(PathBuf::from)
}

const fn cargo_binary(name: &'static str) -> Recipe {
    Recipe {
        compiler: CARGO,
        source: "rust",
        output: name,
        flags: &[],
    }
}

fn build_by_cc(recipe: &Recipe, directory: &Path) -> Result<PathBuf> {
    let output = directory.join(recipe.output);
    let stamp = directory.join(format!("{}.built-from", recipe.output));
    let wanted = fingerprint(recipe)?;
    if output.exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == wanted) {
        return Ok(output);
    }
    // Libraries follow the source that needs them.
    let mut command = Command::new(recipe.compiler.program);
    command
        .args(WITH_FRAMES)
        .arg(sources().join(recipe.source))
        .args(recipe.flags)
        .arg("-o")
        .arg(&output);
    run(&mut command, recipe.output)?;
    fs::write(&stamp, wanted).context("failed to note what a fixture was built from")?;
    Ok(output)
}

/// Cargo knows by itself what has changed.
fn build_by_cargo(recipe: &Recipe, target: &Path) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--bin",
            recipe.output,
        ])
        .current_dir(sources().join(recipe.source))
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTFLAGS", "-C force-frame-pointers=yes")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(&mut command, recipe.output)?;
    Ok(target.join("release").join(recipe.output))
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("failed to start {command:?}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("failed to build the fixture {what} by {command:?}:\n{errors}");
    }
    Ok(())
}

/// Every source in the directory counts: they include each other, and are few.
fn fingerprint(recipe: &Recipe) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    (
        recipe.compiler.program,
        recipe.source,
        recipe.flags,
        WITH_FRAMES,
    )
        .hash(&mut hasher);
    let mut files: Vec<PathBuf> = fs::read_dir(sources())
        .context("failed to list the fixtures' sources")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    for file in files {
        fs::read(&file)
            .with_context(|| format!("failed to read {}", file.display()))?
            .hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("targets")
}

/// Cargo's target directory.
#[must_use]
pub fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}
