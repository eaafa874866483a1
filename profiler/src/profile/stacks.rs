//! Turns the stacks of a capture into rows of a report: frames with names, and markers where frames
//! are missing.

use std::collections::HashMap;

use residue_ebpf::abi::ROOT_FRAMES;
use residue_ebpf::abi::heap::StackKind;

use crate::capture::{self, Capture, FrameKind};
use crate::ids::{ProcessNumber, StackId};
use crate::profile::frames::{Interner, base_name};
use crate::profile::merge::{self, Languages, Role};
use crate::profile::{Frame, FrameId, culprit};

/// The marker of a stack without Python frames, in a report that shows only Python frames.
const NO_PYTHON: &str = "[no Python frames]";
/// The marker of a stack whose frames are unknown.
const UNKNOWN: &str = "[stack unknown]";
/// The marker that follows the frames of a shallow context.
const SHALLOW: &str = "[stack not walked]";

/// The names of glibc's `free`. The kernel side knows of all other functions of allocators that they are at work while
/// they map.
const FREE: [&str; 4] = ["free", "cfree", "__libc_free", "__GI___libc_free"];
/// The frames that are looked through for `free`: `mmap` and a few functions of glibc's own are inside of `free`.
const INSIDE_FREE: usize = 8;

/// The target and the frames of a row. Two rows with the same key are one row.
pub(super) type Row = (Option<usize>, Vec<FrameId>);

/// The symbolized stacks of one capture.
pub(super) struct Stacks<'a> {
    targets: HashMap<ProcessNumber, usize>,
    modules: HashMap<u32, &'a capture::Module>,
    frames: HashMap<u32, &'a capture::Frame>,
    stacks: HashMap<StackId, &'a capture::Stack>,
    interner: Interner,
    languages: Languages,
}

impl<'a> Stacks<'a> {
    pub(super) fn new(capture: &'a Capture, languages: Languages) -> Self {
        let processes = capture.processes.iter();
        let modules = capture.modules.iter();
        let frames = capture.frames.iter();
        let stacks = capture.stacks.iter();
        Self {
            targets: processes
                .map(|(process, _)| process.number)
                .zip(0..)
                .collect(),
            modules: modules.map(|module| (module.id, module)).collect(),
            frames: frames.map(|frame| (frame.id, frame)).collect(),
            stacks: stacks.map(|stack| (stack.id, stack)).collect(),
            interner: Interner::default(),
            languages,
        }
    }

    /// Finds a process, as an index into [`super::Profile::targets`].
    pub(super) fn target(&self, process: ProcessNumber) -> Option<usize> {
        self.targets.get(&process).copied()
    }

    pub(super) fn into_frames(self) -> Vec<Frame> {
        self.interner.into_frames()
    }

    /// Tells what the totals of a stack count. Those of an unknown stack count blocks.
    pub(super) fn kind(&self, id: StackId) -> StackKind {
        self.stacks
            .get(&id)
            .map_or(StackKind::Full, |stack| stack.kind)
    }

    /// Finds the shallow context that a stack belongs to, if the stack belongs to one.
    pub(super) fn context(&self, id: StackId) -> Option<StackId> {
        self.stacks.get(&id)?.context
    }

    pub(super) fn symbolized(&mut self, id: StackId) -> Row {
        let stack = self
            .stacks
            .get(&id)
            .copied()
            .filter(|_| id != StackId::UNKNOWN);
        let target = stack.and_then(|stack| self.targets.get(&stack.process).copied());
        let frames = match stack {
            Some(stack) => self.frames_of(stack),
            None => vec![self.marker(UNKNOWN)],
        };
        (target, frames)
    }

    /// Whether the interpreter itself called the function that made the syscall, a function of the
    /// C library.
    pub(super) fn is_mapped_by_interpreter(&self, id: StackId) -> bool {
        let frames = self.stacks.get(&id).map(|stack| &stack.frames[..]);
        let mut innermost = frames.unwrap_or_default().iter().take(2);
        innermost.any(|id| self.role(*id) == Role::Interpreter)
    }

    /// Whether glibc mapped the memory inside `free`: an arena of 64 MiB, where `free` is a thread's first call.
    pub(super) fn is_mapped_by_free(&self, id: StackId) -> bool {
        let frames = self.stacks.get(&id).map(|stack| &stack.frames[..]);
        let innermost = frames.unwrap_or_default().iter().take(INSIDE_FREE);
        let mut symbols = innermost
            .filter_map(|id| self.frames.get(id))
            .flat_map(|frame| &frame.symbols);
        symbols.any(|symbol| FREE.contains(&symbol.name.as_str()))
    }

    /// Lists the frames of the stack, with markers where frames are missing.
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
        if frames.is_empty() {
            frames.push(self.marker(UNKNOWN));
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

    pub(super) fn marker(&mut self, name: &str) -> FrameId {
        self.interner.intern(Frame {
            name: name.to_owned(),
            ..Frame::default()
        })
    }

    /// Adds a frame and the functions that the compiler inlined into the frame.
    fn push(&mut self, frames: &mut Vec<FrameId>, id: u32) {
        let Some(frame) = self.frames.get(&id).copied() else {
            return frames.push(self.marker(&format!("[frame {id} unknown]")));
        };
        let module = frame.module.and_then(|id| self.modules.get(&id));
        let module = module.map(|module| module.path.clone());
        let place = || place(module.as_deref(), frame.offset);
        if frame.symbols.iter().all(|symbol| symbol.name.is_empty()) {
            return frames.push(self.interner.intern(Frame {
                name: place(),
                module,
                ..Frame::default()
            }));
        }
        let outermost = frame.symbols.len() - 1;
        for (depth, symbol) in frame.symbols.iter().enumerate() {
            let name = Some(symbol.name.clone()).filter(|name| !name.is_empty());
            frames.push(self.interner.intern(Frame {
                kind: frame.kind,
                name: name.unwrap_or_else(place),
                file: symbol.file.clone(),
                line: symbol.line,
                module: module.clone(),
                inlined: depth < outermost,
            }));
        }
    }
}

/// `module+0xoffset`, the name of a place that has no symbol.
fn place(module: Option<&str>, offset: u64) -> String {
    let module = module.map_or("[no module]", base_name);
    format!("{module}+{offset:#x}")
}
