//! Allocates through a few calls, in the main thread and in a thread of the standard library, and
//! knows the whole chain of callers. The precompiled standard library has no frame pointers.

use std::{
    alloc::{Layout, alloc},
    hint::black_box,
    sync::Barrier,
    thread,
};

use residue_rust_targets::{hear, say};

const CALLS: usize = 20;
const SIZE: usize = 120;

#[inline(never)]
#[unsafe(no_mangle)]
fn site_block() {
    let layout = Layout::from_size_align(SIZE, 8).expect("8 is a power of two");
    // SAFETY: the size is not zero.
    let block = unsafe { alloc(layout) };
    assert!(!black_box(block).is_null());
}

/// A vector that grows once, deep in the standard library's generic code.
#[inline(never)]
#[unsafe(no_mangle)]
fn site_push() {
    let mut vector = Vec::new();
    vector.push(black_box([7u8; SIZE / 4]));
    black_box(vector.leak());
}

#[inline(never)]
#[unsafe(no_mangle)]
fn recurses(frames: usize, site: fn()) {
    let local = black_box([0u8; 300]);
    if frames > 1 {
        recurses(frames - 1, site);
    } else {
        site();
    }
    black_box(local);
}

#[inline(never)]
#[unsafe(no_mangle)]
fn walks() {
    for _ in 0..CALLS {
        recurses(4, site_block);
        recurses(2, site_push);
    }
    black_box(());
}

/// What lies between the program's own first function and the C library's is the standard library.
fn truth() -> String {
    let chain = |site: &str, frames: usize, first: &str| {
        let recursion = r#""recurses","#.repeat(frames);
        let bytes = CALLS * SIZE;
        format!(
            r#"{{"frames":["{site}",{recursion}"walks","module:rust_chains*"{first}],"bytes":{bytes},"objects":{CALLS}}}"#
        )
    };
    let site = |site: &str| {
        let (bytes, objects) = (2 * CALLS * SIZE, 2 * CALLS);
        format!(r#""{site}":{{"bytes":{bytes},"objects":{objects}}}"#)
    };
    let chains = ["", ",\"main\""].map(|first| {
        let (alloc, push) = (chain("site_block", 4, first), chain("site_push", 2, first));
        format!("{alloc},{push}")
    });
    format!(
        r#"{{"chains":[{}],"sites":{{{},{}}},"mappings":{{}},"checksum":"right"}}"#,
        chains.join(","),
        site("site_block"),
        site("site_push")
    )
}

fn main() {
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            barrier.wait();
            walks();
            barrier.wait();
            // A thread that ends releases memory of its own.
            barrier.wait();
        });
        // Also makes the buffers of standard input and output.
        say("ready");
        hear();
        barrier.wait();
        walks();
        barrier.wait();
        say(&truth());
        say("barrier");
        hear();
        barrier.wait();
    });
}
