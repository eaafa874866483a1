//! `residue inspect probes`: which functions would be probed, and where.

use std::io::{self, Write};

use super::write_table;
use crate::probes::{Plan, PlannedFunction, ScopeObject, SiteCost, SitePolicy, plan};
use crate::target::{Pid, Process};

const EXAMPLES: &str = "\
Examples:
  Which functions of a worker would be probed, and what does a probe cost there?
    sudo residue inspect probes -p 4242
  The same for a process of your own, without root:
    residue inspect probes -p $$";

/// The allocator functions to probe, with the instruction chosen in each and what a hit costs
///
/// An emulated instruction costs about half a microsecond a call; a single-stepped one several
/// microseconds, in some virtual machines more than ten. Needs root only for processes of others.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Process to look into
    #[arg(short, long, value_name = "PID")]
    pid: Pid,
}

/// Writes the plan, unless the process cannot be profiled.
pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<io::Result<()>> {
    let process = Process::open(args.pid)?;
    let objects = scope(&process);
    let plan = plan(&objects, SitePolicy::Cheapest)?;
    Ok(write_plan(out, &plan, &objects))
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
