//! Loads the eBPF object and attaches its programs. Nearly all calls of aya are here and in
//! [`drain`](crate::drain).
//!
//! The recording of a process begins and ends at one instant. Residue puts all probes in while the kernel
//! side still ignores the process, and then *opens* the process. At the end residue *closes* the process
//! first, and then takes the probes out, in any order. Residue attaches the probes that see memory released
//! before those that see memory taken.

mod btf;
mod calibrate;
mod channels;
mod closing;
mod code_lists;
mod config;
mod detach;
mod error;
mod kernel;
mod object;
mod programs;
mod shared;
mod unwind;
mod verify;

use std::{num::NonZeroU32, os::fd::AsFd as _};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::{
        TracePoint, UProbe,
        trace_point::TracePointLink,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use aya_log::EbpfLogger;
use detach::Aside;
use object::{load_object, program_mut, take};
use programs::Tracepoints;
use residue_ebpf::abi::{
    call_shape::{CallShape, Cookie},
    cost::ProbeTime,
    heap::{FunctionInfo, PROCESS_OPEN, ProcessState},
    python::{CodePointers, PythonLayout},
    unwind::{CodeMapping, ObjectState, TableState},
    window::CONNECTION_WORDS,
};
use unwind::UnwindMaps;

use crate::{
    ids::{FunctionId, Slot, StackId},
    process::{FileOffset, LoadedObject},
    unwind::Update,
};

pub use calibrate::ProbeCost;
pub use channels::Channels;
pub use closing::{forget as forget_entries, slot_of};
pub use config::{Limits, Samples, StackConfig, Tracing, Walking};
pub use detach::{Remaining, leave_probes_behind};
pub use error::AttachError;
pub use kernel::ensure_tracefs;
pub use programs::ProgramSet;
pub use shared::SharedArray;
pub use verify::{Accepted, VERIFIER_LIMIT, Verification};

/// How many functions of one process are probed at most that it has loaded while it was recorded. A library with an
/// allocator has some thirty, and each takes up to four open files.
const MAX_LATE_FUNCTIONS: usize = 512;

/// Where to put the probes of one function.
#[derive(Clone, Debug)]
pub struct ProbePoint<'a> {
    /// A path by which residue can open the object's file.
    pub object: &'a std::path::Path,
    /// The path by which the target names the object, for messages.
    pub name: &'a std::path::Path,
    /// Offset of the probed instruction in the object's file, bytes.
    pub file_offset: u64,
    /// The function's call shape.
    pub shape: CallShape,
}

impl<'a> ProbePoint<'a> {
    /// A place in the file of a loaded object.
    #[must_use]
    pub fn new(object: &'a LoadedObject, offset: FileOffset, shape: CallShape) -> Self {
        Self {
            object: object.opened.path(),
            name: &object.path,
            file_offset: offset.0,
            shape,
        }
    }
}

/// The loaded kernel side.
pub struct Kernel {
    ebpf: Ebpf,
    messages: EbpfLogger<&'static dyn log::Log>,
    programs: ProgramSet,
    /// The probes of every process, in the order in which residue attached them.
    probes: Vec<Probe>,
    /// The probes of processes that are over.
    aside: Aside,
    tracepoints: Vec<TracePointLink>,
    processes: Array<MapData, ProcessState>,
    trampolines: Array<MapData, u64>,
    stack_seeds: Array<MapData, u64>,
    targets: HashMap<MapData, u32, u32>,
    descendants: HashMap<MapData, u32, u32>,
    contexts: HashMap<MapData, u64, [u32; 2]>,
    items: HashMap<MapData, u64, [u32; 2]>,
    connections: HashMap<MapData, u64, [u64; CONNECTION_WORDS]>,
    probe_times: PerCpuArray<MapData, ProbeTime>,
    /// What an empty probe costs, once that is measured.
    probe_cost: Option<ProbeCost>,
    functions: Array<MapData, FunctionInfo>,
    pythons: Array<MapData, PythonLayout>,
    code_pointers: Array<MapData, CodePointers>,
    suspects: Array<MapData, u32>,
    python_pools: Array<MapData, u64>,
    unwind: UnwindMaps,
    next_function: u32,
    /// The numbers of functions of processes that are over.
    free_functions: Vec<FunctionId>,
    /// By slot, the numbers of the functions of its process.
    functions_of: std::collections::HashMap<Slot, Vec<FunctionId>>,
    /// How many functions were probed of each process since it was opened.
    late_functions: std::collections::HashMap<Slot, usize>,
}

struct Probe {
    slot: Slot,
    /// Kept for its `Drop`, which takes the probe out.
    _link: UProbeLink,
}

impl Kernel {
    /// Loads the maps. Attaches nothing yet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses: because of missing privileges, without BPF, or without memory for the maps.
    pub fn load(
        limits: Limits,
        programs: ProgramSet,
        stacks: StackConfig,
    ) -> Result<(Self, Channels), AttachError> {
        kernel::raise_memlock_limit();
        let mut ebpf = load_object(limits, stacks)?;
        let messages = EbpfLogger::init(&mut ebpf).map_err(AttachError::Log)?;
        let channels = Channels::of(&mut ebpf)?;
        Ok((Self::over(ebpf, messages, programs), channels))
    }

    fn over(
        mut ebpf: Ebpf,
        messages: EbpfLogger<&'static dyn log::Log>,
        programs: ProgramSet,
    ) -> Self {
        Self {
            processes: take(&mut ebpf, "PROCESSES"),
            trampolines: take(&mut ebpf, "TRAMPOLINES"),
            stack_seeds: take(&mut ebpf, "STACK_SEEDS"),
            targets: take(&mut ebpf, "TARGETS"),
            descendants: take(&mut ebpf, "DESCENDANTS"),
            contexts: take(&mut ebpf, "CONTEXTS"),
            items: take(&mut ebpf, "ITEMS"),
            connections: take(&mut ebpf, "CONNECTIONS"),
            probe_times: take(&mut ebpf, "PROBE_TIMES"),
            probe_cost: None,
            functions: take(&mut ebpf, "FUNCTIONS"),
            pythons: take(&mut ebpf, "PYTHONS"),
            code_pointers: take(&mut ebpf, "PYTHON_CODE_POINTERS"),
            suspects: take(&mut ebpf, "SUSPECTS"),
            python_pools: take(&mut ebpf, "PYTHON_POOLS"),
            unwind: UnwindMaps::of(&mut ebpf),
            ebpf,
            messages,
            programs,
            probes: Vec::new(),
            aside: Aside::default(),
            tracepoints: Vec::new(),
            next_function: 0,
            free_functions: Vec::new(),
            functions_of: std::collections::HashMap::new(),
            late_functions: std::collections::HashMap::new(),
        }
    }

    /// Attaches the tracepoints that follow threads and programs, and those that `tracing` asks for.
    ///
    /// # Errors
    ///
    /// When the kernel has no such tracepoints, or refuses.
    pub fn attach_tracepoints(&mut self, tracing: Tracing) -> Result<(), AttachError> {
        if self.programs == ProgramSet::Empty {
            return Ok(());
        }
        let with_segments = tracing.allocations && kernel::has_segments();
        let mappings = tracing.allocations.then_some(&programs::MAPPINGS);
        let segments = with_segments.then_some(&programs::SEGMENTS);
        let sockets = tracing.sockets.then_some(&programs::SOCKETS);
        let wanted = mappings.into_iter().flatten();
        let wanted = wanted.chain(segments.into_iter().flatten());
        let wanted = wanted.chain(sockets.into_iter().flatten());
        programs::PROCESSES
            .iter()
            .chain(wanted)
            .try_for_each(|tracepoints| self.attach_tracepoints_of(tracepoints))
    }

    fn attach_tracepoints_of(&mut self, tracepoints: &Tracepoints) -> Result<(), AttachError> {
        let (program, category) = (tracepoints.program, tracepoints.category);
        let refused = |source| AttachError::program(program, source);
        let tracepoint: &mut TracePoint = program_mut(&mut self.ebpf, program);
        tracepoint.load().map_err(refused)?;
        for name in tracepoints.names {
            let link = tracepoint
                .attach(category, name)
                .map_err(|source| AttachError::tracepoint(category, name, source))?;
            let link = tracepoint.take_link(link).map_err(refused)?;
            self.tracepoints.push(link);
        }
        Ok(())
    }

    /// Attaches the programs for one function of one process: all of them or none. Returns the function's number.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, the process has ended, or it was recorded already and has loaded too much.
    pub fn attach_function(
        &mut self,
        slot: Slot,
        pid: NonZeroU32,
        point: &ProbePoint<'_>,
        info: FunctionInfo,
    ) -> Result<FunctionId, AttachError> {
        let late = self.late_functions.get(&slot).copied();
        if late.is_some_and(|late| late >= MAX_LATE_FUNCTIONS) {
            return Err(AttachError::TooManyLate);
        }
        let free = self.free_functions.last().copied();
        let function = free.unwrap_or(FunctionId(self.next_function));
        self.functions
            .set(function.0, info, 0)
            .map_err(|_| AttachError::TooManyFunctions)?;
        let cookie = Cookie {
            process: slot.0,
            function: function.0,
        }
        .to_bits();
        self.attach_uprobes(slot, pid, point, cookie)?;
        self.keep_function(slot, function);
        Ok(function)
    }

    /// Gives the next number to a function of the process in a slot.
    fn keep_function(&mut self, slot: Slot, function: FunctionId) {
        if self.free_functions.pop().is_none() {
            self.next_function += 1;
        }
        self.functions_of.entry(slot).or_default().push(function);
        if let Some(late) = self.late_functions.get_mut(&slot) {
            *late += 1;
        }
    }

    /// Attaches all programs for a function, or none.
    fn attach_uprobes(
        &mut self,
        slot: Slot,
        pid: NonZeroU32,
        point: &ProbePoint<'_>,
        cookie: u64,
    ) -> Result<(), AttachError> {
        let names = programs::for_shape(self.programs, point.shape);
        let before = self.probes.len();
        // The return probe comes first: without the entry probe it does nothing.
        let mut programs = names.leave.into_iter().chain(names.enter);
        let attached =
            programs.try_for_each(|program| self.attach_uprobe(program, slot, pid, point, cookie));
        if attached.is_err() {
            self.probes.truncate(before);
        }
        attached
    }

    fn attach_uprobe(
        &mut self,
        program: &'static str,
        slot: Slot,
        pid: NonZeroU32,
        point: &ProbePoint<'_>,
        cookie: u64,
    ) -> Result<(), AttachError> {
        let uprobe: &mut UProbe = program_mut(&mut self.ebpf, program);
        if uprobe.fd().is_err() {
            uprobe
                .load()
                .map_err(|source| AttachError::program(program, source))?;
        }
        let at = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(point.file_offset),
            cookie: Some(cookie),
        };
        let link = uprobe
            .attach(at, point.object, UProbeScope::OneProcess(pid))
            .and_then(|link| uprobe.take_link(link))
            .map_err(|source| AttachError::uprobe(pid, point, source))?;
        self.probes.push(Probe { slot, _link: link });
        Ok(())
    }

    /// Tells the kernel side about a process, and whether the events of the process count.
    ///
    /// # Errors
    ///
    /// When there are more processes than the kernel side has room for.
    pub fn set_process(&mut self, slot: Slot, state: ProcessState) -> Result<(), AttachError> {
        if state.flags & PROCESS_OPEN != 0 {
            self.late_functions.entry(slot).or_default();
        }
        self.targets
            .insert(state.tgid, slot.index(), 0)
            .and_then(|()| self.processes.set(slot.index(), state, 0))
            .map_err(|_| AttachError::TooManyProcesses)
    }

    /// Has the stacks of the process in a slot told apart from those of the processes that have had the slot before:
    /// no other process of the recording may have the same `seed`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_stack_seed(&mut self, slot: Slot, seed: u64) -> Result<(), AttachError> {
        Ok(self.stack_seeds.set(slot.index(), seed, 0)?)
    }

    /// Tells the kernel side where a process has the trampoline of return probes, AVMA.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_trampoline(&mut self, slot: Slot, trampoline: u64) -> Result<(), AttachError> {
        Ok(self.trampolines.set(slot.index(), trampoline, 0)?)
    }

    /// Gives the walks of a process a new list of its code, in ascending order.
    ///
    /// # Errors
    ///
    /// When there is more code than the kernel side has room for.
    pub fn set_code(&mut self, slot: Slot, code: &[CodeMapping]) -> Result<(), AttachError> {
        self.unwind.set_code(slot, code)
    }

    /// Tells the kernel side where the Python of a process keeps its frames.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_python(&mut self, slot: Slot, layout: PythonLayout) -> Result<(), AttachError> {
        Ok(self.pythons.set(slot.index(), layout, 0)?)
    }

    /// Tells the kernel side where the Python of a process keeps the names of its code objects.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_code_pointers(
        &mut self,
        slot: Slot,
        pointers: CodePointers,
    ) -> Result<(), AttachError> {
        Ok(self.code_pointers.set(slot.index(), pointers, 0)?)
    }

    /// Tells the kernel side to walk every stack of a shallow context from now on, or no longer to do so.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_suspected(&mut self, context: StackId, suspected: bool) -> Result<(), AttachError> {
        Ok(self.suspects.set(context.0, u32::from(suspected), 0)?)
    }

    /// Tells the kernel side how large the pools of a process's Python are: bytes, a power of two.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_python_pools(&mut self, slot: Slot, bytes: u64) -> Result<(), AttachError> {
        Ok(self.python_pools.set(slot.index(), bytes, 0)?)
    }

    /// Tells the kernel side that residue has no unwind table of an object, and why.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_no_table(&mut self, object: u16, why: TableState) -> Result<(), AttachError> {
        self.unwind.set_no_table(object, why)
    }

    /// Gives the kernel side the unwind table of an object.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_table(
        &mut self,
        object: u16,
        state: ObjectState,
        updates: &[Update],
    ) -> Result<(), AttachError> {
        self.unwind.set_table(object, state, updates)
    }

    /// The living processes that recorded processes or their descendants have forked.
    pub fn descendants(&self) -> impl Iterator<Item = u32> {
        self.descendants.keys().flatten()
    }

    /// How often the probes of a process have run so far, and how long, on all CPUs together.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map, which it has no reason to.
    pub fn probe_time(&self, slot: Slot) -> Result<ProbeTime, AttachError> {
        let by_cpu = self.probe_times.get(&slot.index(), 0)?;
        let mut sum = ProbeTime::default();
        for time in by_cpu.iter() {
            sum.entries += time.entries;
            sum.returns += time.returns;
            sum.other_returns += time.other_returns;
            sum.timed += time.timed;
            sum.timed_ns += time.timed_ns;
        }
        Ok(sum)
    }

    /// Hands the messages of the kernel side, which are for debugging residue, to the `log` crate.
    pub fn flush_messages(&mut self) {
        self.messages.flush();
    }

    /// How many syscall events the kernel did not give to our tracepoint programs, because the CPU was running
    /// another BPF operation.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        programs::tracepoints()
            .filter_map(|tracepoints| self.ebpf.program(tracepoints.program)?.fd().ok())
            .map(|fd| kernel::recursion_misses(fd.as_fd()))
            .sum()
    }
}
