//! From a capture to a profile.

use std::collections::HashMap;

use residue_ebpf::abi::counters::{Counter, CounterKind};
use residue_ebpf::abi::heap::StackKind;
use residue_ebpf::abi::{ROOT_FRAMES, UNKNOWN_STACK};

use crate::capture::{self, Capture, Figures, FrameKind, MappingOwner, PYTHON_OBJECTS_OPTION};
use crate::profile::apportion::{Counted, apportion};
use crate::profile::culprit;
use crate::profile::frames::{Interner, base_name};
use crate::profile::merge::{self, Languages, Role};
use crate::profile::{
    CounterValue, Frame, FrameId, MappingProfile, Profile, Span, StackProfile, Target,
};

/// Stands for a stack without Python frames where only those are shown.
const NO_PYTHON: &str = "[no Python frames]";
/// Stands where the frames of a stack are not known, and says so.
const UNKNOWN: &str = "[stack unknown]";
/// To Python 3.9, and from 3.10 on.
const ARENA_BYTES: [u64; 2] = [256 << 10, 1 << 20];
/// Stands behind the frames of a shallow context.
const SHALLOW: &str = "[stack not walked]";

impl From<&Capture> for Profile {
    fn from(capture: &Capture) -> Self {
        Self::of(capture, Languages::Both)
    }
}

impl Profile {
    /// What a capture holds, with the frames of these languages.
    #[must_use]
    pub fn of(capture: &Capture, languages: Languages) -> Self {
        let mut stacks = Stacks::new(capture, languages);
        let counted = apportion(&capture.stacks, &capture.totals);
        let blocks = allocated(&counted, &mut stacks, |kind| !kind.is_python());
        let mut python = |wanted| allocated(&counted, &mut stacks, |kind| kind == wanted);
        let python_objects = python(StackKind::PythonObjects);
        let python_pools = python(StackKind::PythonPools);
        let mapped = mapped(capture, &mut stacks);
        Self {
            targets: capture.processes.iter().map(target).collect(),
            span: span(capture),
            counters: counters(&capture.counters),
            notes: capture.notes.clone(),
            frames: stacks.interner.into_frames(),
            stacks: blocks,
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

/// The rows of the stacks of wanted kinds.
fn allocated(
    counted: &[(u32, Counted)],
    stacks: &mut Stacks<'_>,
    wanted: impl Fn(StackKind) -> bool,
) -> Vec<StackProfile> {
    let mut rows: HashMap<Row, StackProfile> = HashMap::new();
    // A stack that only ever mapped memory has allocated no block.
    let any_block = |it: &Counted| it.figures.alloc_objects > 0 || it.lost_objects > 0;
    for (id, counted) in counted.iter().filter(|(_, it)| any_block(it)) {
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
        row.figures.add(counted.figures);
        row.estimated.add(counted.estimated);
        row.shallow |= counted.shallow;
        row.lost_bytes = row.lost_bytes.saturating_add(counted.lost_bytes);
        row.lost_objects = row.lost_objects.saturating_add(counted.lost_objects);
    }
    let mut rows: Vec<StackProfile> = rows.into_values().collect();
    rows.sort_unstable_by(|a, b| {
        by_size(&a.figures, &b.figures)
            .then_with(|| (a.target, &a.frames).cmp(&(b.target, &b.frames)))
    });
    rows
}

fn mapped(capture: &Capture, stacks: &mut Stacks<'_>) -> Vec<MappingProfile> {
    let mut rows: HashMap<(MappingOwner, bool, Row), Figures> = HashMap::new();
    for totals in &capture.mappings {
        let row = stacks.symbolized(totals.stack);
        let arenas = totals.owner == MappingOwner::Application
            && are_arenas(&totals.figures)
            && stacks.is_mapped_by_interpreter(totals.stack);
        rows.entry((totals.owner, arenas, row))
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

/// Whether ranges have the size of pymalloc's arenas (Objects/obmalloc.c: `ARENA_SIZE`), each.
fn are_arenas(figures: &Figures) -> bool {
    ARENA_BYTES
        .iter()
        .any(|bytes| figures.alloc_objects.checked_mul(*bytes) == Some(figures.alloc_bytes))
}

/// Most outstanding first, then most allocated.
fn by_size(a: &Figures, b: &Figures) -> std::cmp::Ordering {
    (b.inuse_bytes, b.alloc_bytes).cmp(&(a.inuse_bytes, a.alloc_bytes))
}

/// Symbolizes the stacks of one capture.
struct Stacks<'a> {
    targets: HashMap<u16, usize>,
    modules: HashMap<u32, &'a capture::Module>,
    frames: HashMap<u32, &'a capture::Frame>,
    stacks: HashMap<u32, &'a capture::Stack>,
    interner: Interner,
    languages: Languages,
}

impl<'a> Stacks<'a> {
    fn new(capture: &'a Capture, languages: Languages) -> Self {
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
            languages,
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

    /// Whether the interpreter itself called what made the syscall, a function of the C library.
    fn is_mapped_by_interpreter(&self, id: u32) -> bool {
        let frames = self.stacks.get(&id).map(|stack| &stack.frames[..]);
        let mut innermost = frames.unwrap_or_default().iter().take(2);
        innermost.any(|id| self.role(*id) == Role::Interpreter)
    }

    /// The stack's frames, with markers where some are missing.
    fn frames_of(&mut self, stack: &capture::Stack) -> Vec<FrameId> {
        let gap = stack.frames.len().saturating_sub(ROOT_FRAMES);
        let mut frames = Vec::new();
        let roles: Vec<Role> = stack.frames.iter().map(|id| self.role(*id)).collect();
        let kept = merge::kept(&roles, self.languages);
        for (number, (frame, kept)) in stack.frames.iter().zip(kept).enumerate() {
            if stack.left_out > 0 && number == gap {
                let left_out = stack.left_out;
                frames.push(self.marker(&format!("[... {left_out} frames left out ...]")));
            }
            if kept {
                self.push(&mut frames, *frame);
            }
        }
        if frames.is_empty() && self.languages == Languages::Python {
            frames.push(self.marker(NO_PYTHON));
        }
        if !stack.end.is_whole() {
            let why = stack.end.meaning();
            frames.push(self.marker(&format!("[stack cut: {why}]")));
        }
        if stack.kind == StackKind::Context {
            frames.push(self.marker(SHALLOW));
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
