//! Walks the chain of frame pointers.
//!
//! A frame record is two words: `/// (bp, ip) = (*bp, *(bp + 8))`. Code without frame pointers keeps
//! other things in rbp, so each record must lie above the last one, aligned, and not too far away.

use aya_ebpf::helpers::bpf_probe_read_user;
use residue_ebpf::abi::{
    MAX_FRAMES,
    event::{StackEvent, WalkEnd},
};

use crate::thread::Registers;

/// How far apart two frame records may lie, bytes: more than any frame that is not a mistake.
const MAX_FRAME_BYTES: u64 = 8 << 20;

/// Walks from `start`, writes the frames into `out` leaf first, and returns their hash.
///
/// `start.ip` becomes the first frame.
#[inline(always)]
pub fn walk(start: Registers, seed: u64, out: &mut StackEvent) -> u64 {
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
        // SAFETY: the helper checks the address.
        let Ok([next_bp, ip]) = (unsafe { bpf_probe_read_user(bp as *const [u64; 2]) }) else {
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
