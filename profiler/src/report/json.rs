//! Everything as one JSON object, documented in `docs/json.md`. Other tools read the object, so
//! names and meanings stay. A change that breaks a reader raises [`SCHEMA`].

mod requests;

use std::collections::BTreeMap;
use std::io::{self, Write};

use residue_ebpf::abi::counters::CounterKind;
use serde::Serialize;

use crate::profile::{
    Figures, Frame, FrameId, MappingProfile, Note, Profile, StackProfile, Target,
};
use crate::requests::record::Unbound;
use requests::RouteObject;

/// The version of the shape of the object.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    target: TargetObject<'a>,
    span: SpanObject,
    lost: BTreeMap<&'a str, u64>,
    notes: BTreeMap<&'a str, u64>,
    walked: FiguresObject,
    remarks: Vec<RemarkObject<'a>>,
    stacks: Vec<StackObject<'a>>,
    mappings: Vec<MappingObject<'a>>,
    python_objects: Vec<StackObject<'a>>,
    python_objects_interval: Option<u64>,
    python_pools: Vec<StackObject<'a>>,
    routes: Vec<RouteObject<'a>>,
    background: Option<Unbound>,
    ambiguous: Option<Unbound>,
    allocations_followed: bool,
}

/// The first process, flattened, and all processes.
#[derive(Serialize)]
struct TargetObject<'a> {
    #[serde(flatten)]
    first: Option<ProcessObject<'a>>,
    processes: Vec<ProcessObject<'a>>,
}

#[derive(Serialize)]
struct ProcessObject<'a> {
    pid: u32,
    comm: &'a str,
    exe: &'a str,
    cmdline: &'a str,
    end_reason: Option<&'a str>,
}

#[derive(Serialize)]
struct SpanObject {
    start_ns: u64,
    end_ns: u64,
    duration_ns: u64,
    cut_off: bool,
}

#[derive(Serialize)]
struct RemarkObject<'a> {
    at_ns: u64,
    text: &'a str,
}

#[derive(Serialize)]
struct StackObject<'a> {
    frames: Vec<FrameObject<'a>>,
    #[serde(flatten)]
    figures: FiguresObject,
    estimated: FiguresObject,
    shallow: bool,
    lost_bytes: u64,
    lost_objects: u64,
    pid: Option<u32>,
}

#[derive(Serialize)]
struct MappingObject<'a> {
    frames: Vec<FrameObject<'a>>,
    #[serde(flatten)]
    figures: FiguresObject,
    owner: &'static str,
    python_arenas: bool,
    pid: Option<u32>,
}

#[derive(Serialize)]
struct FrameObject<'a> {
    name: &'a str,
    file: Option<&'a str>,
    line: Option<u32>,
    module: Option<&'a str>,
}

#[derive(Serialize)]
struct FiguresObject {
    inuse_bytes: u64,
    inuse_objects: u64,
    alloc_bytes: u64,
    alloc_objects: u64,
}

pub(super) fn write(profile: &Profile, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &report(profile))?;
    writeln!(out)
}

fn report(profile: &Profile) -> Report<'_> {
    let span = profile.span;
    let table = profile.requests.as_ref().map(|requests| &requests.table);
    Report {
        schema: SCHEMA,
        target: TargetObject {
            first: profile.recorded().next().map(process),
            processes: profile.targets.iter().map(process).collect(),
        },
        span: SpanObject {
            start_ns: span.start_ns,
            end_ns: span.end_ns,
            duration_ns: span.duration_ns(),
            cut_off: span.cut_off,
        },
        lost: counters(profile, CounterKind::Lost),
        notes: counters(profile, CounterKind::Note),
        walked: figures(profile.walked()),
        remarks: profile.notes.iter().map(remark).collect(),
        stacks: stacks(profile, &profile.stacks),
        mappings: mappings(profile),
        python_objects: stacks(profile, &profile.python_objects),
        python_objects_interval: profile.python_interval,
        python_pools: stacks(profile, &profile.python_pools),
        routes: requests::routes(profile),
        background: table.and_then(|table| table.background),
        ambiguous: table.and_then(|table| table.ambiguous),
        allocations_followed: !profile.rss_only,
    }
}

fn remark(note: &Note) -> RemarkObject<'_> {
    let Note { at_ns, text } = note;
    RemarkObject {
        at_ns: *at_ns,
        text,
    }
}

fn mappings(profile: &Profile) -> Vec<MappingObject<'_>> {
    let object = |mapping: &MappingProfile| MappingObject {
        frames: frames(profile, &mapping.frames),
        figures: figures(mapping.figures),
        owner: mapping.owner.name(),
        python_arenas: mapping.python_arenas,
        pid: pid(profile, mapping.target),
    };
    profile.mappings.iter().map(object).collect()
}

fn stacks<'a>(profile: &'a Profile, stacks: &'a [StackProfile]) -> Vec<StackObject<'a>> {
    let object = |stack: &'a StackProfile| StackObject {
        frames: frames(profile, &stack.frames),
        figures: figures(stack.figures),
        estimated: figures(stack.estimated),
        shallow: stack.shallow,
        lost_bytes: stack.lost_bytes,
        lost_objects: stack.lost_objects,
        pid: pid(profile, stack.target),
    };
    stacks.iter().map(object).collect()
}

fn process(target: &Target) -> ProcessObject<'_> {
    let Target {
        pid,
        comm,
        exe,
        cmdline,
        end_reason,
    } = target;
    ProcessObject {
        pid: *pid,
        comm,
        exe,
        cmdline,
        end_reason: end_reason.as_deref(),
    }
}

fn counters(profile: &Profile, kind: CounterKind) -> BTreeMap<&str, u64> {
    let of_kind = profile
        .counters
        .iter()
        .filter(|counter| counter.kind == kind);
    of_kind
        .map(|counter| (counter.name.as_str(), counter.value))
        .collect()
}

fn frames<'a>(profile: &'a Profile, frames: &[FrameId]) -> Vec<FrameObject<'a>> {
    let frames = frames.iter().map(|id| profile.frame(*id));
    let object = |frame: &'a Frame| FrameObject {
        name: &frame.name,
        file: frame.file.as_deref(),
        line: frame.line,
        module: frame.module.as_deref(),
    };
    frames.map(object).collect()
}

fn figures(figures: Figures) -> FiguresObject {
    let Figures {
        inuse_bytes,
        inuse_objects,
        alloc_bytes,
        alloc_objects,
    } = figures;
    FiguresObject {
        inuse_bytes,
        inuse_objects,
        alloc_bytes,
        alloc_objects,
    }
}

fn pid(profile: &Profile, target: Option<usize>) -> Option<u32> {
    target
        .and_then(|index| profile.targets.get(index))
        .map(|target| target.pid)
}
