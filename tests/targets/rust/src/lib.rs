//! The workload of the Rust targets; see `ground_truth.h` for the protocol.
//!
//! Sites ask the global allocator through generic code, which is compiled here and so has frame
//! pointers where they are asked for; the precompiled standard library has none.

use std::{
    alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc},
    fmt::Write as _,
    hint::black_box,
    io::{Read as _, Write as _},
    sync::{
        Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

/// What one function holds, bytes as requested.
pub struct Site {
    name: &'static str,
    bytes: AtomicUsize,
    objects: AtomicUsize,
}

impl Site {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            bytes: AtomicUsize::new(0),
            objects: AtomicUsize::new(0),
        }
    }

    fn took(&'static self, block: *mut u8, layout: Layout) -> Held {
        assert!(!block.is_null());
        self.bytes.fetch_add(layout.size(), Relaxed);
        self.objects.fetch_add(1, Relaxed);
        Held {
            block,
            layout,
            site: self,
        }
    }

    fn gave(&self, layout: Layout) {
        self.bytes.fetch_sub(layout.size(), Relaxed);
        self.objects.fetch_sub(1, Relaxed);
    }
}

struct Held {
    block: *mut u8,
    layout: Layout,
    site: &'static Site,
}

// SAFETY: a block of memory may be released by any thread.
unsafe impl Send for Held {}

impl Held {
    fn release(self) {
        self.site.gave(self.layout);
        // SAFETY: `block` is from the global allocator, with this layout, and is released once.
        unsafe { dealloc(self.block, self.layout) };
    }
}

static ALLOC: Site = Site::new("site_alloc");
static ZEROED: Site = Site::new("site_alloc_zeroed");
static ALIGNED: Site = Site::new("site_alloc_aligned");
static REALLOC: Site = Site::new("site_realloc");
static BOXED: Site = Site::new("site_box");
static VECTOR: Site = Site::new("site_vec");

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("sizes here are small and alignments powers of two")
}

#[inline(never)]
#[unsafe(no_mangle)]
fn site_alloc(size: usize) -> Held {
    let layout = layout(size, 8);
    // SAFETY: the size is not zero.
    ALLOC.took(unsafe { alloc(layout) }, layout)
}

#[inline(never)]
#[unsafe(no_mangle)]
fn site_alloc_zeroed(size: usize) -> Held {
    let layout = layout(size, 8);
    // SAFETY: the size is not zero.
    ZEROED.took(unsafe { alloc_zeroed(layout) }, layout)
}

#[inline(never)]
#[unsafe(no_mangle)]
fn site_alloc_aligned(size: usize) -> Held {
    let layout = layout(size, 256);
    // SAFETY: the size is not zero.
    ALIGNED.took(unsafe { alloc(layout) }, layout)
}

#[inline(never)]
#[unsafe(no_mangle)]
fn site_realloc(old: Held, size: usize) -> Held {
    // SAFETY: `old` is live, its layout is the one it was allocated with, and the size is not zero.
    let block = unsafe { realloc(old.block, old.layout, size) };
    old.site.gave(old.layout);
    REALLOC.took(block, layout(size, old.layout.align()))
}

#[inline(never)]
#[unsafe(no_mangle)]
fn site_box() -> Held {
    let block = Box::into_raw(Box::new(black_box([7u64; 25])));
    BOXED.took(block.cast(), Layout::new::<[u64; 25]>())
}

/// A vector that grows: one reallocation a doubling, and one block in the end.
#[inline(never)]
#[unsafe(no_mangle)]
fn site_vec(length: usize) -> Held {
    let mut vector = Vec::with_capacity(1);
    for value in 0..length {
        vector.push(black_box(value as u32));
    }
    let capacity = vector.capacity();
    let block = vector.leak().as_mut_ptr();
    VECTOR.took(block.cast(), layout(4 * capacity, 4))
}

fn allocate_somehow(random: usize) -> Held {
    let size = 1 + random / 16 % 3000;
    match random % 8 {
        0 => site_alloc_zeroed(size),
        1 => site_alloc_aligned(size),
        2 => site_realloc(site_alloc(size), size * 3),
        3 => site_realloc(site_alloc_aligned(size * 2), size),
        4 => site_realloc(site_alloc(size), size + 400_000),
        5 => site_box(),
        6 => site_vec(1 + size / 10),
        _ => site_alloc(size),
    }
}

const THREADS: usize = 8;
const SLOTS: usize = 1024;

static SLOTS_OF_ALL: [Mutex<Option<Held>>; SLOTS] = [const { Mutex::new(None) }; SLOTS];

fn exchange_blocks(calls: usize, seed: usize) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..calls {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let held = allocate_somehow(state);
        let slot = &SLOTS_OF_ALL[state >> 20 & (SLOTS - 1)];
        let previous = slot.lock().expect("no thread panics").replace(held);
        if let Some(previous) = previous {
            previous.release();
        }
    }
}

/// Waits for a line of the harness.
pub fn hear() {
    let mut byte = [0];
    while std::io::stdin()
        .lock()
        .read(&mut byte)
        .is_ok_and(|read| read == 1)
        && byte[0] != b'\n'
    {}
}

/// Tells the harness.
pub fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").expect("the harness reads");
}

fn write_truth(line: &mut String) {
    line.push_str("{\"sites\":{");
    for (index, site) in [&ALLOC, &ZEROED, &ALIGNED, &REALLOC, &BOXED, &VECTOR]
        .iter()
        .enumerate()
    {
        let separator = if index == 0 { "" } else { "," };
        write!(
            line,
            "{separator}\"{}\":{{\"bytes\":{},\"objects\":{}}}",
            site.name,
            site.bytes.load(Relaxed),
            site.objects.load(Relaxed)
        )
        .expect("a String takes everything");
    }
    line.push_str("},\"mappings\":{},\"checksum\":\"right\"}");
}

/// A target's whole life. The argument is the number of calls of all threads, default 100,000.
pub fn live() {
    let calls = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(100_000);
    let mut line = String::with_capacity(1 << 16);
    let (begin, done, end) = (
        Barrier::new(THREADS + 1),
        Barrier::new(THREADS + 1),
        Barrier::new(THREADS + 1),
    );
    thread::scope(|scope| {
        for seed in 1..=THREADS {
            let (begin, done, end) = (&begin, &done, &end);
            scope.spawn(move || {
                begin.wait();
                exchange_blocks(calls / THREADS, seed);
                done.wait();
                end.wait();
            });
        }
        // Also makes the buffers of standard input and output.
        say("ready");
        hear();
        begin.wait();
        done.wait();
        write_truth(&mut line);
        say(&line);
        say("barrier");
        hear();
        end.wait();
    });
}
