//! Walks the interpreter's own frames, beside the native walk.
//!
//! One call of the evaluation function runs a row of Python frames. When the native walk passes such a call, the walk
//! enters these Python frames behind the call. So a stack has its native and its Python frames in the order in which
//! they called each other. A step of a walk enters one frame of either kind.

use aya_ebpf::helpers::bpf_probe_read_user_buf;
use residue_ebpf::abi::{
    counters::Counter,
    frame::{NOT_STARTED, PythonFrame},
    python::{EntryKind, FRAME_BYTES, InstructionKind, PythonLayout, code_key},
};

use super::codes::python_code_id;
use crate::{
    counters::count,
    kernel::{memory::read_word, task},
    maps::PYTHONS,
    state::{
        thread::ThreadState,
        walk::{Mode, PythonWalk},
    },
    verifier::element,
};

/// From this value of a frame's owner on, the frame is the interpreter's own (`FRAME_OWNED_BY_CSTACK`,
/// Include/internal/pycore_frame.h of 3.12).
const OWNED_BY_C_STACK: u8 = 3;

/// Begins a walk of Python's frames at the frame that the current thread runs.
#[inline(always)]
pub fn begin(thread: &mut ThreadState, process: u16) {
    let walk = &mut thread.walk.python;
    walk.process = u32::from(process);
    walk.mode = Mode::Native as u32;
    walk.missing = 0;
    walk.frame = 0;
    walk.state_at = 0;
    walk.enabled = 0;
    if let Some(layout) = PYTHONS.get(walk.process)
        && layout.enabled != 0
    {
        walk.enabled = 1;
        if thread.fsbase == 0 {
            thread.fsbase = task::fsbase();
        }
        walk.frame = walk.current_frame(layout, thread.fsbase);
    }
}

/// The native walk is at `pc`, AVMA. If the code there runs Python's bytecode, the Python frames of the call
/// are next.
#[inline(always)]
pub fn pass(walk: &mut PythonWalk, pc: u64) {
    if walk.enabled == 0 {
        return;
    }
    let Some(layout) = PYTHONS.get(walk.process) else {
        return;
    };
    let mut code = layout.eval.iter();
    if code.any(|[start, end]| pc >= *start && pc < *end) {
        if walk.frame == 0 {
            walk.missing = 1;
        } else {
            walk.mode = Mode::Run as u32;
        }
    }
}

/// The native walk has ended. Returns whether any Python frame is left.
#[inline(always)]
pub fn take_rest(walk: &mut PythonWalk) -> bool {
    walk.mode = Mode::Rest as u32;
    walk.frame != 0
}

/// The frame that the thread runs, if there is one. The walk must have begun.
#[inline(always)]
pub fn running(walk: &mut PythonWalk) -> Option<PythonFrame> {
    if walk.frame == 0 {
        return None;
    }
    let layout = PYTHONS.get(walk.process)?;
    walk.read(layout)?;
    Some(walk.python_frame(layout))
}

/// Counts what the walk has missed.
#[inline(always)]
pub fn count_what_is_missing(walk: &PythonWalk) {
    if walk.frame != 0 {
        count(Counter::PythonCut, 1);
    }
    if walk.missing != 0 {
        count(Counter::PythonMissing, 1);
    }
}

/// Takes the next frame. Returns `None` if the step has no frame to show, which may be only the interpreter's
/// own mark between two runs.
#[inline(always)]
pub fn step(walk: &mut PythonWalk) -> Option<PythonFrame> {
    let layout = PYTHONS.get(walk.process)?;
    let taken = walk.read(layout);
    if taken.is_none() {
        count(Counter::PythonCut, 1);
        walk.frame = 0;
        walk.mode = Mode::Native as u32;
    }
    taken?;
    let mark = (walk.word(layout.entry & !7) >> (8 * (layout.entry & 7))) as u8;
    let is_shim = layout.entry_kind == EntryKind::Owner as u32 && mark >= OWNED_BY_C_STACK;
    let frame = (!is_shim).then(|| walk.python_frame(layout));
    let is_last = is_shim
        || layout.entry_kind == EntryKind::Every as u32
        || layout.entry_kind == EntryKind::Flag as u32 && mark != 0;
    walk.frame = walk.word(layout.previous);
    if walk.mode == Mode::Run as u32 && (is_last || walk.frame == 0) {
        walk.mode = Mode::Native as u32;
    }
    frame
}

impl PythonWalk {
    /// The frame that the current thread runs; zero if the thread runs none.
    #[inline(always)]
    fn current_frame(&mut self, layout: &PythonLayout, fsbase: u64) -> u64 {
        if self.read_state(layout, fsbase).is_none() {
            return 0;
        }
        let frame = self.state_word(layout.frame);
        if layout.frame_in_cframe == u32::MAX || frame == 0 {
            return frame;
        }
        read_word(frame.wrapping_add(u64::from(layout.frame_in_cframe)))
    }

    #[inline(always)]
    fn python_frame(&mut self, layout: &PythonLayout) -> PythonFrame {
        // The lowest bits may be tags.
        let code = self.word(layout.code) & !7;
        let raw = self.word(layout.instruction & !7) >> (8 * (layout.instruction & 7));
        let kind = layout.instruction_kind;
        let instruction = if kind == InstructionKind::Pointer as u32 {
            let first = code.wrapping_add(u64::from(layout.first_instruction));
            raw.wrapping_sub(first) >> 1
        } else if kind == InstructionKind::Units as u32 {
            u64::from(raw as u32)
        } else {
            u64::from((raw as u32 as i32 >> 1) as u32)
        };
        PythonFrame {
            code: python_code_id(code_key(self.process as u16, code)) as u32,
            // The place may be one before the first instruction, or no place in any code.
            instruction: instruction.min(u64::from(NOT_STARTED)) as u32,
        }
    }

    /// The word at an offset of the frame that was read last.
    #[inline(always)]
    fn word(&mut self, offset: u32) -> u64 {
        *element(&mut self.words, offset as usize / 8)
    }

    /// Reads the next frame.
    #[inline(always)]
    fn read(&mut self, layout: &PythonLayout) -> Option<()> {
        let len = (layout.frame_bytes as usize).min(FRAME_BYTES);
        // SAFETY: the words are plain bytes, and the slice lies in them.
        let bytes =
            unsafe { core::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast::<u8>(), len) };
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user_buf(self.frame as *const u8, bytes) }.ok()
    }
}
