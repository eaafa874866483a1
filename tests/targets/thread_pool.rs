//! A server of HTTP/1.1 with a pool of threads, each of which serves one connection at a time.
//!
//! Its routes are those of `retaining.h`, with the same names and sizes; nothing else in it allocates,
//! once it is ready. Prints `ready PORT`, and ends with its input.

use std::{
    alloc::{Layout, alloc, dealloc},
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{
            AtomicBool, AtomicPtr, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
    time::Duration,
};

const THREADS: usize = 8;
/// How many requests later a block is released.
const LATER: usize = 3;
const MOST_WAITING: usize = 64;
const MOST_KEPT: usize = 1 << 16;
const BACKGROUND_BLOCKS: usize = 300;
const BACKGROUND_BYTES: usize = 777;
const HEAD_BYTES: usize = 8192;

struct Block {
    address: *mut u8,
    layout: Layout,
}

// SAFETY: a block of memory may be released by any thread.
unsafe impl Send for Block {}

impl Block {
    fn release(self) {
        // SAFETY: it is from the global allocator, with this layout, and is released once.
        unsafe { dealloc(self.address, self.layout) };
    }

    fn keep(self) {
        static KEPT: [AtomicPtr<u8>; MOST_KEPT] =
            [const { AtomicPtr::new(std::ptr::null_mut()) }; MOST_KEPT];
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        KEPT[COUNT.fetch_add(1, Relaxed)].store(self.address, Relaxed);
    }
}

/// Each writes something else, or the compiler would make one function of them.
macro_rules! allocating_site {
    ($name:ident, $fill:literal) => {
        #[inline(never)]
        #[unsafe(no_mangle)]
        fn $name(size: usize) -> Block {
            let layout = Layout::from_size_align(size, 8).expect("sizes here are small");
            // SAFETY: the size is not zero.
            let address = unsafe { alloc(layout) };
            assert!(!address.is_null());
            // SAFETY: the block is new and has this size.
            unsafe { address.write_bytes($fill, size) };
            Block { address, layout }
        }
    };
}

allocating_site!(site_kept, 1);
allocating_site!(site_freed_at_once, 2);
allocating_site!(site_freed_later, 3);
allocating_site!(site_freed_elsewhere, 4);
allocating_site!(site_handed_over, 5);
allocating_site!(site_afterwards, 6);
allocating_site!(site_background, 7);

/// A value that one thread leaves for others.
struct Waiting<T> {
    items: Mutex<VecDeque<T>>,
    changed: Condvar,
}

impl<T> Waiting<T> {
    const fn new() -> Self {
        Self {
            items: Mutex::new(VecDeque::new()),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.items.lock().expect("no thread panics")
    }

    fn reserve(&self) {
        self.lock().reserve(MOST_WAITING);
    }

    fn push(&self, item: T) {
        let mut items = self.lock();
        assert!(items.len() < MOST_WAITING);
        items.push_back(item);
        self.changed.notify_all();
    }

    /// Does something with the first item, which counts as waiting until that is done.
    fn take(&self, mut takes: impl FnMut(&mut VecDeque<T>)) {
        let items = self.lock();
        let mut items = (self.changed)
            .wait_while(items, |items| items.is_empty())
            .expect("no thread panics");
        takes(&mut items);
        self.changed.notify_all();
    }

    fn await_empty(&self) {
        let items = self.lock();
        let emptied = self.changed.wait_while(items, |items| !items.is_empty());
        drop(emptied.expect("no thread panics"));
    }
}

static CONNECTIONS: Waiting<TcpStream> = Waiting::new();
static TO_RELEASE: Waiting<Block> = Waiting::new();

struct Deferred {
    block: Block,
    due: usize,
    elsewhere: bool,
}

static DEFERRED: Waiting<Deferred> = Waiting::new();
static REQUESTS: AtomicUsize = AtomicUsize::new(0);

fn release_elsewhere(block: Block) {
    TO_RELEASE.push(block);
    TO_RELEASE.await_empty();
}

fn begin_request() {
    let now = REQUESTS.fetch_add(1, Relaxed) + 1;
    let next_due = || DEFERRED.lock().pop_front_if(|it| it.due <= now);
    while let Some(Deferred {
        block, elsewhere, ..
    }) = next_due()
    {
        match elsewhere {
            true => release_elsewhere(block),
            false => block.release(),
        }
    }
}

fn defer(block: Block, elsewhere: bool) {
    let due = REQUESTS.load(Relaxed) + LATER;
    DEFERRED.push(Deferred {
        block,
        due,
        elsewhere,
    });
}

static BACKGROUND_BEGUN: AtomicBool = AtomicBool::new(false);
static BACKGROUND_MADE: AtomicUsize = AtomicUsize::new(0);

fn allocate_in_background() {
    while !BACKGROUND_BEGUN.load(Acquire) {
        thread::sleep(Duration::from_millis(1));
    }
    for made in 1..=BACKGROUND_BLOCKS {
        site_background(BACKGROUND_BYTES).keep();
        BACKGROUND_MADE.store(made, Release);
        thread::sleep(Duration::from_micros(500));
    }
}

/// Whether there is such a route.
fn serve(path: &[u8]) -> bool {
    begin_request();
    match path {
        b"/clean" => site_freed_at_once(5000).release(),
        b"/hundred" => site_kept(100).keep(),
        b"/thousand" => site_kept(1000).keep(),
        b"/hundred-thousand" => site_kept(100_000).keep(),
        b"/later" => defer(site_freed_later(1000), false),
        b"/elsewhere" => defer(site_freed_elsewhere(1000), true),
        b"/handed-over" => release_elsewhere(site_handed_over(1000)),
        b"/background" => BACKGROUND_BEGUN.store(true, Release),
        b"/afterwards" | b"/progress" => {}
        _ => return false,
    }
    true
}

fn respond(connection: &mut TcpStream, known: bool, keeps_alive: bool) -> std::io::Result<()> {
    let status = if known { "200 OK" } else { "404 Not Found" };
    let close = if keeps_alive { "" } else { "Connection: close\r\n" };
    // Three digits, so that the length is known.
    let made = BACKGROUND_MADE.load(Acquire);
    let mut response = [0; 256];
    let mut rest = &mut response[..];
    write!(
        rest,
        "HTTP/1.1 {status}\r\nContent-Length: 3\r\n{close}\r\n{made:03}"
    )?;
    let left = rest.len();
    connection.write_all(&response[..256 - left])
}

/// Serves the requests of one connection, which have no bodies.
fn serve_connection(connection: &mut TcpStream) -> std::io::Result<()> {
    let mut head = [0; HEAD_BYTES];
    let mut filled = 0;
    loop {
        let end = head[..filled].windows(4).position(|it| it == b"\r\n\r\n");
        let Some(end) = end else {
            match connection.read(&mut head[filled..])? {
                0 => return Ok(()),
                read => filled += read,
            }
            continue;
        };
        let mut words = head[..end].split(|byte| b" \r".contains(byte));
        let path = words.nth(1).unwrap_or_default();
        let close = head[..end].windows(17).any(|it| it == b"Connection: close");
        let known = serve(path);
        respond(connection, known, !close)?;
        if path == b"/afterwards" {
            site_afterwards(1000).keep();
        }
        if close {
            return Ok(());
        }
        head.copy_within(end + 4..filled, 0);
        filled -= end + 4;
    }
}

fn work() {
    loop {
        let mut connection = None;
        CONNECTIONS.take(|waiting| connection = waiting.pop_front());
        if let Some(mut connection) = connection {
            // The client may be gone.
            drop(serve_connection(&mut connection));
        }
    }
}

fn main() {
    CONNECTIONS.reserve();
    TO_RELEASE.reserve();
    DEFERRED.reserve();
    for _ in 0..THREADS {
        thread::spawn(work);
    }
    thread::spawn(|| {
        loop {
            TO_RELEASE.take(|waiting| waiting.pop_front().into_iter().for_each(Block::release));
        }
    });
    thread::spawn(allocate_in_background);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    println!("ready {port}");
    thread::spawn(move || {
        for connection in listener.incoming() {
            CONNECTIONS.push(connection.expect("a connection"));
        }
    });
    // Until the harness is done.
    drop(std::io::stdin().read_to_end(&mut Vec::new()));
}
