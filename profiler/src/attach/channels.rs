//! What the kernel side writes and user space reads.

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
};
use residue_ebpf::abi::{
    heap::{LiveBucket, StackTotals},
    window::{ProcessWindows, TaskState, WindowState},
};

use super::{AttachError, SharedArray, object::take};

/// The maps and ring buffers that [`drain`](crate::drain) reads from.
pub struct Channels {
    /// Frames of new stacks.
    pub stacks: RingBuf<MapData>,
    /// Range and process events.
    pub events: RingBuf<MapData>,
    /// Totals by stack id.
    pub totals: SharedArray<StackTotals>,
    /// The next free stack id.
    pub next_stack: Array<MapData, u64>,
    /// The live set.
    pub live: SharedArray<LiveBucket>,
    /// Request windows. The place of a window is its number modulo the length.
    pub windows: SharedArray<WindowState>,
    /// Tasks that began while nobody knew their window. The place of a task is its number modulo the length.
    pub tasks: SharedArray<TaskState>,
    /// What the kernel side keeps for all windows of a process together, by the slot of the process.
    pub process_windows: SharedArray<ProcessWindows>,
    /// Events of windows.
    pub window_events: RingBuf<MapData>,
    /// The counters of the kernel side, by their numbers.
    pub counters: PerCpuArray<MapData, u64>,
    /// Samples of stacks.
    pub samples: RingBuf<MapData>,
    /// Ids of Python code objects, by their keys.
    pub python_codes: HashMap<MapData, u64, u32>,
    /// Keys of Python code objects, by their ids.
    pub python_code_keys: Array<MapData, u64>,
    /// Python code objects that Python freed before user space had read them.
    pub python_freed: RingBuf<MapData>,
}

impl Channels {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, AttachError> {
        let mut next_stack: Array<MapData, u64> = take(ebpf, "NEXT_STACK");
        next_stack.set(0, 1_u64, 0)?;
        Ok(Self {
            stacks: take(ebpf, "STACKS"),
            events: take(ebpf, "EVENTS"),
            totals: SharedArray::of(ebpf, "TOTALS")?,
            live: SharedArray::of(ebpf, "LIVE")?,
            windows: SharedArray::of(ebpf, "WINDOWS")?,
            tasks: SharedArray::of(ebpf, "TASKS")?,
            process_windows: SharedArray::of(ebpf, "PROCESS_WINDOWS")?,
            window_events: take(ebpf, "WINDOW_EVENTS"),
            next_stack,
            counters: take(ebpf, "COUNTERS"),
            samples: take(ebpf, "SAMPLES"),
            python_codes: take(ebpf, "PYTHON_CODES"),
            python_code_keys: take(ebpf, "PYTHON_CODE_KEYS"),
            python_freed: take(ebpf, "PYTHON_FREED"),
        })
    }
}
