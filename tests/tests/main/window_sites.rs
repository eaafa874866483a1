//! What opens and closes windows is found where the tools of binutils say that it is, and nothing is
//! probed that must not be.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    fixtures::Fixture,
    machine::{self, Needed},
    python::programs,
    recorder::{self, Refusal},
    target::Target,
};

/// `ret`.
const RET: u8 = 0xc3;

fn command(pid: u32, sources: &[&str]) -> Result<Command> {
    let mut command = Command::new(recorder::residue()?);
    command
        .args(["inspect", "probes", "-p"])
        .arg(pid.to_string());
    for source in sources {
        command.args(["--window", source]);
    }
    Ok(command)
}

/// What `residue inspect probes` shows of windows: event, object, site and file offset.
fn sites(pid: u32, sources: &[&str]) -> Result<Vec<[String; 4]>> {
    let output = command(pid, sources)?.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "residue said: {said}");
    let text = String::from_utf8(output.stdout)?;
    let table = text.lines().skip_while(|line| !line.starts_with("WINDOW"));
    let rows = table.skip(1).map(|line| {
        let cells: Vec<_> = line.split("  ").map(str::trim).collect();
        let cells: Vec<_> = cells.into_iter().filter(|it| !it.is_empty()).collect();
        let &[event, object, site, .., offset] = &cells[..] else {
            anyhow::bail!("a row of another table: {line}");
        };
        Ok([event, object, site, offset].map(str::to_owned))
    });
    rows.collect()
}

fn offset(row: &[String; 4]) -> Result<u64> {
    let digits = row[3].strip_prefix("0x").context("a hexadecimal number")?;
    Ok(u64::from_str_radix(digits, 16)?)
}

fn output_of(program: &str, arguments: &[&str], file: &Path) -> Result<String> {
    let output = Command::new(program).args(arguments).arg(file).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Where `nm` says that a function begins. In these files addresses of code are offsets.
fn begins(file: &Path, symbol: &str, arguments: &[&str]) -> Result<u64> {
    let text = output_of("nm", arguments, file)?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let named = |rest: &str| rest.split([' ', '@']).any(|it| it == symbol);
    let (address, _) = lines
        .find(|(_, rest)| named(rest))
        .with_context(|| format!("nm does not know {symbol}"))?;
    Ok(u64::from_str_radix(address, 16)?)
}

fn binutils() -> bool {
    let needed = Needed {
        program: "readelf",
        package: "binutils",
    };
    machine::has(needed)
}

#[test]
fn a_functions_entry_and_returns_are_found() -> Result<()> {
    let _turn = machine::beside_others();
    if !binutils() {
        return Ok(());
    }
    let program = Fixture::Jobs.build()?;
    let target = Target::start(&program, &[])?;
    let found = sites(target.pid(), &["fn:handle_job"])?;
    let start = begins(&program, "handle_job", &[])?;
    let bytes = fs::read(&program)?;
    let (mut opens, mut closes) = (0, 0);
    for row in &found {
        match &row[0][..] {
            "opens" => {
                assert_eq!((&row[2][..], offset(row)?), ("handle_job+0x0", start));
                opens += 1;
            }
            _ => {
                let at = usize::try_from(offset(row)?)?;
                assert_eq!((&row[0][..], bytes[at]), ("closes", RET));
                closes += 1;
            }
        }
    }
    assert!(opens == 1 && closes > 0, "{found:?}");
    Ok(())
}

#[test]
fn a_function_that_ends_in_another_one_gets_a_return_probe() -> Result<()> {
    let _turn = machine::beside_others();
    let target = Target::start(&Fixture::Jobs.build()?, &[])?;
    let found = sites(target.pid(), &["fn:tail_job"])?;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0][0], "opens, closes at return");
    Ok(())
}

#[test]
fn static_probes_are_where_readelf_sees_them() -> Result<()> {
    let _turn = machine::beside_others();
    if !binutils() {
        return Ok(());
    }
    let program = Fixture::Jobs.build()?;
    let target = Target::start(&program, &[])?;
    let mut found: Vec<_> = sites(target.pid(), &["usdt:jobs:job_start:job_done"])?
        .iter()
        .map(offset)
        .collect::<Result<_>>()?;
    let notes = output_of("readelf", &["-n"], &program)?;
    let locations = notes.split("Location: 0x").skip(1).map(|rest| {
        let digits = rest.split(',').next().unwrap_or(rest);
        Ok(u64::from_str_radix(digits, 16)?)
    });
    let mut expected: Vec<_> = locations.collect::<Result<_>>()?;
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(found.len(), 3);
    Ok(())
}

#[test]
fn what_makes_no_windows_is_refused_by_name() -> Result<()> {
    let _turn = machine::beside_others();
    let target = Target::start(&Fixture::Jobs.build()?, &[])?;
    let cpp = Target::start(&Fixture::JobsCpp.build()?, &[])?;
    let counted = Target::start(&Fixture::JobsWithSemaphores.build()?, &[])?;
    for (pid, source, words) in [
        (
            target.pid(),
            "fn:handle_jobs",
            ["no function handle_jobs", "there is handle_job"],
        ),
        (
            target.pid(),
            "usdt:job:a:b",
            ["no static probes of job", "those of jobs"],
        ),
        (
            target.pid(),
            "usdt:jobs:start:job_done",
            ["no static probe start", "job_start"],
        ),
        (target.pid(), "grpc", ["makes no windows", "fn:SYMBOL"]),
        (
            cpp.pid(),
            "fn:app::Worker::run",
            ["2 functions", "app::Worker::run(unsigned long, bool)"],
        ),
        (
            counted.pid(),
            "usdt:jobs:job_start:job_done",
            ["semaphore", "fn:SYMBOL"],
        ),
    ] {
        Refusal::of(&mut command(pid, &[source])?)?.assert_says(&words);
    }
    Ok(())
}

/// Each Python has its `_ssl`, and they share the system's OpenSSL.
#[test]
fn the_functions_of_tls_are_found_in_the_library_that_python_loads() -> Result<()> {
    let _turn = machine::beside_others();
    if !binutils() {
        return Ok(());
    }
    for python in programs() {
        let script = "import ssl; print('ready', flush=True); input()";
        let target = Target::spawn(Command::new(&python).args(["-c", script]))?;
        target.await_line("ready")?;
        let maps = fs::read_to_string(format!("/proc/{}/maps", target.pid()))?;
        let library = maps.lines().find_map(|line| {
            let (_, path) = line.split_once('/')?;
            path.contains("libssl").then(|| format!("/{path}"))
        });
        let library = library.context("import ssl loads it")?;
        let found = sites(target.pid(), &[])?;
        for symbol in [
            "SSL_read",
            "SSL_write",
            "SSL_read_ex",
            "SSL_write_ex",
            "SSL_free",
        ] {
            let start = begins(Path::new(&library), symbol, &["-D"])?;
            let row = found.iter().find(|row| {
                let (function, _) = row[2].split_once('+').unwrap_or_default();
                function == symbol
            });
            let row = row.with_context(|| format!("{symbol} is not probed: {found:?}"))?;
            assert!((start..start + 16).contains(&offset(row)?), "{row:?}");
        }
    }
    Ok(())
}
