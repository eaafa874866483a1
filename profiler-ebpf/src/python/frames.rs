//! Walks the interpreter's own frames, beside the native walk.
//!
//! One call of the evaluation function runs a row of Python frames. Where the native walk passes such
//! a call, the frames that it runs are entered behind it, so that a stack has native and Python
//! frames in the order in which they called each other. A step of a walk is one frame of either kind.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::bpf_probe_read_user_buf,
};
use residue_ebpf::abi::{
    counters::Counter,
    frame::{NOT_STARTED, PythonFrame},
    python::{
        CODE_IDS, CODE_KEYS, CodePart, EntryKind, FRAME_BYTES, FreedCode, InstructionKind,
        NO_CONTEXT, PART_BYTES, PythonLayout, STATE_BYTES, code_key,
    },
};

use crate::{
    atomic,
    counters::count,
    kernel::{memory::read_word, task},
    maps::{
        LAST_PYTHON_CODE, PYTHON_CODE_KEYS, PYTHON_CODE_POINTERS, PYTHON_CODES, PYTHON_FREED,
        PYTHONS,
    },
    state::{
        request::Entry,
        walk::{Mode, PythonWalk},
    },
    verifier::element,
};

/// From this value of a frame's owner on, the frame is the interpreter's own (`FRAME_OWNED_BY_CSTACK`,
/// Include/internal/pycore_frame.h of 3.12).
const OWNED_BY_C_STACK: u8 = 3;

impl PythonWalk {
    /// Begins at the current frame of the current thread.
    #[inline(always)]
    pub fn begin(&mut self, process: u16, fsbase: &mut u64) {
        self.process = u32::from(process);
        self.mode = Mode::Native as u32;
        self.missing = 0;
        self.frame = 0;
        self.state_at = 0;
        self.enabled = 0;
        if let Some(layout) = PYTHONS.get(self.process)
            && layout.enabled != 0
        {
            self.enabled = 1;
            if *fsbase == 0 {
                *fsbase = task::fsbase();
            }
            self.frame = self.current_frame(layout, *fsbase);
        }
    }

    /// The frame that the current thread runs; zero if it runs none.
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

    /// Reads the beginning of the current thread's `PyThreadState`, if it has one.
    #[inline(always)]
    fn read_state(&mut self, layout: &PythonLayout, fsbase: u64) -> Option<()> {
        if layout.gil_holder != 0 {
            // In a subinterpreter, what is kept with the thread is the main interpreter's state.
            let holder = read_word(layout.gil_holder);
            if holder != 0
                && self.read_state_at(holder).is_some()
                && self.state_word(layout.thread_id) == fsbase
            {
                return Some(());
            }
        }
        let mut block = fsbase;
        if layout.tss_block != 0 {
            block = read_word(fsbase.wrapping_add(u64::from(layout.tss_block)));
        }
        let state = read_word(block.wrapping_add(u64::from(layout.tss)));
        if state == 0 {
            return None;
        }
        self.read_state_at(state)
    }

    #[inline(always)]
    fn read_state_at(&mut self, address: u64) -> Option<()> {
        // SAFETY: the words are plain bytes; the slice lies in them.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(self.state.as_mut_ptr().cast::<u8>(), STATE_BYTES)
        };
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user_buf(address as *const u8, bytes) }.ok()?;
        self.state_at = address;
        Some(())
    }

    /// The context of `contextvars` that the thread is in, if it runs Python; `begin` first.
    #[inline(always)]
    pub fn context(&mut self) -> Option<Entry> {
        let layout = PYTHONS.get(self.process)?;
        if self.state_at == 0 || layout.context == NO_CONTEXT {
            return None;
        }
        Some(Entry {
            state: self.state_at,
            context: self.state_word(layout.context),
            switches: self.state_word(layout.context + 8),
        })
    }

    #[inline(always)]
    fn state_word(&mut self, offset: u32) -> u64 {
        *element(&mut self.state, offset as usize / 8)
    }

    /// The native walk is at `pc`, AVMA: if that runs Python's bytecode, its frames are next.
    #[inline(always)]
    pub fn pass(&mut self, pc: u64) {
        if self.enabled == 0 {
            return;
        }
        let Some(layout) = PYTHONS.get(self.process) else {
            return;
        };
        if layout
            .eval
            .iter()
            .any(|[start, end]| pc >= *start && pc < *end)
        {
            if self.frame == 0 {
                self.missing = 1;
            } else {
                self.mode = Mode::Run as u32;
            }
        }
    }

    /// The native walk has ended. Returns whether there are Python frames left.
    #[inline(always)]
    pub fn take_rest(&mut self) -> bool {
        self.mode = Mode::Rest as u32;
        self.frame != 0
    }

    /// The frame that runs, if there is one; `begin` first.
    #[inline(always)]
    pub fn running(&mut self) -> Option<PythonFrame> {
        if self.frame == 0 {
            return None;
        }
        let layout = PYTHONS.get(self.process)?;
        self.read(layout)?;
        Some(self.python_frame(layout))
    }

    /// Counts what the walk has missed.
    #[inline(always)]
    pub fn count_what_is_missing(&self) {
        if self.frame != 0 {
            count(Counter::PythonCut, 1);
        }
        if self.missing != 0 {
            count(Counter::PythonMissing, 1);
        }
    }

    /// Takes the next frame; `None` where there is none to show, which may be only the interpreter's
    /// own mark between two runs.
    #[inline(always)]
    pub fn step(&mut self) -> Option<PythonFrame> {
        let layout = PYTHONS.get(self.process)?;
        let taken = self.read(layout);
        if taken.is_none() {
            count(Counter::PythonCut, 1);
            self.frame = 0;
            self.mode = Mode::Native as u32;
        }
        taken?;
        let mark = (self.word(layout.entry & !7) >> (8 * (layout.entry & 7))) as u8;
        let is_shim = layout.entry_kind == EntryKind::Owner as u32 && mark >= OWNED_BY_C_STACK;
        let frame = (!is_shim).then(|| self.python_frame(layout));
        let is_last = is_shim
            || layout.entry_kind == EntryKind::Every as u32
            || layout.entry_kind == EntryKind::Flag as u32 && mark != 0;
        self.frame = self.word(layout.previous);
        if self.mode == Mode::Run as u32 && (is_last || self.frame == 0) {
            self.mode = Mode::Native as u32;
        }
        frame
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
            // One before the first, or no place in any code.
            instruction: instruction.min(u64::from(NOT_STARTED)) as u32,
        }
    }

    #[inline(always)]
    fn word(&mut self, offset: u32) -> u64 {
        *element(&mut self.words, offset as usize / 8)
    }

    /// Reads the frame that is next.
    #[inline(always)]
    fn read(&mut self, layout: &PythonLayout) -> Option<()> {
        let len = (layout.frame_bytes as usize).min(FRAME_BYTES);
        // SAFETY: the words are plain bytes; the slice lies in them.
        let bytes =
            unsafe { core::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast::<u8>(), len) };
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user_buf(self.frame as *const u8, bytes) }.ok()
    }
}

/// The id of a code object; zero, counted, if there is no room for one. A global function: the
/// verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn python_code_id(key: u64) -> u64 {
    // SAFETY: the value is copied at once.
    if let Some(&id) = unsafe { PYTHON_CODES.get(key) } {
        return u64::from(id);
    }
    let Some(last) = LAST_PYTHON_CODE.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a map value.
    let id = unsafe { atomic::fetch_add(last, 1) } + 1;
    if id >= CODE_IDS - 1 {
        count(Counter::PythonCodeTableFull, 1);
        return 0;
    }
    let id = id as u32;
    let Some(slot) = PYTHON_CODE_KEYS.get_ptr_mut(id % CODE_KEYS) else {
        return 0;
    };
    // SAFETY: a map value. It is this id's until as many others as there are places were given out.
    unsafe { *slot = key };
    if PYTHON_CODES.insert(key, id, u64::from(BPF_NOEXIST)).is_ok() {
        return u64::from(id);
    }
    // Another thread was faster, or the table is full.
    // SAFETY: as above.
    match unsafe { PYTHON_CODES.get(key) } {
        Some(&id) => u64::from(id),
        None => {
            count(Counter::PythonCodeTableFull, 1);
            0
        }
    }
}

/// The interpreter frees a code object: its address may be another's from now on.
#[inline(always)]
pub fn code_freed(process: u16, code: u64) {
    let key = code_key(process, code);
    // SAFETY: the value is copied at once.
    let Some(&id) = (unsafe { PYTHON_CODES.get(key) }) else {
        // Most were never on a stack that was walked.
        return;
    };
    // First, so that whoever finds the id taken back finds the code object among those freed.
    if PYTHON_CODE_KEYS.get(id % CODE_KEYS) == Some(&key) {
        send_freed(id, process, code);
    }
    let _ = PYTHON_CODES.remove(key);
}

/// Sends what names a code object. Where the ring is full, it has no name.
#[inline(always)]
fn send_freed(id: u32, process: u16, code: u64) {
    let Some(pointers) = PYTHON_CODE_POINTERS.get(u32::from(process)) else {
        return;
    };
    let Some(mut record) = PYTHON_FREED.reserve::<FreedCode>(0) else {
        return;
    };
    // SAFETY: the record has that size, and integers may have any value.
    let freed = unsafe { &mut *record.as_mut_ptr() };
    freed.id = id;
    freed.process = u32::from(process);
    let [object, names @ ..] = &mut freed.parts;
    read_part(object, code);
    for (part, offset) in names.iter_mut().zip(pointers.0) {
        read_part(part, read_word(code.wrapping_add(u64::from(offset))));
    }
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// Reads what can be read at `address`, AVMA: behind an object's end the mapping may end, too.
#[inline(always)]
fn read_part(part: &mut CodePart, address: u64) {
    const PAGE: u64 = 4096;
    part.address = address;
    part.len = PART_BYTES as u64;
    // SAFETY: the helper checks the address.
    if unsafe { bpf_probe_read_user_buf(address as *const u8, &mut part.bytes) }.is_ok() {
        return;
    }
    let in_page = ((PAGE - address % PAGE) as usize).min(PART_BYTES);
    let read = part.bytes.get_mut(..in_page).is_some_and(|bytes| {
        // SAFETY: as above.
        unsafe { bpf_probe_read_user_buf(address as *const u8, bytes) }.is_ok()
    });
    part.len = if read { in_page as u64 } else { 0 };
}
