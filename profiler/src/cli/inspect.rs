//! `residue inspect`: what residue sees in a process and in the kernel, without attaching anything.

mod programs;

use std::io::{self, Write};

use anyhow::Context as _;

use crate::probes::{Plan, PlannedFunction, ScopeObject, SiteCost, SitePolicy, plan};
use crate::target::{Pid, Process};

const EXAMPLES: &str = "\
Examples:
  Which functions of a worker would be probed, and what does a probe cost there?
    sudo residue inspect probes -p 4242
  The same for a process of your own, without root:
    residue inspect probes -p $$
  Does this kernel accept residue?
    sudo residue inspect programs";

/// Show what residue sees in a process and in the kernel, without attaching anything
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Probes(ProbesArgs),
    /// Whether this kernel accepts every eBPF program, and how hard each was to verify
    ///
    /// WALKED is how many instructions the verifier walked over all paths through the program; it
    /// refuses a program after a million. Needs root.
    Programs,
}

/// The allocator functions to probe, with the instruction chosen in each and what a hit costs
///
/// An emulated instruction costs about half a microsecond a call; a single-stepped one several
/// microseconds, in some virtual machines more than ten. Needs root only for processes of others.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct ProbesArgs {
    /// Process to look into
    #[arg(short, long, value_name = "PID")]
    pid: Pid,
}

/// Runs the command.
///
/// # Errors
///
/// When the process cannot be profiled, or the kernel refuses a program; the message names what to
/// do.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match args.what {
        What::Probes(ProbesArgs { pid }) => inspect_probes(pid),
        What::Programs => programs::run(),
    }
}

fn inspect_probes(pid: Pid) -> anyhow::Result<()> {
    let process = Process::open(pid)?;
    let objects = scope(&process);
    let plan = plan(&objects, SitePolicy::Cheapest)?;
    match write_plan(&mut io::stdout().lock(), &plan, &objects) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("failed to write the table"),
    }
}

/// The process's objects in search order. Those that cannot be read are named on standard error.
fn scope(process: &Process) -> Vec<ScopeObject> {
    let found = process.loaded_objects();
    let warn = |unreadable| eprintln!("residue: {unreadable}");
    found.unreadable.into_iter().for_each(warn);
    let readable = found
        .objects
        .iter()
        .map(|object| object.scope_object().map_err(warn));
    readable.filter_map(Result::ok).collect()
}

const HEADER: [&str; 7] = [
    "FUNCTION",
    "ALLOCATOR",
    "OBJECT",
    "SITE",
    "INSTRUCTION",
    "COST",
    "FILE OFFSET",
];

fn write_plan(out: &mut impl Write, plan: &Plan, objects: &[ScopeObject]) -> io::Result<()> {
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(plan.functions.iter().map(|function| row(function, objects)));
    write_table(out, &rows)?;
    for skipped in &plan.skipped {
        let path = objects[skipped.object].path.display();
        writeln!(
            out,
            "not probed: {} in {path}: {}",
            skipped.symbol, skipped.reason
        )?;
    }
    writeln!(out, "\n{}", summary(plan))
}

fn row(function: &PlannedFunction, objects: &[ScopeObject]) -> [String; 7] {
    let site = &function.site;
    let path = &objects[function.object].path;
    let object = path.file_name().unwrap_or(path.as_os_str());
    [
        function.symbol.clone(),
        function.allocator.to_owned(),
        object.display().to_string(),
        format!("{}+{:#x}", site.symbol, site.offset_in_function),
        site.instruction.clone(),
        site.cost.name().to_owned(),
        site.file_offset.to_string(),
    ]
}

/// Columns as wide as their widest cell.
fn write_table<const N: usize>(out: &mut impl Write, rows: &[[String; N]]) -> io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn summary(plan: &Plan) -> String {
    let count = |cost| {
        plan.functions
            .iter()
            .filter(|f| f.site.cost == cost)
            .count()
    };
    let returns = plan
        .functions
        .iter()
        .filter(|f| f.shape.has_return())
        .count();
    format!(
        "{} functions, {returns} of them probed at return too; sites: {} emulated, {} optimized \
         nop, {} single-stepped",
        plan.functions.len(),
        count(SiteCost::Emulated),
        count(SiteCost::OptimizedNop),
        count(SiteCost::SingleStepped),
    )
}
