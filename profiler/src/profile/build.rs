//! Builds a profile from a capture.

use std::collections::HashMap;

use residue_ebpf::abi::counters::{Counter, CounterKind};
use residue_ebpf::abi::heap::StackKind;

use crate::capture::{
    self, Capture, Figures, MappingOwner, MappingTotals, Note, PYTHON_OBJECTS_OPTION,
};
use crate::ids::StackId;
use crate::profile::apportion::{Counted, apportion};
use crate::profile::clean;
use crate::profile::interpreters;
use crate::profile::merge::Languages;
use crate::profile::requests;
use crate::profile::stacks::{Row, Stacks};
use crate::profile::{CounterValue, MappingProfile, Profile, Span, StackProfile, Target};

/// The sizes of an arena: up to Python 3.9, and from Python 3.10 on (`ARENA_SIZE` in
/// Objects/obmalloc.c).
const ARENA_BYTES: [u64; 2] = [256 << 10, 1 << 20];

impl From<&Capture> for Profile {
    fn from(capture: &Capture) -> Self {
        Self::of(capture, Languages::Both)
    }
}

impl Profile {
    /// Builds a profile of what a capture holds, with the frames of the given languages.
    #[must_use]
    pub fn of(capture: &Capture, languages: Languages) -> Self {
        let mut stacks = Stacks::new(capture, languages);
        let counted = apportion(&capture.stacks, &capture.totals);
        let blocks = allocated(&counted, &mut stacks, |kind| !kind.is_python());
        let mut python = |wanted| allocated(&counted, &mut stacks, |kind| kind == wanted);
        let python_objects = python(StackKind::PythonObjects);
        let python_pools = python(StackKind::PythonPools);
        let mapped = mapped(capture, &mut stacks);
        let requests = requests::build(capture, &mut stacks);
        clean::all_text(Self {
            targets: capture.processes.iter().map(target).collect(),
            span: span(capture),
            counters: counters(&capture.counters),
            notes: notes(capture),
            frames: stacks.into_frames(),
            stacks: blocks,
            python_objects,
            python_pools,
            python_interval: python_interval(capture),
            mappings: mapped,
            requests,
            rss_only: is_rss_only(capture),
        })
    }
}

/// Collects the recorder's remarks, and what a reader has to know about the recorded programs.
fn notes(capture: &Capture) -> Vec<Note> {
    let unseen = interpreters::unseen(capture).into_iter();
    let unseen = unseen.map(|text| Note {
        at_ns: capture.meta.started_ns,
        text,
    });
    capture.notes.iter().cloned().chain(unseen).collect()
}

/// Whether the recorder followed no allocation: it looked at memory, and never counted blocks.
pub(super) fn is_rss_only(capture: &Capture) -> bool {
    let memory = &capture.windows.memory;
    let counts_blocks = memory.iter().any(|look| look.unbound_bytes.is_some());
    !memory.is_empty() && !counts_blocks && capture.totals.is_empty()
}

/// Finds the distance between samples of Python objects in bytes.
fn python_interval(capture: &Capture) -> Option<u64> {
    let mut options = capture.meta.options.iter();
    let (_, value) = options.find(|(name, _)| name == PYTHON_OBJECTS_OPTION)?;
    value.parse().ok()
}

/// Makes the rows of the stacks whose kind is wanted.
fn allocated(
    counted: &[(StackId, Counted)],
    stacks: &mut Stacks<'_>,
    wanted: impl Fn(StackKind) -> bool,
) -> Vec<StackProfile> {
    let mut rows: HashMap<Row, StackProfile> = HashMap::new();
    // A stack that only ever mapped memory has allocated no block.
    let any_block =
        |counted: &Counted| counted.figures.alloc_objects > 0 || counted.lost_objects > 0;
    for (id, counted) in counted.iter().filter(|(_, counted)| any_block(counted)) {
        if !wanted(stacks.kind(*id)) {
            continue;
        }
        let (target, frames) = stacks.symbolized(*id);
        let row = rows
            .entry((target, frames.clone()))
            .or_insert_with(|| StackProfile {
                target,
                frames,
                ..StackProfile::default()
            });
        add(row, counted);
    }
    let mut rows: Vec<StackProfile> = rows.into_values().collect();
    rows.sort_unstable_by(|a, b| {
        by_size(&a.figures, &b.figures)
            .then_with(|| (a.target, &a.frames).cmp(&(b.target, &b.frames)))
    });
    rows
}

fn add(row: &mut StackProfile, counted: &Counted) {
    row.figures.add(counted.figures);
    row.estimated.add(counted.estimated);
    row.shallow |= counted.shallow;
    row.lost_bytes = row.lost_bytes.saturating_add(counted.lost_bytes);
    row.lost_objects = row.lost_objects.saturating_add(counted.lost_objects);
}

fn mapped(capture: &Capture, stacks: &mut Stacks<'_>) -> Vec<MappingProfile> {
    let mut rows: HashMap<(MappingOwner, bool, Row), Figures> = HashMap::new();
    for totals in &capture.mappings {
        let row = stacks.symbolized(totals.stack);
        let arenas = totals.owner == MappingOwner::Application
            && are_arenas(&totals.figures)
            && stacks.is_mapped_by_interpreter(totals.stack);
        rows.entry((owner(totals, stacks), arenas, row))
            .or_default()
            .add(totals.figures);
    }
    let mut rows: Vec<MappingProfile> = rows
        .into_iter()
        .map(
            |((owner, python_arenas, (target, frames)), figures)| MappingProfile {
                target,
                frames,
                owner,
                python_arenas,
                figures,
            },
        )
        .collect();
    rows.sort_unstable_by(|a, b| {
        let key = |row: &MappingProfile| (row.owner, row.target, row.frames.clone());
        by_size(&a.figures, &b.figures).then_with(|| key(a).cmp(&key(b)))
    });
    rows
}

/// Who owns the ranges that a stack has mapped. A `free` that maps memory maps it for the allocator.
fn owner(totals: &MappingTotals, stacks: &Stacks<'_>) -> MappingOwner {
    match totals.owner {
        MappingOwner::Application if stacks.is_mapped_by_free(totals.stack) => {
            MappingOwner::Allocator
        }
        owner => owner,
    }
}

/// Whether each of these ranges has the size of one of pymalloc's arenas.
fn are_arenas(figures: &Figures) -> bool {
    ARENA_BYTES
        .iter()
        .any(|bytes| figures.alloc_objects.checked_mul(*bytes) == Some(figures.alloc_bytes))
}

/// Orders the most outstanding bytes first, then the most allocated bytes.
fn by_size(a: &Figures, b: &Figures) -> std::cmp::Ordering {
    (b.inuse_bytes, b.alloc_bytes).cmp(&(a.inuse_bytes, a.alloc_bytes))
}

fn target((process, ended): &(capture::Process, Option<capture::Ended>)) -> Target {
    let capture::Process {
        number: _,
        pid,
        comm,
        exe,
        cmdline,
        started_ns: _,
    } = process.clone();
    let end_reason = ended.as_ref().map(|ended| ended.reason.clone());
    Target {
        pid,
        comm,
        exe,
        cmdline,
        end_reason,
    }
}

fn span(capture: &Capture) -> Span {
    Span {
        start_ns: capture.meta.started_ns,
        end_ns: capture.ended_ns.unwrap_or(capture.last_ns),
        cut_off: capture.ended_ns.is_none(),
    }
}

/// Lists every counter that this residue knows, and then the counters that only the recorder knew.
/// A counter that only the recorder knew may mean a loss, so it counts as one.
fn counters(recorded: &[(String, u64)]) -> Vec<CounterValue> {
    let value_of = |name: &str| {
        let counter = recorded.iter().find(|(recorded, _)| recorded == name);
        counter.map_or(0, |(_, value)| *value)
    };
    let known = Counter::ALL.iter().map(|counter| CounterValue {
        name: counter.name().to_owned(),
        meaning: counter.meaning().to_owned(),
        kind: counter.kind(),
        value: value_of(counter.name()),
    });
    let is_known = |name: &str| Counter::ALL.iter().any(|counter| counter.name() == name);
    let unknown = recorded
        .iter()
        .filter(|(name, _)| !is_known(name))
        .map(|(name, value)| {
            let meaning = format!("{name}, which this residue does not know (upgrade residue)");
            CounterValue {
                name: name.clone(),
                meaning,
                kind: CounterKind::Lost,
                value: *value,
            }
        });
    known.chain(unknown).collect()
}
