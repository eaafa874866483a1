//! Walks the chain of frame pointers.
//!
//! A frame record is two words: `(bp, ip) = (*bp, *(bp + 8))`. Code without frame pointers keeps
//! other things in rbp, so each record must lie above the last one, aligned, and not too far away.
//!
//! Reading the target costs about as much for 256 bytes as for 16, and frames lie close together,
//! so the stack is read in windows.

use aya_ebpf::helpers::bpf_probe_read_user_buf;
use residue_ebpf::abi::{
    MAX_FRAMES,
    event::{StackEvent, WalkEnd},
};

use crate::{thread::Registers, verifier::element};

/// How far apart two frame records may lie, bytes: more than any frame that is not a mistake.
const MAX_FRAME_BYTES: u64 = 8 << 20;

/// Words in a window. A power of two.
const WINDOW_WORDS: usize = 32;

/// A piece of the target's stack.
#[repr(C)]
pub struct StackWindow {
    /// Where it was read, AVMA; zero when it holds nothing.
    start: u64,
    words: [u64; WINDOW_WORDS],
}

impl StackWindow {
    /// The frame record `(bp, ip)` at `bp`.
    #[inline(always)]
    fn record(&mut self, bp: u64) -> Option<(u64, u64)> {
        let mut index = (bp.wrapping_sub(self.start) / 8) as usize;
        if self.start == 0 || index > WINDOW_WORDS - 2 {
            self.read(bp)?;
            index = 0;
        }
        Some((
            *element(&mut self.words, index),
            *element(&mut self.words, index + 1),
        ))
    }

    #[inline(always)]
    fn read(&mut self, start: u64) -> Option<()> {
        // SAFETY: the words are plain bytes; the slice covers them.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast::<u8>(), 8 * WINDOW_WORDS)
        };
        // SAFETY: the helper checks the address.
        if unsafe { bpf_probe_read_user_buf(start as *const u8, bytes) }.is_ok() {
            self.start = start;
            return Some(());
        }
        // Near the end of the stack only the record itself may be there; nothing behind it counts.
        self.start = 0;
        // SAFETY: as above.
        unsafe { bpf_probe_read_user_buf(start as *const u8, &mut bytes[..16]) }.ok()
    }
}

/// Walks from `start`, writes the frames into `out` leaf first, and returns their hash.
///
/// `start.ip` becomes the first frame.
#[inline(always)]
pub fn walk(start: Registers, seed: u64, window: &mut StackWindow, out: &mut StackEvent) -> u64 {
    window.start = 0;
    let mut hash = mix(seed, start.ip);
    let mut end = WalkEnd::TooDeep;
    let (mut sp, mut bp) = (start.sp, start.bp);
    out.frames[0] = start.ip;
    let mut len = 1;
    while len < MAX_FRAMES {
        if bp < sp || bp - sp > MAX_FRAME_BYTES || bp % 8 != 0 {
            end = WalkEnd::ChainEnded;
            break;
        }
        let Some((next_bp, ip)) = window.record(bp) else {
            end = WalkEnd::Unreadable;
            break;
        };
        if ip == 0 {
            end = WalkEnd::ChainEnded;
            break;
        }
        out.frames[len] = ip;
        hash = mix(hash, ip);
        len += 1;
        sp = bp + 16;
        bp = next_bp;
    }
    out.len = len as u32;
    out.end = end as u32;
    hash
}

/// One step of the stack hash: a multiplication by an odd constant (2^64 divided by the golden
/// ratio, as in Knuth's multiplicative hashing) that is folded down, so that low bits depend on all.
#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 29)
}
