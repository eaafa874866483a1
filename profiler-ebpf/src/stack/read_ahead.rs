//! A piece of the target's stack, read ahead.
//!
//! Reading a kilobyte of the target costs little more than reading a word, and frames lie close together.

use aya_ebpf::helpers::bpf_probe_read_user_buf;

use crate::{
    state::walk::{AHEAD_WORDS, ReadAhead},
    verifier::element,
};

impl ReadAhead {
    /// Forgets what was read.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.start = 0;
    }

    /// The word at `address`, AVMA, which must be a multiple of 8. If the addresses of several calls ascend,
    /// each piece is read once.
    #[inline(always)]
    pub(super) fn word(&mut self, address: u64) -> Option<u64> {
        let mut index = (address.wrapping_sub(self.start) / 8) as usize;
        if self.start == 0 || index >= AHEAD_WORDS {
            self.read(address)?;
            index = 0;
        }
        Some(*element(&mut self.words, index))
    }

    #[inline(always)]
    fn read(&mut self, start: u64) -> Option<()> {
        // SAFETY: the words are plain bytes, and the slice covers them.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast::<u8>(), 8 * AHEAD_WORDS)
        };
        // SAFETY: the helper checks the address.
        if unsafe { bpf_probe_read_user_buf(start as *const u8, bytes) }.is_ok() {
            self.start = start;
            return Some(());
        }
        // Near the end of the stack only the word itself may be there. Nothing behind the word counts then.
        self.start = 0;
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user_buf(start as *const u8, &mut bytes[..8]) }.ok()
    }
}
