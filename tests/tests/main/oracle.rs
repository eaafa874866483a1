//! The stacks that residue walks are those that framehop walks, for programs as they are shipped:
//! without frame pointers, under load.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    fixtures::{Fixture, sources},
    machine::{self, Knobs, NODE, Needed, PATIENCE, wait_until},
    oracle::{
        code::Code,
        growing::Growing,
        run::{compare_file, compare_under_load},
    },
    target::Target,
};

mod load;
mod nginx;
mod redis;

/// The distribution's, stripped and linked statically; `PATH` may have others before it.
const PYTHON: Needed = Needed {
    program: "/usr/bin/python3",
    package: "python3",
};

/// Compares as many of its stacks as are asked for, and prints the table.
fn assert_agreement(name: &str, pid: u32) -> Result<()> {
    let wanted = Knobs::from_env().oracle_stacks;
    let summary = compare_under_load(name, pid, wanted)?;
    summary.assert_agrees(wanted);
    println!("{summary}");
    Ok(())
}

/// Starts a program that says when its load runs, and compares its stacks.
fn agrees(name: &str, command: &mut Command) -> Result<()> {
    let target = Target::spawn(command)?;
    target.await_line("ready")?;
    assert_agreement(name, target.pid())
}

fn fixture_agrees(name: &str, fixture: Fixture) -> Result<()> {
    let _turn = machine::beside_others();
    if !fixture.can_be_had() {
        return Ok(());
    }
    agrees(name, &mut Command::new(fixture.build()?))
}

#[test]
fn c_at_o2_has_the_stacks_that_framehop_finds() -> Result<()> {
    fixture_agrees("C at -O2", Fixture::OracleLoad)
}

#[test]
fn c_at_o3_has_the_stacks_that_framehop_finds() -> Result<()> {
    fixture_agrees("C at -O3", Fixture::OracleLoadO3)
}

#[test]
fn cpp_with_exceptions_has_the_stacks_that_framehop_finds() -> Result<()> {
    fixture_agrees("C++", Fixture::OracleLoadCpp)
}

#[test]
fn rust_with_panics_has_the_stacks_that_framehop_finds() -> Result<()> {
    fixture_agrees("Rust", Fixture::OracleLoadRust)
}

/// With every object an allocation of the C library.
fn python(interpreter: PathBuf) -> Command {
    let mut command = Command::new(interpreter);
    command
        .arg(sources().join("oracle_load.py"))
        .env("PYTHONMALLOC", "malloc");
    command
}

#[test]
fn debians_python_has_the_stacks_that_framehop_finds() -> Result<()> {
    let _turn = machine::beside_others();
    if !machine::has(PYTHON) {
        return Ok(());
    }
    agrees("Debian's python3", &mut python(PYTHON.program.into()))
}

#[test]
fn a_shared_libpython_has_the_stacks_that_framehop_finds() -> Result<()> {
    let _turn = machine::beside_others();
    let Some(interpreter) = newest_shared_python() else {
        machine::skipped("a Python by pyenv, built with --enable-shared");
        return Ok(());
    };
    let name = format!("pyenv's {}", interpreter.display());
    agrees(&name, &mut python(interpreter))
}

/// Of those under pyenv that have a `libpython3.N.so`.
fn newest_shared_python() -> Option<PathBuf> {
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(env::home_dir()?.join(".pyenv")))?;
    let versions = fs::read_dir(root.join("versions")).ok()?;
    let shared = versions.filter_map(|version| {
        let version = version.ok()?;
        let name = version.file_name().into_string().ok()?;
        let minor: u32 = name.strip_prefix("3.")?.split('.').next()?.parse().ok()?;
        let library = format!("lib/libpython3.{minor}.so.1.0");
        let has_it = version.path().join(library).exists();
        has_it.then(|| (minor, version.path().join(format!("bin/python3.{minor}"))))
    });
    Some(shared.max()?.1)
}

#[test]
fn node_has_the_stacks_that_framehop_finds() -> Result<()> {
    // Node moves code that it has compiled. The longer residue takes, the more stacks go through code that is gone.
    let _turn = machine::alone();
    if !machine::has(NODE) {
        return Ok(());
    }
    let script = sources().join("oracle_load.js");
    agrees("node", Command::new(NODE.program).arg(script))
}

/// The oracle's own test: the third opinion is that of the C++ runtime's unwinder.
#[test]
fn framehop_agrees_with_the_unwinder_of_the_cpp_runtime() -> Result<()> {
    let _turn = machine::beside_others();
    if !Fixture::Sampler.can_be_had() {
        return Ok(());
    }
    for fixture in [
        Fixture::OracleLoadO3,
        Fixture::OracleLoadCpp,
        Fixture::OracleLoadRust,
    ] {
        if fixture.can_be_had() {
            compare_sampled(&fixture.build()?)?;
        }
    }
    Ok(())
}

const SAMPLED: u32 = 2000;

fn compare_sampled(program: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("samples");
    let target = Target::spawn(
        Command::new(program)
            .env("LD_PRELOAD", Fixture::Sampler.build()?)
            .env("SAMPLES", &file)
            .env("SAMPLE_LIMIT", SAMPLED.to_string()),
    )?;
    target.await_line("ready")?;
    let mut growing = Growing::open(&file).context("the sampler writes nothing")?;
    let enough = || growing.whole_samples().is_ok_and(|whole| whole >= SAMPLED);
    ensure!(wait_until(PATIENCE, enough), "too few samples");
    let mut code = Code::default();
    code.read(target.pid())?;
    let summary = compare_file(&program.display().to_string(), &file, &code)?;
    summary.assert_agrees(SAMPLED * 9 / 10);
    println!("{summary}");
    Ok(())
}
