//! `residue inspect probes`: shows which functions residue would probe, and where.

use std::io::{self, Write};

use residue_ebpf::abi::call_shape::CallShape;

use super::write_table;
use crate::messages;
use crate::probes::windows::{SourceObject, WindowProbe, WindowSource, plan_tls};
use crate::probes::{Plan, PlannedFunction, ScopeObject, SiteCost, SitePolicy, plan};
use crate::process::{LoadedObject, Pid, Process, UnreadableObject};

const EXAMPLES: &str = "\
Examples:
  Which functions of a worker would be probed, and what does a probe cost there?
    sudo residue inspect probes -p 4242
  The same for a process of your own, without root:
    residue inspect probes -p $$
  Where would windows of a worker's own jobs open and close?
    sudo residue inspect probes -p 4242 --window fn:handle_job";

/// Show the allocator functions to probe, with the instruction chosen in each and what a hit costs
///
/// An emulated instruction costs about half a microsecond a call; a single-stepped one several
/// microseconds, in some virtual machines more than ten. Needs root only for processes of others.
/// The table also lists functions of TLS libraries, and, with --window, what else opens windows.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The process to look into
    #[arg(short, long, value_name = "PID")]
    pid: Pid,
    /// Also show what opens and closes these windows: fn:SYMBOL or usdt:PROVIDER:OPEN:CLOSE; may be
    /// given several times
    #[arg(long = "window", value_name = "SOURCE")]
    windows: Vec<WindowSource>,
}

/// Writes the plan, unless residue cannot profile the process.
pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<io::Result<()>> {
    let process = Process::open(args.pid)?;
    let found = process.loaded_objects();
    let left_out = found.left_out();
    left_out
        .into_iter()
        .for_each(|note| messages::complain(&note));
    found.unreadable.into_iter().for_each(warn);
    let objects = read_all(&found.objects, ScopeObject::of);
    let plan = plan(&objects, SitePolicy::Cheapest)?;
    let windows = read_all(&found.objects, |object| {
        SourceObject::of(object, &args.windows)
    });
    let tls = plan_tls(&windows, SitePolicy::Cheapest);
    let mut probes = Vec::new();
    for source in &args.windows {
        probes.extend(source.plan(&windows, SitePolicy::Cheapest)?);
    }
    probes.extend(tls.probes);
    Ok(write_plan(out, &plan, &objects)
        .and_then(|()| write_windows(out, &probes, &windows))
        .and_then(|()| write_notes(out, &tls.not_followed)))
}

/// Reads the objects in search order. Names on standard error the objects that cannot be read.
fn read_all<T>(
    objects: &[LoadedObject],
    read: impl Fn(&LoadedObject) -> Result<T, UnreadableObject>,
) -> Vec<T> {
    let read = objects.iter().map(|object| read(object).map_err(warn));
    read.filter_map(Result::ok).collect()
}

fn warn(unreadable: UnreadableObject) {
    messages::complain(&unreadable.to_string());
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

const WINDOWS_HEADER: [&str; 6] = [
    "WINDOW",
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

/// Writes where windows open and close, if the plan has any.
fn write_windows(
    out: &mut impl Write,
    probes: &[WindowProbe],
    objects: &[SourceObject],
) -> io::Result<()> {
    if probes.is_empty() {
        return Ok(());
    }
    let mut rows = vec![WINDOWS_HEADER.map(str::to_owned)];
    rows.extend(probes.iter().map(|probe| {
        let site = &probe.site;
        [
            event(probe.shape).to_owned(),
            objects[probe.object].name(),
            format!("{}+{:#x}", site.symbol, site.offset_in_function),
            site.instruction.clone(),
            site.cost.name().to_owned(),
            site.file_offset.to_string(),
        ]
    }));
    writeln!(out)?;
    write_table(out, &rows)
}

/// Names what a probe of this shape sees of a window.
const fn event(shape: CallShape) -> &'static str {
    match shape {
        CallShape::WindowFunction => "opens, closes at return",
        CallShape::WindowEnter | CallShape::WindowOpen => "opens",
        CallShape::WindowLeave | CallShape::WindowClose => "closes",
        CallShape::SslRead | CallShape::SslReadEx => "TLS read",
        CallShape::SslWrite | CallShape::SslWriteEx => "TLS write",
        CallShape::SslFree => "TLS end",
        _ => "",
    }
}

fn write_notes(out: &mut impl Write, notes: &[String]) -> io::Result<()> {
    let mut notes = notes.iter();
    notes.try_for_each(|note| writeln!(out, "note: {note}"))
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
    let functions = plan.functions.iter();
    let count = |cost| functions.clone().filter(|f| f.site.cost == cost).count();
    let returns = functions.clone().filter(|f| f.shape.has_return()).count();
    format!(
        "{} functions, {returns} of them probed at return too; sites: {} emulated, {} optimized \
         nop, {} single-stepped",
        plan.functions.len(),
        count(SiteCost::Emulated),
        count(SiteCost::OptimizedNop),
        count(SiteCost::SingleStepped),
    )
}
