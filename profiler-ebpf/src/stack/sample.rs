//! Copies stacks to user space, so that tests can unwind them by other means and compare the results.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_probe_read_user_buf, generated::bpf_get_prandom_u32,
};
use residue_ebpf::abi::event::{SAMPLE_BYTES, StackSample};

use crate::{
    maps::{SAMPLE_STACKS, SAMPLES},
    state::{thread::ThreadState, walk::Registers},
};

/// One walk in this many is sampled.
const INTERVAL: u32 = 8;
/// How many bytes are copied at once. A copy misses at most the last piece of a stack.
const PIECE: usize = 512;

/// Sends the walk that began at `start`, if chance makes the walk a sample and there is room.
#[inline(always)]
pub fn take(start: Registers, thread: &ThreadState) {
    // SAFETY: a plain helper call.
    if SAMPLE_STACKS.load() == 0 || unsafe { bpf_get_prandom_u32() } % INTERVAL != 0 {
        return;
    }
    let Some(mut entry) = SAMPLES.reserve::<StackSample>(0) else {
        return;
    };
    let sample = entry.as_mut_ptr();
    let task = bpf_get_current_pid_tgid();
    // SAFETY: the entry is as large as a sample, and every field is written before the entry is sent. The part of the
    // stack that is not copied means nothing.
    unsafe {
        (*sample).pid = (task >> 32) as u32;
        (*sample).tid = task as u32;
        (*sample).ip = start.ip;
        (*sample).sp = start.sp;
        (*sample).bp = start.bp;
        (*sample).process = thread.stack.process;
        (*sample).walked = thread.stack.walked;
        (*sample).end = thread.stack.end;
        (*sample).frames = thread.stack.frames;
        (*sample).stack_bytes = copy_stack(start.sp, &mut (*sample).stack);
    }
    entry.submit(0);
}

#[inline(always)]
fn copy_stack(sp: u64, stack: &mut [u8; SAMPLE_BYTES]) -> u32 {
    let mut copied = 0;
    let (pieces, _) = stack.as_chunks_mut::<PIECE>();
    for piece in pieces {
        let from = sp.wrapping_add(u64::from(copied));
        // SAFETY: the helper checks the address.
        if unsafe { bpf_probe_read_user_buf(from as *const u8, piece) }.is_err() {
            break;
        }
        copied += PIECE as u32;
    }
    copied
}
