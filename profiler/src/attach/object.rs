//! The embedded object of eBPF programs: loads the object, and hands out its maps and programs.

use aya::{Ebpf, EbpfLoader};
use residue_ebpf::abi::heap::live_buckets;

use super::{AttachError, Limits, Samples, StackConfig, Walking, btf, kernel};

/// The object that `build.rs` builds from `profiler-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/residue-ebpf"));

/// Loads the embedded object's maps, with what a recording asks of the kernel side as constants.
pub(super) fn load_object(limits: Limits, stacks: StackConfig) -> Result<Ebpf, AttachError> {
    let buckets = live_buckets(limits.max_live);
    let stack_count = limits.max_stacks.saturating_add(1);
    let unwind = limits.unwind_store();
    let offsets = btf::offsets();
    let has_loop = stacks.walking != Walking::FewSteps && kernel::has_loop();
    let frame_pointers_only = stacks.walking == Walking::FramePointers;
    let sampled = stacks.samples == Samples::Taken;
    EbpfLoader::new()
        .override_global("LIVE_BUCKETS", &buckets, true)
        .override_global("TASK_OFFSETS", &offsets.task, true)
        .override_global("SOCKET_OFFSETS", &offsets.socket, true)
        .override_global("HAS_LOOP", &u32::from(has_loop), true)
        .override_global("STACK_POLICY", &(stacks.policy as u32), true)
        .override_global("FRAME_POINTERS_ONLY", &u32::from(frame_pointers_only), true)
        .override_global("PYTHON_OBJECT_INTERVAL", &limits.python_interval, true)
        .override_global("SAMPLE_STACKS", &u32::from(sampled), true)
        .map_max_entries("SAMPLES", stacks.samples.ring_bytes())
        .map_max_entries("ROWS", unwind.row_chunks)
        .map_max_entries("PAGES", unwind.page_chunks)
        .map_max_entries("LIVE", buckets)
        .map_max_entries("STACK_IDS", limits.max_stacks)
        .map_max_entries("TOTALS", stack_count)
        .map_max_entries("SUSPECTS", stack_count)
        .load(OBJECT)
        .map_err(|source| AttachError::load(source, limits))
}

/// Takes a map out of the embedded object.
pub(super) fn take<T>(ebpf: &mut Ebpf, name: &str) -> T
where
    T: TryFrom<aya::maps::Map>,
    T::Error: std::fmt::Debug,
{
    ebpf.take_map(name)
        .and_then(|map| T::try_from(map).ok())
        .expect("the embedded object has the maps of profiler-ebpf/src/maps.rs")
}

/// Borrows a program of the embedded object.
pub(super) fn program_mut<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut T
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .expect("the embedded object has the programs of profiler-ebpf/src/main.rs")
}
