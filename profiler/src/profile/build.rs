//! From a capture to a profile.

use std::collections::HashMap;

use residue_ebpf::abi::counters::{Counter, CounterKind};
use residue_ebpf::abi::heap::{StackKind, StackTotals};
use residue_ebpf::abi::{ROOT_FRAMES, UNKNOWN_STACK};

use crate::capture::{self, Capture, Figures, FrameKind, MappingOwner, PYTHON_OBJECTS_OPTION};
use crate::profile::culprit;
use crate::profile::frames::{Interner, base_name};
use crate::profile::merge::{self, Role};
use crate::profile::{
    CounterValue, Frame, FrameId, MappingProfile, Profile, Span, StackProfile, Target,
};

/// Stands where the frames of a stack are not known, and says so.
const UNKNOWN: &str = "[stack unknown]";

impl From<&Capture> for Profile {
    fn from(capture: &Capture) -> Self {
        let mut stacks = Stacks::new(capture);
        let allocated = allocated(capture, &mut stacks, |kind| !kind.is_python());
        let mut python = |wanted| allocated_by_python(capture, &mut stacks, wanted);
        let python_objects = python(StackKind::PythonObjects);
        let python_pools = python(StackKind::PythonPools);
        let mapped = mapped(capture, &mut stacks);
        Self {
            targets: capture.processes.iter().map(target).collect(),
            span: span(capture),
            counters: counters(&capture.counters),
            notes: capture.notes.clone(),
            frames: stacks.interner.into_frames(),
            stacks: allocated,
            python_objects,
            python_pools,
            python_interval: python_interval(capture),
            mappings: mapped,
        }
    }
}

/// What tells two rows apart.
type Row = (Option<usize>, Vec<FrameId>);

/// How far apart samples of Python objects are, bytes.
fn python_interval(capture: &Capture) -> Option<u64> {
    let mut options = capture.meta.options.iter();
    let (_, value) = options.find(|(name, _)| name == PYTHON_OBJECTS_OPTION)?;
    value.parse().ok()
}

fn allocated_by_python(
    capture: &Capture,
    stacks: &mut Stacks<'_>,
    wanted: StackKind,
) -> Vec<StackProfile> {
    allocated(capture, stacks, |kind| kind == wanted)
}

fn allocated(
    capture: &Capture,
    stacks: &mut Stacks<'_>,
    wanted: impl Fn(StackKind) -> bool,
) -> Vec<StackProfile> {
    let mut rows: HashMap<Row, StackProfile> = HashMap::new();
    // A stack that only ever mapped memory has allocated no block.
    let any_block = |totals: &StackTotals| totals.alloc_objects + totals.lost_objects > 0;
    for (id, totals) in capture.totals.iter().filter(|(_, it)| any_block(it)) {
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
        row.figures.add(figures(totals));
        row.lost_bytes = row.lost_bytes.saturating_add(totals.lost_bytes);
        row.lost_objects = row.lost_objects.saturating_add(totals.lost_objects);
    }
    let mut rows: Vec<StackProfile> = rows.into_values().collect();
    rows.sort_unstable_by(|a, b| {
        by_size(&a.figures, &b.figures)
            .then_with(|| (a.target, &a.frames).cmp(&(b.target, &b.frames)))
    });
    rows
}

fn mapped(capture: &Capture, stacks: &mut Stacks<'_>) -> Vec<MappingProfile> {
    let mut rows: HashMap<(MappingOwner, Row), Figures> = HashMap::new();
    for totals in &capture.mappings {
        let row = stacks.symbolized(totals.stack);
        rows.entry((totals.owner, row))
            .or_default()
            .add(totals.figures);
    }
    let mut rows: Vec<MappingProfile> = rows
        .into_iter()
        .map(|((owner, (target, frames)), figures)| MappingProfile {
            target,
            frames,
            owner,
            figures,
        })
        .collect();
    rows.sort_unstable_by(|a, b| {
        let key = |row: &MappingProfile| (row.owner, row.target, row.frames.clone());
        by_size(&a.figures, &b.figures).then_with(|| key(a).cmp(&key(b)))
    });
    rows
}

/// Most outstanding first, then most allocated.
fn by_size(a: &Figures, b: &Figures) -> std::cmp::Ordering {
    (b.inuse_bytes, b.alloc_bytes).cmp(&(a.inuse_bytes, a.alloc_bytes))
}

/// The kernel's counters are read one after the other while the target runs, so a free may be seen
/// whose allocation is not.
fn figures(totals: &StackTotals) -> Figures {
    Figures {
        inuse_bytes: totals.alloc_bytes.saturating_sub(totals.freed_bytes),
        inuse_objects: totals.alloc_objects.saturating_sub(totals.freed_objects),
        alloc_bytes: totals.alloc_bytes,
        alloc_objects: totals.alloc_objects,
    }
}

/// Symbolizes the stacks of one capture.
struct Stacks<'a> {
    targets: HashMap<u16, usize>,
    modules: HashMap<u32, &'a capture::Module>,
    frames: HashMap<u32, &'a capture::Frame>,
    stacks: HashMap<u32, &'a capture::Stack>,
    interner: Interner,
}

impl<'a> Stacks<'a> {
    fn new(capture: &'a Capture) -> Self {
        let slots = capture.processes.iter().map(|(process, _)| process.slot);
        Self {
            targets: slots
                .enumerate()
                .map(|(index, slot)| (slot, index))
                .collect(),
            modules: capture.modules.iter().map(|it| (it.id, it)).collect(),
            frames: capture.frames.iter().map(|it| (it.id, it)).collect(),
            stacks: capture.stacks.iter().map(|it| (it.id, it)).collect(),
            interner: Interner::default(),
        }
    }

    /// What the totals of a stack are; of one that is not known, blocks.
    fn kind(&self, id: u32) -> StackKind {
        self.stacks.get(&id).map_or(StackKind::Full, |it| it.kind)
    }

    fn symbolized(&mut self, id: u32) -> Row {
        let stack = self
            .stacks
            .get(&id)
            .copied()
            .filter(|_| id != UNKNOWN_STACK);
        let target = stack.and_then(|stack| self.targets.get(&stack.process).copied());
        let frames = match stack {
            Some(stack) => self.frames_of(stack),
            None => vec![self.marker(UNKNOWN)],
        };
        (target, frames)
    }

    /// The stack's frames, with markers where some are missing.
    fn frames_of(&mut self, stack: &capture::Stack) -> Vec<FrameId> {
        let gap = stack.frames.len().saturating_sub(ROOT_FRAMES);
        let mut frames = Vec::new();
        let roles: Vec<Role> = stack.frames.iter().map(|id| self.role(*id)).collect();
        let kept = merge::kept(&roles);
        for (number, (frame, kept)) in stack.frames.iter().zip(kept).enumerate() {
            if stack.left_out > 0 && number == gap {
                let left_out = stack.left_out;
                frames.push(self.marker(&format!("[... {left_out} frames left out ...]")));
            }
            if kept {
                self.push(&mut frames, *frame);
            }
        }
        if !stack.end.is_whole() {
            let why = stack.end.meaning();
            frames.push(self.marker(&format!("[stack cut: {why}]")));
        }
        frames
    }

    fn role(&self, id: u32) -> Role {
        let Some(frame) = self.frames.get(&id) else {
            return Role::Native;
        };
        if frame.kind == FrameKind::Python {
            return Role::Python;
        }
        let module = frame.module.and_then(|id| self.modules.get(&id));
        let name = frame.symbols.last().map(|symbol| symbol.name.as_str());
        match module {
            Some(module) if module.interpreter => Role::Interpreter,
            Some(module) if culprit::starts_up(&module.path, name) => Role::StartUp,
            _ => Role::Native,
        }
    }

    fn marker(&mut self, name: &str) -> FrameId {
        self.interner.intern(Frame {
            name: name.to_owned(),
            ..Frame::default()
        })
    }

    /// Adds a frame and the functions inlined at it.
    fn push(&mut self, frames: &mut Vec<FrameId>, id: u32) {
        let Some(frame) = self.frames.get(&id).copied() else {
            return frames.push(self.marker(&format!("[frame {id} unknown]")));
        };
        let module = frame.module.and_then(|id| self.modules.get(&id));
        let module = module.map(|module| module.path.as_str());
        if frame.symbols.iter().all(|symbol| symbol.name.is_empty()) {
            let name = place(module, frame.offset);
            let module = module.map(str::to_owned);
            return frames.push(self.interner.intern(Frame {
                name,
                module,
                ..Frame::default()
            }));
        }
        let outermost = frame.symbols.len() - 1;
        for (depth, symbol) in frame.symbols.iter().enumerate() {
            let unnamed = symbol.name.is_empty();
            frames.push(self.interner.intern(Frame {
                kind: frame.kind,
                name: if unnamed {
                    place(module, frame.offset)
                } else {
                    symbol.name.clone()
                },
                file: symbol.file.clone(),
                line: symbol.line,
                module: module.map(str::to_owned),
                inlined: depth < outermost,
            }));
        }
    }
}

/// `module+0xoffset`, what a place is called that has no name.
fn place(module: Option<&str>, offset: u64) -> String {
    let module = module.map_or("[no module]", base_name);
    format!("{module}+{offset:#x}")
}

fn target((process, ended): &(capture::Process, Option<capture::Ended>)) -> Target {
    let capture::Process {
        slot,
        pid,
        comm,
        exe,
        cmdline,
        started_ns: _,
    } = process.clone();
    let end_reason = ended.as_ref().map(|ended| ended.reason.clone());
    Target {
        slot,
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

/// Every counter that this residue knows, and then those that only the recorder knew: they may mean
/// a loss, so they count as one.
fn counters(recorded: &[(String, u64)]) -> Vec<CounterValue> {
    let value_of = |name: &str| {
        recorded
            .iter()
            .find(|(it, _)| it == name)
            .map_or(0, |it| it.1)
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
