//! `residue inspect`: shows what residue sees in a process, an object and the kernel, without
//! attaching anything.

use std::io::{self, Write};

use anyhow::Context as _;

use crate::printable::{Notation, Sink, printable};

mod equation;
mod probes;
mod programs;
mod python;
mod unwind;

const EXAMPLES: &str = "\
Examples:
  Which functions of a worker would be probed, and what does a probe cost there?
    sudo residue inspect probes -p 4242
  The same for a process of your own, without root:
    residue inspect probes -p $$
  How are stacks walked through the C library?
    residue inspect unwind /lib/x86_64-linux-gnu/libc.so.6
  What does each thread of a Python process run, and how are its frames found?
    sudo residue inspect python -p 4242
  Does this kernel accept residue?
    sudo residue inspect programs";

/// Show what residue sees in a process, an object and the kernel, without attaching anything
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Probes(probes::Args),
    Unwind(unwind::Args),
    Python(python::Args),
    /// Show whether this kernel accepts every eBPF program, and how hard each was to verify
    ///
    /// WALKED is how many instructions the verifier walked over all paths through the program; it
    /// refuses a program after a million. Needs root.
    Programs,
}

/// Runs the command.
///
/// # Errors
///
/// Fails when the process or the object cannot be read, or when the kernel refuses a program. The
/// message names what to do.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let out = &mut Sink::new(io::stdout().lock(), Notation::Text);
    match &args.what {
        What::Probes(args) => written(probes::run(args, out)?),
        What::Unwind(args) => written(unwind::run(args, out)?),
        What::Python(args) => written(python::run(args, out)?),
        What::Programs => programs::run(out),
    }
}

/// Takes a closed pipe for success, because whoever reads the output may have seen enough of it.
fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("failed to write the table"),
    }
}

/// Writes a table whose columns are as wide as their widest cell.
fn write_table<const N: usize>(out: &mut impl Write, rows: &[[String; N]]) -> io::Result<()> {
    let rows = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| printable(cell)));
    let rows: Vec<[String; N]> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
