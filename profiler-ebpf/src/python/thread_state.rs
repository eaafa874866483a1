//! The interpreter's state of the current thread, `PyThreadState`.

use aya_ebpf::helpers::bpf_probe_read_user_buf;
use residue_ebpf::abi::python::{NO_CONTEXT, PythonLayout, STATE_BYTES};

use crate::{
    kernel::memory::read_word,
    maps::PYTHONS,
    state::{request::Entry, thread::ThreadState, walk::PythonWalk},
    verifier::element,
};

/// The context of `contextvars` that the thread is in, if the thread runs Python. The walk must have begun.
#[inline(always)]
pub fn context(thread: &mut ThreadState) -> Option<Entry> {
    let walk = &mut thread.walk.python;
    let layout = PYTHONS.get(walk.process)?;
    if !walk.is_thread() || layout.context == NO_CONTEXT {
        return None;
    }
    Some(Entry {
        state: walk.state_at,
        context: walk.state_word(layout.context),
        switches: walk.state_word(layout.context + 8),
    })
}

impl PythonWalk {
    /// Reads the beginning of the current thread's `PyThreadState`, if the thread has one.
    #[inline(always)]
    pub(super) fn read_state(&mut self, layout: &PythonLayout, fsbase: u64) -> Option<()> {
        if layout.gil_holder != 0 {
            // In a subinterpreter, thread-local storage leads to the main interpreter's state.
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
        // SAFETY: the words are plain bytes, and the slice lies in them.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(self.state.as_mut_ptr().cast::<u8>(), STATE_BYTES)
        };
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user_buf(address as *const u8, bytes) }.ok()?;
        self.state_at = address;
        Some(())
    }

    /// The word at an offset of the `PyThreadState`.
    #[inline(always)]
    pub(super) fn state_word(&mut self, offset: u32) -> u64 {
        *element(&mut self.state, offset as usize / 8)
    }
}
