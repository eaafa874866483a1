//! A process that is being recorded: what it is, which of its functions are probed, what it mapped.

mod added;

use std::{
    collections::HashSet,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use residue_ebpf::abi::{
    call_shape::CallShape,
    event::{
        Event, EventKind, RANGE_BACKS_ALLOCATOR, RANGE_IS_FILE, RANGE_IS_MOVED, RANGE_IS_SHARED,
        RANGE_STAYS, WalkEnd,
    },
    frame::NO_OBJECT,
    heap::{FunctionInfo, PROCESS_OPEN, PROCESS_UNPROBED, ProcessState},
    unwind::CodeMapping,
};

pub use added::Added;

use super::{
    clock::now, code::Code, cost::Meter, discovered::Discovered, python::Python,
    python_probes::PythonProbed, sources::WindowProbed,
};

use crate::{
    attach::{AttachError, Kernel, ProbePoint},
    capture,
    drain::RawStack,
    heap::{MappingOwner, Ranges},
    ids::{ProcessNumber, Slot, StackId},
    probes::PlannedFunction,
    process::{Avma, Backing, FileKey, FileOffset, Load, LoadedObject, Mappings, Process},
    remark::{Named, Remark},
};

/// How far the last function of an allocator may reach, bytes. Beyond it the executable's own code
/// may begin.
const MAX_FUNCTION_BYTES: u64 = 4 << 10;

/// How much is said at most of what is not seen of one process.
const MAX_GAPS: usize = 200;

/// How long to wait at most before reading the mappings again, for the trampoline or for new code.
const MAX_PATIENCE: Duration = Duration::from_secs(1);

/// One recorded process, with everything that is known of it.
pub struct Followed {
    /// The process.
    pub process: Process,
    /// The place of the process in the tables of the kernel side. Others have the place later.
    pub slot: Slot,
    /// The number of the process in this recording, which no other process ever has.
    pub number: ProcessNumber,
    /// What it has mapped.
    pub ranges: Ranges,
    /// Its Python, if it runs one whose frames can be walked.
    pub python: Option<Python>,
    /// Which probes its Python has.
    pub python_probes: PythonProbed,
    /// The probes that open and close windows, beside those of sockets.
    pub window_probes: WindowProbed,
    /// What recording costs the process.
    pub meter: Meter,
    /// Whether its events count.
    pub open: bool,
    /// Why its allocations no longer count while it runs on, if so.
    pub let_go: Option<String>,
    probed: HashSet<(FileKey, FileOffset)>,
    /// What was said of it already.
    told: HashSet<String>,
    trampoline_known: bool,
    /// The mappings were read for the events that are being applied.
    snapshot_is_new: bool,
    /// A stack led to code that is not known: a JIT's, or a library's that appeared a moment ago.
    code_is_outdated: bool,
    code: Vec<CodeMapping>,
    /// When to read the mappings again, and how long to wait after that: a process that allocates
    /// nothing has no trampoline, one may jump anywhere, and reading mappings is not free.
    look_again_at: Instant,
    patience: Duration,
}

impl Followed {
    /// Nothing is attached yet.
    pub fn new(process: Process, slot: Slot, number: ProcessNumber) -> Self {
        let break_end = process.mappings().heap_end().map(|end| end.0);
        Self {
            ranges: Ranges::new(break_end),
            python: None,
            python_probes: PythonProbed::default(),
            window_probes: WindowProbed::default(),
            meter: Meter::default(),
            process,
            slot,
            number,
            open: false,
            let_go: None,
            probed: HashSet::new(),
            told: HashSet::new(),
            trampoline_known: false,
            snapshot_is_new: false,
            code_is_outdated: false,
            code: Vec::new(),
            look_again_at: Instant::now(),
            patience: Duration::from_millis(1),
        }
    }

    /// Puts probes on what is not probed yet. Of what was refused, it is tried again the next time.
    ///
    /// # Errors
    ///
    /// When the process is gone, or the kernel refuses for a reason that all processes have.
    pub fn attach(
        &mut self,
        kernel: &mut Kernel,
        discovered: &Discovered,
    ) -> Result<Added, AttachError> {
        let mut probed = std::mem::take(&mut self.probed);
        let added = Added::of(&discovered.plan, &mut probed, |function| {
            let object = &discovered.objects[function.object];
            let code = self.allocator_code(discovered, function);
            self.attach_function(kernel, object, function, code)
        });
        self.probed = probed;
        added
    }

    /// Whether nobody was told this of the process before. A process that never ends to load libraries is not listened
    /// to for ever.
    pub fn is_news(&mut self, remark: &Remark) -> bool {
        self.told.len() < MAX_GAPS && self.told.insert(remark.to_string())
    }

    /// What will not be seen, and nobody was told before.
    pub fn new_gaps(&mut self, discovered: &Discovered) -> Vec<Remark> {
        let gaps = discovered.gaps();
        gaps.filter(|gap| self.is_news(gap)).collect()
    }

    /// The process, as remarks name it.
    pub fn named(&self) -> Named {
        Named {
            pid: self.process.pid(),
            comm: self.process.comm().to_owned(),
        }
    }

    /// The process, as a capture has it, which is recorded from now on.
    pub fn row(&self) -> capture::Process {
        capture::Process {
            number: self.number,
            pid: self.process.pid().unsigned_abs(),
            comm: self.process.comm().to_owned(),
            exe: self.process.exe().display().to_string(),
            cmdline: self.process.cmdline().join(" "),
            started_ns: now(),
        }
    }

    /// Where calls come from that an allocator makes to itself: its library, or, in an executable,
    /// which holds everything, the neighbourhood of its functions.
    fn allocator_code(&self, discovered: &Discovered, function: &PlannedFunction) -> FunctionInfo {
        let mappings = self.process.mappings();
        let Some(text) = mappings.text(function.file, function.file_offset) else {
            return FunctionInfo::default();
        };
        let (mut start, mut end) = (text.start.0, text.end.0);
        if discovered.objects[function.object].load == Load::Executable {
            let neighbours = discovered.plan.functions.iter().filter(|other| {
                other.object == function.object && other.allocator == function.allocator
            });
            let offsets = neighbours.map(|other| other.file_offset.0);
            let avma = |offset: u64| offset.saturating_sub(text.offset.0).saturating_add(start);
            let first = offsets.clone().min().map_or(start, avma);
            let last = offsets.max().map_or(end, avma);
            (start, end) = (first, end.min(last.saturating_add(MAX_FUNCTION_BYTES)));
        }
        FunctionInfo {
            text_start: start,
            text_end: end,
            unpaired: function.unpaired.into(),
        }
    }

    fn attach_function(
        &self,
        kernel: &mut Kernel,
        object: &LoadedObject,
        function: &PlannedFunction,
        code: FunctionInfo,
    ) -> Result<(), AttachError> {
        let point = ProbePoint::new(object, function.site.file_offset, function.shape);
        kernel.attach_function(self.slot, self.pid(), &point, code)?;
        Ok(())
    }

    /// Has Python's frames walked, if there is a Python. Returns what will not be seen.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn attach_python(
        &mut self,
        kernel: &mut Kernel,
        discovered: &Discovered,
    ) -> Result<Option<Remark>, AttachError> {
        if self.python.is_some() {
            return Ok(None);
        }
        let python = match Python::find(&self.process, &discovered.objects) {
            Ok(Some(python)) => python,
            Ok(None) => return Ok(None),
            Err(refusal) => return Ok(Some(Remark::PythonFrames(refusal.to_string()))),
        };
        let Some((object, offset)) =
            discovered.holder(&self.process, python.interpreter.code_dealloc)
        else {
            return Ok(Some(Remark::PythonCodeUnknown));
        };
        let point = ProbePoint::new(object, offset, CallShape::PythonCodeFreed);
        kernel.attach_function(self.slot, self.pid(), &point, FunctionInfo::default())?;
        kernel.set_code_pointers(self.slot, python.code_pointers())?;
        kernel.set_python(self.slot, python.interpreter.layout)?;
        let caveat = python.interpreter.caveat();
        self.python = Some(python);
        Ok(caveat.map(Remark::PythonFrames))
    }

    /// Whether what it allocates counts.
    pub fn is_counted(&self) -> bool {
        self.open && self.let_go.is_none()
    }

    /// From here on its allocations do not count, although its requests do.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn let_go(&mut self, kernel: &mut Kernel, why: String) -> Result<(), AttachError> {
        self.let_go = Some(why);
        let mut state = self.state();
        state.flags |= PROCESS_UNPROBED;
        kernel.set_process(self.slot, state)
    }

    /// From here on its events count.
    ///
    /// # Errors
    ///
    /// When there are more processes than the kernel side has room for.
    pub fn open(&mut self, kernel: &mut Kernel) -> Result<(), AttachError> {
        kernel.set_stack_seed(self.slot, u64::from(self.number.0) + 1)?;
        kernel.set_process(self.slot, self.state())?;
        self.open = true;
        Ok(())
    }

    /// From here on its events do not count.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn close(&mut self, kernel: &mut Kernel) -> Result<(), AttachError> {
        self.open = false;
        kernel.close_process(self.slot)
    }

    /// Leads stack walks to the process's code as of its last snapshot.
    ///
    /// # Errors
    ///
    /// When the kernel side has no room for it.
    pub fn set_code(&mut self, kernel: &mut Kernel, code: &mut Code) -> Result<(), AttachError> {
        let mappings = code.mappings(&self.process);
        if mappings != self.code {
            match kernel.set_code(self.slot, &mappings) {
                // It keeps its last list: stacks are cut where that ends, and counted. One process must not
                // end the recording of others.
                Err(AttachError::TooMuchCode) if self.open => {}
                set => set?,
            }
            self.code = mappings;
        }
        if let Some(python) = &self.python {
            code.set_interpreter(python.file);
        }
        Ok(())
    }

    /// Its executable mappings, as the kernel side knows them.
    pub fn code(&self) -> &[CodeMapping] {
        &self.code
    }

    /// Finds the object of a frame that the kernel side did not know: code that appeared a moment
    /// ago may be known by now. Where it is not, the mappings are read again soon.
    pub fn locate(&mut self, stack: &mut RawStack) {
        for frame in &mut stack.frames {
            let call = frame.offset.saturating_sub(1);
            let holds = |code: &&CodeMapping| (code.start..code.end).contains(&call);
            if frame.object == NO_OBJECT
                && let Some(code) = self.code.iter().find(holds)
                && code.object != u32::from(NO_OBJECT)
            {
                frame.object = code.object as u16;
                frame.offset = frame.offset - code.start + code.offset;
            }
        }
        self.code_is_outdated |= stack.end == WalkEnd::UnknownCode;
    }

    /// Reads the mappings again if something is still missing: the return trampoline, which the
    /// kernel makes at the first hit of a return probe, or code that a stack led to.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update.
    pub fn look_again(&mut self, kernel: &mut Kernel, code: &mut Code) -> Result<(), AttachError> {
        self.snapshot_is_new = false;
        let complete = self.trampoline_known && !self.code_is_outdated;
        if complete || !self.is_counted() || Instant::now() < self.look_again_at {
            return Ok(());
        }
        self.look_again_at = Instant::now() + self.patience;
        self.patience = (2 * self.patience).min(MAX_PATIENCE);
        if self.process.refresh().is_err() {
            return Ok(());
        }
        if let Some(page) = self.process.mappings().uprobes()
            && !self.trampoline_known
        {
            kernel.set_trampoline(self.slot, page.start.0)?;
            self.trampoline_known = true;
        }
        if std::mem::take(&mut self.code_is_outdated) {
            self.set_code(kernel, code)?;
        }
        Ok(())
    }

    /// Applies a range event.
    pub fn apply(&mut self, kind: EventKind, event: &Event) {
        if self.let_go.is_some() {
            return;
        }
        let Event {
            tid,
            address,
            length,
            flags,
            ..
        } = *event;
        match kind {
            EventKind::RangeMapped => {
                let origin = self.owner(event).map(|owner| (StackId(event.stack), owner));
                self.ranges.map(address, length, origin);
            }
            EventKind::RangeTaken if flags & RANGE_STAYS != 0 => {
                self.ranges.empty(tid, address, length);
            }
            EventKind::RangeTaken => self.ranges.take(tid, address, length),
            EventKind::RangeRestored => self.ranges.restore(tid),
            EventKind::BreakMoved => {
                let origin = (StackId(event.stack), stated_owner(flags));
                self.ranges.move_break(address, origin);
            }
            EventKind::SegmentAttached => {
                let origin = (StackId(event.stack), stated_owner(flags));
                // One that is gone again has no range to be found.
                if let Some(end) = self.snapshot().segment_end(Avma(address)) {
                    self.ranges.attach(address, end.0, origin);
                }
            }
            EventKind::SegmentDetached => self.ranges.detach(address),
            EventKind::CodeMapped | EventKind::Executed => {}
        }
    }

    /// Whose memory a range is that was mapped; none if it is no memory of its own.
    fn owner(&mut self, event: &Event) -> Option<MappingOwner> {
        let stated = stated_owner(event.flags);
        if event.flags & RANGE_IS_FILE != 0 {
            return None;
        }
        if event.flags & RANGE_IS_MOVED == 0 || stated == MappingOwner::Allocator {
            return Some(stated);
        }
        // What was mapped before the recording began may be anything.
        let before = self.ranges.taken_from(event.tid);
        let backing = match before {
            Some(MappingOwner::Shared) => Backing::SharedMemory,
            Some(_) => Backing::Memory,
            None => self.snapshot().backing(Avma(event.address)),
        };
        match backing {
            Backing::Memory => Some(MappingOwner::Application),
            Backing::SharedMemory => Some(MappingOwner::Shared),
            Backing::File => None,
        }
    }

    /// The mappings as of now, which is after all events that are being applied: read once for all of them.
    fn snapshot(&mut self) -> &Mappings {
        if !std::mem::replace(&mut self.snapshot_is_new, true) {
            // Where the process is gone, what it had does not matter.
            let _ = self.process.refresh();
        }
        self.process.mappings()
    }

    fn state(&self) -> ProcessState {
        ProcessState {
            tgid: self.pid().get(),
            flags: PROCESS_OPEN,
        }
    }

    /// Its pid.
    pub fn pid(&self) -> NonZeroU32 {
        u32::try_from(self.process.pid())
            .ok()
            .and_then(NonZeroU32::new)
            .expect("Process::open refuses pids below 1")
    }
}

/// Whose memory a range is, as far as its event says.
const fn stated_owner(flags: u32) -> MappingOwner {
    if flags & RANGE_BACKS_ALLOCATOR != 0 {
        return MappingOwner::Allocator;
    }
    match flags & RANGE_IS_SHARED {
        0 => MappingOwner::Application,
        _ => MappingOwner::Shared,
    }
}
