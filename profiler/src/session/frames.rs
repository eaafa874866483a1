//! Turns frames as the kernel side takes them into frames with names, and looks each one up once.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use residue_ebpf::abi::frame::{NO_OBJECT, PythonFrame, RawFrame};

use super::{
    code::Code,
    names::{Named, Names, Places},
    python::CodeObjects,
};
use crate::{
    capture::{Frame, FrameKind, Module, Stack},
    drain::RawStack,
    ids::ProcessNumber,
};

/// How many places in Python code residue tells apart. The number is more than any application has: a target
/// can make up as many as it likes.
const MAX_PYTHON_FRAMES: usize = 1 << 18;
/// The frame that stands for all others.
const NO_ROOM: PythonFrame = PythonFrame {
    code: 0,
    instruction: 0,
};

/// Every frame of a recording. A module is an object in which a frame may lie, and has the object's id.
#[derive(Default)]
pub struct FrameTable {
    names: Names,
    /// How many frames lack names.
    given_up: u64,
    notes: Vec<String>,
    frame_ids: HashMap<RawFrame, u32>,
    new_frames: Vec<(u32, RawFrame)>,
    modules_taken: usize,
    python_frames: usize,
    unnamed: u64,
}

impl FrameTable {
    /// The stack in the capture's terms, of the process with this number.
    pub fn intern(&mut self, stack: &RawStack, process: ProcessNumber) -> Stack {
        Stack {
            id: stack.id,
            process,
            frames: stack.frames.iter().map(|&frame| self.id(frame)).collect(),
            left_out: stack.left_out,
            end: stack.end,
            kind: stack.kind,
            context: stack.context,
        }
    }

    /// How many Python frames [`NO_ROOM`] stands for.
    pub const fn unnamed(&self) -> u64 {
        self.unnamed
    }

    fn id(&mut self, mut frame: RawFrame) -> u32 {
        if PythonFrame::from_raw(frame).is_some() && !self.frame_ids.contains_key(&frame) {
            if self.python_frames < MAX_PYTHON_FRAMES {
                self.python_frames += 1;
            } else {
                self.unnamed += 1;
                frame = NO_ROOM.to_raw();
            }
        }
        let next = self.frame_ids.len() as u32;
        *self.frame_ids.entry(frame).or_insert_with(|| {
            self.new_frames.push((next, frame));
            next
        })
    }

    /// The modules and frames that are new, and the frames whose names have come since. A frame without names
    /// yet comes at once, for the stacks that it is in, and again when its names have come. Waits for names
    /// until `deadline`.
    pub fn take_new(
        &mut self,
        code: &Code,
        python: &mut CodeObjects,
        deadline: Instant,
    ) -> (Vec<Module>, Vec<Frame>) {
        let mut frames = Vec::with_capacity(self.new_frames.len());
        let mut by_object: BTreeMap<u16, Vec<(u32, u64)>> = BTreeMap::new();
        for (id, frame) in self.new_frames.drain(..) {
            match PythonFrame::from_raw(frame) {
                Some(place) => frames.push(python_frame(id, place, python)),
                None => {
                    frames.push(native_frame(id, frame.object, frame.offset));
                    let places = by_object.entry(frame.object).or_default();
                    places.push((id, frame.offset));
                }
            }
        }
        for (object, frames) in by_object {
            if let Some(known) = code.object(object) {
                let count = frames.len() as u64;
                let is_asked = self.names.ask(known, Places { object, frames });
                self.given_up += if is_asked { 0 } else { count };
            }
        }
        self.name(&mut frames, deadline);
        (self.new_modules(code), frames)
    }

    /// Notes for the user about files whose symbols residue could not read.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// How many frames lack a name so far that residue cannot look up, or that takes too much room, or has
    /// taken too long.
    pub fn nameless(&self) -> u64 {
        self.given_up + self.names.unanswered() as u64
    }

    /// Puts the names that have come into `frames`, and adds the frames that residue has returned before.
    fn name(&mut self, frames: &mut Vec<Frame>, deadline: Instant) {
        let new: HashMap<u32, usize> = frames.iter().map(|frame| frame.id).zip(0..).collect();
        for named in self.names.answered(deadline) {
            let Named {
                places:
                    Places {
                        object,
                        frames: places,
                    },
                symbols,
                note,
                nameless,
            } = named;
            self.notes.extend(note);
            self.given_up += nameless;
            for ((id, offset), symbols) in places.into_iter().zip(symbols) {
                match new.get(&id).and_then(|&at| frames.get_mut(at)) {
                    Some(frame) => frame.symbols = symbols,
                    None if symbols.is_empty() => {}
                    None => frames.push(Frame {
                        symbols,
                        ..native_frame(id, object, offset)
                    }),
                }
            }
        }
    }

    fn new_modules(&mut self, code: &Code) -> Vec<Module> {
        let objects = code.objects();
        let new = objects.iter().enumerate().skip(self.modules_taken);
        let modules = new.map(|(index, object)| Module {
            id: index as u32 + 1,
            path: object.path.display().to_string(),
            build_id: object.build_id.as_deref().map(hexadecimal),
            interpreter: object.interpreter,
        });
        self.modules_taken = objects.len();
        modules.collect()
    }
}

fn python_frame(id: u32, place: PythonFrame, python: &mut CodeObjects) -> Frame {
    Frame {
        id,
        kind: FrameKind::Python,
        module: None,
        offset: place.instruction.into(),
        symbols: vec![python.symbol(place)],
    }
}

fn native_frame(id: u32, object: u16, offset: u64) -> Frame {
    Frame {
        id,
        kind: FrameKind::Native,
        module: (object != NO_OBJECT).then_some(u32::from(object)),
        offset,
        symbols: Vec::new(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
