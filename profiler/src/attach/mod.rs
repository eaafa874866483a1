//! Loads the eBPF object and attaches its programs. Nearly all of aya is here and in
//! [`drain`](crate::drain).
//!
//! A process is recorded from one definite instant to another: all its probes are put in while the
//! kernel side still ignores it, then it is *opened*; at the end it is *closed* first, and the
//! probes are taken out at leisure, in any order. Probes that see memory released are attached
//! before those that see it taken.

mod btf;
mod code_lists;
mod error;
mod kernel;
mod programs;
mod unwind;
mod verify;

use std::{num::NonZeroU32, os::fd::AsFd as _};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
    programs::{
        TracePoint, UProbe,
        trace_point::TracePointLink,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use aya_log::EbpfLogger;
use residue_ebpf::abi::{
    call_shape::Cookie,
    heap::{FunctionInfo, ProcessState, live_buckets},
    python::{CodePointers, PythonLayout},
    unwind::{CodeMapping, ObjectState, TableState},
};
use unwind::UnwindMaps;

use crate::unwind::{StoreLimits, Update};

pub use error::AttachError;
pub use kernel::ensure_tracefs;
pub use programs::ProgramSet;
pub use verify::{Accepted, VERIFIER_LIMIT, Verification};

/// The object that `build.rs` made from `profiler-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/residue-ebpf"));

/// How much the kernel side may keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Live allocations, over all targets.
    pub max_live: u32,
    /// Distinct stacks, over all targets.
    pub max_stacks: u32,
    /// Unwind tables of all objects: room in the kernel, MiB.
    pub max_unwind_mib: u32,
}

impl Limits {
    /// Those of a recording that asks for no others.
    pub const DEFAULT: Self = Self {
        max_live: 1 << 20,
        max_stacks: 65_536,
        max_unwind_mib: 16,
    };

    /// How much of the unwind tables' room is for rows and how much for pages, whose entries go with
    /// about nine times their size in rows.
    #[must_use]
    pub const fn unwind_store(&self) -> StoreLimits {
        let chunks = self.max_unwind_mib * 256;
        StoreLimits {
            row_chunks: chunks - chunks / 8,
            page_chunks: chunks / 8,
        }
    }
}

/// How the kernel side walks stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Walking {
    /// By unwind tables, and by frame pointers in code that has none but keeps those.
    #[default]
    Tables,
    /// By frame pointers alone.
    FramePointers,
    /// By unwind tables, with the few steps that a kernel without `bpf_loop` can verify.
    FewSteps,
}

/// Where to put the probes of one function.
#[derive(Clone, Debug)]
pub struct ProbePoint<'a> {
    /// A path that opens the object's file.
    pub object: &'a std::path::Path,
    /// Offset of the probed instruction in that file, bytes.
    pub file_offset: u64,
    /// The function's call shape.
    pub shape: residue_ebpf::abi::call_shape::CallShape,
}

/// Whether the kernel side hands out stacks together with what it walked them from, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Samples {
    /// No stack.
    #[default]
    None,
    /// Some stacks: as many as get through.
    Taken,
}

impl Samples {
    /// A few hundred samples between two polls, or as little as a ring buffer can hold.
    const fn ring_bytes(self) -> u32 {
        match self {
            Self::None => 4096,
            Self::Taken => 32 << 20,
        }
    }
}

/// The loaded kernel side.
pub struct Kernel {
    ebpf: Ebpf,
    messages: EbpfLogger<&'static dyn log::Log>,
    programs: ProgramSet,
    /// The probes, of every process, in the order in which they were attached.
    probes: Vec<Probe>,
    tracepoints: Vec<TracePointLink>,
    processes: Array<MapData, ProcessState>,
    trampolines: Array<MapData, u64>,
    targets: HashMap<MapData, u32, u32>,
    functions: Array<MapData, FunctionInfo>,
    pythons: Array<MapData, PythonLayout>,
    code_pointers: Array<MapData, CodePointers>,
    unwind: UnwindMaps,
    next_function: u32,
}

struct Probe {
    process: u16,
    /// Held for its `Drop`, which takes the probe out.
    _link: UProbeLink,
}

/// What [`drain`](crate::drain) reads from.
pub struct Channels {
    /// Frames of new stacks.
    pub stacks: RingBuf<MapData>,
    /// Range and process events.
    pub events: RingBuf<MapData>,
    /// Totals by stack id.
    pub totals: Array<MapData, residue_ebpf::abi::heap::StackTotals>,
    /// The next free stack id.
    pub next_stack: Array<MapData, u64>,
    /// Counters.
    pub counters: PerCpuArray<MapData, u64>,
    /// Samples of stacks.
    pub samples: RingBuf<MapData>,
    /// Keys of Python code objects to their ids.
    pub python_codes: HashMap<MapData, u64, u32>,
    /// Ids of Python code objects to their keys.
    pub python_code_keys: Array<MapData, u64>,
    /// Python code objects that were freed before they were read.
    pub python_freed: RingBuf<MapData>,
}

impl Kernel {
    /// Loads the maps and puts nothing anywhere yet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses: no privileges, no BPF, no memory for the maps.
    pub fn load(
        limits: Limits,
        programs: ProgramSet,
        walking: Walking,
        samples: Samples,
    ) -> Result<(Self, Channels), AttachError> {
        kernel::raise_memlock_limit();
        let buckets = live_buckets(limits.max_live);
        let unwind = limits.unwind_store();
        let has_loop = walking != Walking::FewSteps && kernel::has_loop();
        let mut ebpf = EbpfLoader::new()
            .override_global("LIVE_BUCKETS", &buckets, true)
            .override_global("TASK_OFFSETS", &btf::task_offsets(), true)
            .override_global("HAS_LOOP", &u32::from(has_loop), true)
            .override_global(
                "FRAME_POINTERS_ONLY",
                &u32::from(walking == Walking::FramePointers),
                true,
            )
            .override_global("SAMPLE_STACKS", &u32::from(samples == Samples::Taken), true)
            .map_max_entries("SAMPLES", samples.ring_bytes())
            .map_max_entries("ROWS", unwind.row_chunks)
            .map_max_entries("PAGES", unwind.page_chunks)
            .map_max_entries("LIVE", buckets)
            .map_max_entries("STACK_IDS", limits.max_stacks)
            .map_max_entries("TOTALS", limits.max_stacks.saturating_add(1))
            .load(OBJECT)
            .map_err(|source| AttachError::load(source, limits))?;
        let messages = EbpfLogger::init(&mut ebpf).map_err(AttachError::Log)?;
        let mut next_stack: Array<MapData, u64> = take(&mut ebpf, "NEXT_STACK");
        next_stack.set(0, 1_u64, 0)?;
        let channels = Channels {
            stacks: take(&mut ebpf, "STACKS"),
            events: take(&mut ebpf, "EVENTS"),
            totals: take(&mut ebpf, "TOTALS"),
            next_stack,
            counters: take(&mut ebpf, "COUNTERS"),
            samples: take(&mut ebpf, "SAMPLES"),
            python_codes: take(&mut ebpf, "PYTHON_CODES"),
            python_code_keys: take(&mut ebpf, "PYTHON_CODE_KEYS"),
            python_freed: take(&mut ebpf, "PYTHON_FREED"),
        };
        let kernel = Self {
            processes: take(&mut ebpf, "PROCESSES"),
            trampolines: take(&mut ebpf, "TRAMPOLINES"),
            targets: take(&mut ebpf, "TARGETS"),
            functions: take(&mut ebpf, "FUNCTIONS"),
            pythons: take(&mut ebpf, "PYTHONS"),
            code_pointers: take(&mut ebpf, "PYTHON_CODE_POINTERS"),
            unwind: UnwindMaps::of(&mut ebpf),
            ebpf,
            messages,
            programs,
            probes: Vec::new(),
            tracepoints: Vec::new(),
            next_function: 0,
        };
        Ok((kernel, channels))
    }

    /// Attaches the tracepoints that follow memory mappings and the ends of threads and programs.
    ///
    /// # Errors
    ///
    /// When the kernel has no such tracepoints, or refuses.
    pub fn attach_tracepoints(&mut self) -> Result<(), AttachError> {
        if self.programs == ProgramSet::Empty {
            return Ok(());
        }
        for (program, category, name) in programs::TRACEPOINTS {
            let tracepoint: &mut TracePoint = program_mut(&mut self.ebpf, program);
            tracepoint
                .load()
                .map_err(|source| AttachError::program(program, source))?;
            let link = tracepoint
                .attach(category, name)
                .map_err(|source| AttachError::tracepoint(category, name, source))?;
            let link = tracepoint
                .take_link(link)
                .map_err(|source| AttachError::program(program, source))?;
            self.tracepoints.push(link);
        }
        Ok(())
    }

    /// Attaches the programs for one function of one process.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the process is gone.
    pub fn attach_function(
        &mut self,
        process: u16,
        pid: NonZeroU32,
        point: &ProbePoint<'_>,
        info: FunctionInfo,
    ) -> Result<(), AttachError> {
        let function = self.next_function;
        self.functions
            .set(function, info, 0)
            .map_err(|_| AttachError::TooManyFunctions)?;
        self.next_function += 1;
        let cookie = Cookie { process, function }.to_bits();
        let names = programs::for_shape(self.programs, point.shape);
        // The return probe first: it does nothing without its entry.
        for program in names.leave.into_iter().chain([names.enter]) {
            self.attach_uprobe(program, process, pid, point, cookie)?;
        }
        Ok(())
    }

    fn attach_uprobe(
        &mut self,
        program: &'static str,
        process: u16,
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
        self.probes.push(Probe {
            process,
            _link: link,
        });
        Ok(())
    }

    /// Tells the kernel side about a process, and whether its events count.
    ///
    /// # Errors
    ///
    /// When there are more processes than the kernel side has room for.
    pub fn set_process(&mut self, process: u16, state: ProcessState) -> Result<(), AttachError> {
        self.targets
            .insert(state.tgid, u32::from(process), 0)
            .and_then(|()| self.processes.set(u32::from(process), state, 0))
            .map_err(|_| AttachError::TooManyProcesses)
    }

    /// Tells the kernel side where its return trampoline is in a process, AVMA.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_trampoline(&mut self, process: u16, trampoline: u64) -> Result<(), AttachError> {
        Ok(self.trampolines.set(u32::from(process), trampoline, 0)?)
    }

    /// Leads the walks of a process to a new list of its code, in ascending order.
    ///
    /// # Errors
    ///
    /// When there is more code than the kernel side has room for.
    pub fn set_code(&mut self, process: u16, code: &[CodeMapping]) -> Result<(), AttachError> {
        self.unwind.set_code(process, code)
    }

    /// Tells the kernel side where a process's Python keeps its frames.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_python(&mut self, process: u16, layout: PythonLayout) -> Result<(), AttachError> {
        Ok(self.pythons.set(u32::from(process), layout, 0)?)
    }

    /// Tells the kernel side where a process's Python keeps what names its code objects.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_code_pointers(
        &mut self,
        process: u16,
        pointers: CodePointers,
    ) -> Result<(), AttachError> {
        Ok(self.code_pointers.set(u32::from(process), pointers, 0)?)
    }

    /// States that an object has no unwind table that could be read, and why.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn set_no_table(&mut self, object: u16, why: TableState) -> Result<(), AttachError> {
        self.unwind.set_no_table(object, why)
    }

    /// Hands over an object's unwind table.
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

    /// From here on, nothing that the process does counts. Its probes stay until [`Self::detach`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn close_process(&mut self, process: u16) -> Result<(), AttachError> {
        let mut state = self.processes.get(&u32::from(process), 0)?;
        state.flags = 0;
        self.processes.set(u32::from(process), state, 0)?;
        Ok(())
    }

    /// Takes out the probes of one process, which must be closed.
    pub fn detach(&mut self, process: u16) {
        let (gone, kept) = std::mem::take(&mut self.probes)
            .into_iter()
            .partition(|probe| probe.process == process);
        self.probes = kept;
        drop_in_parallel(gone);
    }

    /// Takes out everything. All processes must be closed.
    pub fn detach_all(self) {
        drop_in_parallel(self.probes);
        drop_in_parallel(self.tracepoints);
    }

    /// Hands what the kernel side has to say, which is for debugging residue, to the `log` crate.
    pub fn flush_messages(&mut self) {
        self.messages.flush();
    }

    /// How many syscall events the kernel did not give to our tracepoint programs, because another
    /// BPF operation was under way on the CPU.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        programs::TRACEPOINTS
            .iter()
            .filter_map(|(name, ..)| self.ebpf.program(name)?.fd().ok())
            .map(|fd| kernel::recursion_misses(fd.as_fd()))
            .sum()
    }
}

/// Drops each value in a thread of its own: the kernel waits out an RCU grace period for every
/// probe it removes, tens of milliseconds, and the waits can overlap.
fn drop_in_parallel<T: Send>(values: Vec<T>) {
    std::thread::scope(|scope| {
        for value in values {
            scope.spawn(move || drop(value));
        }
    });
}

/// A map of the embedded object.
fn take<T>(ebpf: &mut Ebpf, name: &str) -> T
where
    T: TryFrom<aya::maps::Map>,
    T::Error: std::fmt::Debug,
{
    ebpf.take_map(name)
        .and_then(|map| T::try_from(map).ok())
        .expect("the embedded object has the maps of profiler-ebpf/src/maps.rs")
}

/// A program of the embedded object.
fn program_mut<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut T
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .expect("the embedded object has the programs of profiler-ebpf/src/main.rs")
}
