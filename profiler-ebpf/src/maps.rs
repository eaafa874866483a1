//! Every map: its keys, its values, its capacity, and who writes it.
//!
//! Capacities given here are defaults; user space sets those of [`LIVE`], [`STACK_IDS`], [`TOTALS`],
//! [`SUSPECTS`], [`PAGES`] and [`ROWS`] before loading.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use residue_ebpf::abi::{
    cost::ProbeTime,
    counters::Counter,
    heap::{FunctionInfo, LiveBucket, MAX_PROCESSES, ProcessState, StackTotals},
    python::{CODE_KEYS, CodePointers, PythonLayout},
    unwind::{CodeMapping, MAX_RULES, ObjectState, PageChunk, RowChunk, Rule, TaskOffsets},
    window::{
        ProcessWindows, SocketOffsets, TASKS as MAX_TASKS, TaskState, WINDOWS as MAX_WINDOWS,
        WindowState,
    },
};

use crate::state::{
    connection::Connection,
    request::{Owner, Queued},
    thread::ThreadState,
};

/// Process slot to state. Written by user space; exec closes a slot from the kernel side.
#[map]
pub static PROCESSES: Array<ProcessState> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Process slot to the AVMA of the kernel's return trampoline in that process; zero while the address is not
/// known. Written by user space. The map stands apart from [`PROCESSES`], so that a write can never open a
/// slot again that an exec has closed.
#[map]
pub static TRAMPOLINES: Array<u64> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Process slot to the time that the probes have cost the process.
#[map]
pub static PROBE_TIMES: PerCpuArray<ProbeTime> = PerCpuArray::with_max_entries(MAX_PROCESSES, 0);

/// Process id of a live descendant that was forked while recording, to the process slot of its ancestor.
/// Full: no report says that the descendant was not recorded.
#[map]
pub static DESCENDANTS: HashMap<u32, u32> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Process id to process slot, for tracepoints, which have no cookie. Written by user space.
#[map]
pub static TARGETS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_PROCESSES, 0);

/// Function index to the function's details. Written by user space.
#[map]
pub static FUNCTIONS: Array<FunctionInfo> = Array::with_max_entries(16_384, 0);

/// Thread id to the thread's open calls and scratch space. Uprobe programs can be preempted, so scratch space
/// belongs to a thread, and never to a CPU. Full: the call is not followed, and counted.
#[map]
pub static THREADS: HashMap<u32, ThreadState> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// One empty thread state, from which new entries of [`THREADS`] are copied, because a thread state is too
/// large for the BPF stack.
#[map]
pub static EMPTY_THREAD: Array<ThreadState> = Array::with_max_entries(1, 0);

/// The live set: a hash table in an array (`live.rs`). Full: the allocation is counted as
/// lost under its stack. Mapped by user space, which reads it.
#[map]
pub static LIVE: Array<LiveBucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The number of buckets of [`LIVE`]. Set by user space before loading.
#[unsafe(no_mangle)]
pub static LIVE_BUCKETS: Global<u32> = Global::new(1);

/// Process slot to what the hashes of the stacks of its process begin with: the process that has the slot later has
/// stacks of its own. Written by user space before the process is opened.
#[map]
pub static STACK_SEEDS: Array<u64> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Process slot to its part of [`CODE_MAPPINGS`], as `mapping_list` packs it. Written by user space.
#[map]
pub static CODE_LISTS: Array<u64> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Executable mappings, those of each process in ascending order. Written by user space, and only in places
/// to which no list leads. Full: the process keeps its last list.
#[map]
pub static CODE_MAPPINGS: Array<CodeMapping> = Array::with_max_entries(131_072, 0);

/// Object id to its unwind table. Written by user space.
#[map]
pub static OBJECTS: Array<ObjectState> = Array::with_max_entries(65_536, 0);

/// Pages of all unwind tables. Written by user space. Full: the object has no table.
#[map]
pub static PAGES: Array<PageChunk> = Array::with_max_entries(1, 0);

/// Rows of all unwind tables. Written by user space. Full: the object has no table.
#[map]
pub static ROWS: Array<RowChunk> = Array::with_max_entries(1, 0);

/// Rules of all unwind tables. Written by user space. Full: the object has no table.
#[map]
pub static RULES: Array<Rule> = Array::with_max_entries(MAX_RULES as u32, 0);

/// Process slot to the places where the process's Python keeps frames. Written by user space.
#[map]
pub static PYTHONS: Array<PythonLayout> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Mean distance of samples of Python objects, bytes; at least `MAX_PYTHON_OBJECT`. Set by user space
/// before loading.
#[unsafe(no_mangle)]
pub static PYTHON_OBJECT_INTERVAL: Global<u32> = Global::new(8192);

/// Process slot to the size of its Python's pools, bytes, a power of two. Written by user space.
#[map]
pub static PYTHON_POOLS: Array<u64> = Array::with_max_entries(MAX_PROCESSES, 0);

/// `code_key` of a Python code object to its id. Full: its frames have no name.
#[map]
pub static PYTHON_CODES: HashMap<u64, u32> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// Id of a Python code object, modulo the capacity, to the object's key, by which user space reads the
/// object. An object whose place another one takes before that has no name.
#[map]
pub static PYTHON_CODE_KEYS: Array<u64> = Array::with_max_entries(CODE_KEYS, 0);

/// Process slot to the places where the process's code objects keep pointers to what names them. Written by
/// user space.
#[map]
pub static PYTHON_CODE_POINTERS: Array<CodePointers> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Code objects that are freed before user space has read them. Full: they have no name.
#[map]
pub static PYTHON_FREED: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// `context_key` of a context of `contextvars` to the owner of the context. User space removes the entries of
/// processes that are over. Full: the context has no owner, and is counted.
#[map]
pub static CONTEXTS: HashMap<u64, Owner> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// `item_key` of an object in a queue of Python's to the owner of the object, a window or a task. User space
/// removes the entries of processes that are over. Full: the object has no owner, and is counted.
#[map]
pub static ITEMS: HashMap<u64, Queued> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// The last id that a Python code object has got.
#[map]
pub static LAST_PYTHON_CODE: Array<u64> = Array::with_max_entries(1, 0);

/// Offsets in the kernel's structures of tasks. Set by user space before loading.
#[unsafe(no_mangle)]
pub static TASK_OFFSETS: Global<TaskOffsets> = Global::new(TaskOffsets {
    utask: 0,
    return_instances: 0,
    stack: 0,
    orig_ret_vaddr: 0,
    next: 0,
    fsbase: 0,
    signal: 0,
    live: 0,
});

/// Whether the kernel has `bpf_loop`. Set by user space before loading.
#[unsafe(no_mangle)]
pub static HAS_LOOP: Global<u32> = Global::new(1);

/// Whether to walk by frame pointers alone. Set by user space before loading.
#[unsafe(no_mangle)]
pub static FRAME_POINTERS_ONLY: Global<u32> = Global::new(0);

/// Whether to send samples of stacks, for tests. Set by user space before loading.
#[unsafe(no_mangle)]
pub static SAMPLE_STACKS: Global<u32> = Global::new(0);

/// A `StackPolicy`. Set by user space before loading.
#[unsafe(no_mangle)]
pub static STACK_POLICY: Global<u32> = Global::new(0);

/// Stack id of a shallow context to whether all its stacks are to be walked. Written by user space.
#[map]
pub static SUSPECTS: Array<u32> = Array::with_max_entries(65_536, 0);

/// Samples of stacks. As small as possible unless user space wants samples. Full: the stack is not sampled.
#[map]
pub static SAMPLES: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Hash of a stack to its id. Full: the allocation is counted under `UNKNOWN_STACK`.
#[map]
pub static STACK_IDS: HashMap<u64, u32> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// The next free stack id; starts at 1.
#[map]
pub static NEXT_STACK: Array<u64> = Array::with_max_entries(1, 0);

/// Stack id to totals. An array, so that a free finds its stack's totals without hashing. Mapped by
/// user space, which reads all of it several times a second.
#[map]
pub static TOTALS: Array<StackTotals> = Array::with_max_entries(65_536, BPF_F_MMAPABLE);

/// The values of the counters, by [`Counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT as u32, 0);

/// Frames of new stacks. Full: sent again at the stack's next use.
#[map]
pub static STACKS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Range and process events, in order. Full: counted.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Window number, modulo the capacity, to the window. Mapped by user space, which may close a window. Full of
/// open windows: the request has no window, and is counted.
#[map]
pub static WINDOWS: Array<WindowState> = Array::with_max_entries(MAX_WINDOWS, BPF_F_MMAPABLE);

/// The last number that a window has got.
#[map]
pub static LAST_WINDOW: Array<u64> = Array::with_max_entries(1, 0);

/// Task number, modulo the capacity, to the task. Mapped by user space. Full: the new task takes the place of
/// the oldest one, whose allocations stay ambiguous.
#[map]
pub static TASKS: Array<TaskState> = Array::with_max_entries(MAX_TASKS, BPF_F_MMAPABLE);

/// The last number that a task has got.
#[map]
pub static LAST_TASK: Array<u64> = Array::with_max_entries(1, 0);

/// Process slot to the counts that the process's windows have in common. Mapped by user space.
#[map]
pub static PROCESS_WINDOWS: Array<ProcessWindows> =
    Array::with_max_entries(MAX_PROCESSES, BPF_F_MMAPABLE);

/// `socket_key` or `tls_key` to the connection, of connections on which a request was read. A socket's entry
/// stays when the descriptor is closed, for the next socket of that number. User space removes the entries of
/// processes that are over. Full: requests on further connections have no window, and are counted.
#[map]
pub static CONNECTIONS: HashMap<u64, Connection> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Offsets in the kernel's structures that windows and shared mappings need. Set by user space before loading.
#[unsafe(no_mangle)]
pub static SOCKET_OFFSETS: Global<SocketOffsets> = Global::new(SocketOffsets {
    files: 0,
    fdt: 0,
    fd: 0,
    f_flags: 0,
    f_inode: 0,
    i_mode: 0,
    i_sb: 0,
    s_magic: 0,
    mm: 0,
    rss: 0,
    rss_stride: 0,
    nvcsw: 0,
    start_time: 0,
});

/// Events of windows, in order. Full: counted.
#[map]
pub static WINDOW_EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);
