//! From frames as the kernel side takes them to frames with names, each looked up once.

use std::{collections::HashMap, os::fd::AsRawFd as _, path::PathBuf};

use residue_ebpf::abi::frame::{NO_OBJECT, PythonFrame, RawFrame};

use super::{
    code::{Code, Object},
    python::CodeObjects,
};
use crate::{
    capture::{Frame, FrameKind, Module, Stack},
    drain::RawStack,
    symbolize::{CodeAddress, ModuleFile, Symbol, Symbolizer},
};

/// How many places in Python code are told apart. More than any application has: a target can make up
/// as many as it likes.
const MAX_PYTHON_FRAMES: usize = 1 << 18;
/// What stands for the others.
const NO_ROOM: PythonFrame = PythonFrame {
    code: 0,
    instruction: 0,
};

/// Every frame of a recording. A module is an object that a frame may lie in, and has its id.
#[derive(Default)]
pub struct FrameTable {
    symbolizer: Symbolizer,
    frame_ids: HashMap<RawFrame, u32>,
    new_frames: Vec<(u32, RawFrame)>,
    modules_taken: usize,
    python_frames: usize,
    unnamed: u64,
}

impl FrameTable {
    /// The stack in the capture's terms.
    pub fn intern(&mut self, stack: &RawStack) -> Stack {
        Stack {
            id: stack.id,
            process: stack.process,
            frames: stack.frames.iter().map(|&frame| self.id(frame)).collect(),
            left_out: stack.left_out,
            end: stack.end,
            kind: stack.kind,
            context: stack.context,
        }
    }

    /// How many Python frames stand for others because there were too many.
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

    /// The modules and frames that were not asked for before, with their symbols.
    pub fn take_new(&mut self, code: &Code, python: &mut CodeObjects) -> (Vec<Module>, Vec<Frame>) {
        let mut frames = Vec::with_capacity(self.new_frames.len());
        let mut by_object: HashMap<u16, Vec<(u32, u64)>> = HashMap::new();
        for (id, frame) in self.new_frames.drain(..) {
            if let Some(place) = PythonFrame::from_raw(frame) {
                frames.push(Frame {
                    id,
                    kind: FrameKind::Python,
                    module: None,
                    offset: place.instruction.into(),
                    symbols: vec![python.symbol(place)],
                });
                continue;
            }
            let places = by_object.entry(frame.object).or_default();
            places.push((id, frame.offset));
        }
        for (id, places) in by_object {
            let symbols = self.symbols(code.object(id), &places);
            let module = (id != NO_OBJECT).then_some(u32::from(id));
            frames.extend(
                places
                    .into_iter()
                    .zip(symbols)
                    .map(|((id, offset), symbols)| Frame {
                        id,
                        kind: FrameKind::Native,
                        module,
                        offset,
                        symbols,
                    }),
            );
        }
        (self.new_modules(code), frames)
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

    fn symbols(&mut self, object: Option<&Object>, places: &[(u32, u64)]) -> Vec<Vec<Symbol>> {
        let nothing = || vec![Vec::new(); places.len()];
        let Some((object, file)) = object.and_then(|object| Some((object, object.file.as_ref()?)))
        else {
            return nothing();
        };
        let open = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let module = ModuleFile {
            path: &object.path,
            open: &open,
            root: Some(&object.root),
            build_id: object.build_id.as_deref(),
        };
        let addresses: Vec<_> = places
            .iter()
            .map(|&(_, offset)| CodeAddress::Return(offset))
            .collect();
        // A file that cannot be read leaves its frames named by offset.
        self.symbolizer
            .symbolize(module, &addresses)
            .unwrap_or_else(|_| nothing())
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
