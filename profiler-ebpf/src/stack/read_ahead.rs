//! A piece of the target's stack, read ahead.
//!
//! Reading a kilobyte of the target costs little more than reading a word, and frames lie close together.

use aya_ebpf::helpers::bpf_probe_read_user_buf;

use crate::verifier::element;

/// Words in a window. A power of two.
const WORDS: usize = 128;

/// See the module documentation.
#[repr(C)]
pub struct StackWindow {
    /// Where it was read, AVMA; zero when it holds nothing.
    start: u64,
    words: [u64; WORDS],
}

impl StackWindow {
    /// Forgets what was read.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.start = 0;
    }

    /// The word at `address`, AVMA, which must be a multiple of 8. Addresses that are asked for in
    /// ascending order are read once.
    #[inline(always)]
    pub fn word(&mut self, address: u64) -> Option<u64> {
        let mut index = (address.wrapping_sub(self.start) / 8) as usize;
        if self.start == 0 || index >= WORDS {
            self.read(address)?;
            index = 0;
        }
        Some(*element(&mut self.words, index))
    }

    #[inline(always)]
    fn read(&mut self, start: u64) -> Option<()> {
        // SAFETY: the words are plain bytes; the slice covers them.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast::<u8>(), 8 * WORDS)
        };
        // SAFETY: the helper checks the address.
        if unsafe { bpf_probe_read_user_buf(start as *const u8, bytes) }.is_ok() {
            self.start = start;
            return Some(());
        }
        // Near the end of the stack only the word itself may be there; nothing behind it counts.
        self.start = 0;
        // SAFETY: as above.
        unsafe { bpf_probe_read_user_buf(start as *const u8, &mut bytes[..8]) }.ok()
    }
}
