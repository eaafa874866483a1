//! A recording, from the first look at a process to the finished capture. The whole pipeline on
//! one page: discover, plan, attach, drain, symbolize, write.

mod about;
mod clock;
mod code;
mod error;
mod followed;
mod frames;
mod interval;
mod launch;
mod memory;
mod new_code;
pub(crate) mod python;
mod python_heap;
mod python_probes;
mod python_tasks;
mod samples;
mod sources;
mod update;
mod wake;
mod walkers;
mod windows;

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

use residue_ebpf::abi::{
    event::EventKind,
    frame::PythonFrame,
    heap::{PROCESS_LAUNCHING, ProcessState, StackPolicy},
};

use crate::{
    attach::{Channels, Kernel, Limits, ProgramSet, StackConfig, Tracing},
    capture::{Stack, Writer},
    drain::Drain,
    heap::Suspects,
    probes::SitePolicy,
    target::{Pid, Process},
    unwind::TableStore,
    window::record::MemoryAt,
};
use about::{describe, row, writer};
use clock::now;
use code::Code;
use followed::{Discovered, Followed};
use frames::FrameTable;
use launch::{Launch, resume};
use memory::MemoryLog;
use python::CodeObjects;
use python_probes::PythonProbes;
use samples::{SampleFile, sample_file};
use sources::WindowProbes;
use wake::{give_way, ticks, watch};
use windows::Windows;

pub use error::SessionError;
pub use update::{Tables, Tally, Update};
pub use windows::WindowRules;

/// How often the ring buffers are emptied. They hold the stacks of a few thousand first-time
/// callers; at this rate a hundred thousand a second get through.
const POLL: Duration = Duration::from_millis(20);

/// The same where no allocation is followed: what happens to windows is little, and each time costs the host
/// a tenth of a millisecond.
const POLL_WINDOWS: Duration = Duration::from_millis(50);

/// How often the totals are reviewed for shallow contexts that grow.
const REVIEW: Duration = Duration::from_millis(250);

/// How long the first events wait for unwind tables, from the moment that all probes are in. The
/// tables of most processes are made before that.
const TABLES: Duration = Duration::from_millis(500);

/// How long everything else waits for the tables of a library that was loaded: it may be at work
/// already.
const NEW_TABLES: Duration = Duration::from_millis(20);

/// What to record, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The processes.
    pub pids: Vec<Pid>,
    /// A command to start and record as well; may be empty.
    pub command: Vec<OsString>,
    /// Where the capture goes, if one is to be written.
    pub output: Option<PathBuf>,
    /// When to end by itself.
    pub duration: Option<Duration>,
    /// How often figures are written.
    pub interval: Duration,
    /// How much the kernel side may keep.
    pub limits: Limits,
    /// Which programs the probes run.
    pub programs: ProgramSet,
    /// What is followed.
    pub tracing: Tracing,
    /// What windows are.
    pub windows: WindowRules,
    /// Which stacks are walked, and how.
    pub stacks: StackConfig,
    /// Where samples of stacks go, if any are taken.
    pub samples: Option<PathBuf>,
    /// Where in a function a probe goes.
    pub sites: SitePolicy,
    /// Whether to sample Python objects.
    pub python_objects: bool,
}

/// A recording under way.
pub struct Session<'a> {
    config: &'a Config,
    kernel: Kernel,
    drain: Drain,
    writer: Option<Writer>,
    windows: Windows,
    memory: MemoryLog,
    followed: Vec<Followed>,
    code: Code,
    frames: FrameTable,
    code_objects: CodeObjects,
    suspects: Suspects,
    samples: Option<SampleFile>,
    stacks: Vec<Stack>,
    stacks_seen: usize,
    /// Those whose totals are Python's own allocator's.
    python_stacks: HashSet<u32>,
    python_probes: PythonProbes,
    window_probes: WindowProbes,
    tell: &'a mut dyn FnMut(Update),
}

impl<'a> Session<'a> {
    /// Looks at the processes, puts the probes in, and begins to count. Either all of that happens
    /// or nothing: an error leaves no probe behind.
    ///
    /// # Errors
    ///
    /// Each [`SessionError`] names what to do about it.
    pub fn start(
        config: &'a Config,
        tell: &'a mut dyn FnMut(Update),
    ) -> Result<Self, SessionError> {
        let began = Instant::now();
        let mut code = Code::new(TableStore::new(config.limits.unwind_store()));
        let mut found = Vec::new();
        for &pid in &config.pids {
            let process = match config.tracing.allocations {
                true => Process::open(pid)?,
                false => Process::open_unprobed(pid)?,
            };
            // Unwind tables are made while the kernel side is loaded.
            code.mappings(&process);
            let discovered = match config.tracing.allocations {
                true => Discovered::of(&process, config.sites)?,
                false => Discovered::default(),
            };
            found.push((process, discovered));
        }
        let launch = match &*config.command {
            [] => None,
            command => Some(Launch::prepare(command)?),
        };
        let (mut kernel, channels) = Kernel::load(config.limits, config.programs, config.stacks)?;
        kernel.attach_tracepoints(config.tracing)?;
        let launched = launch.as_ref().map(Launch::pid);
        if let Some(launch) = launch {
            let state = ProcessState {
                tgid: launch.pid().as_raw_nonzero().get().unsigned_abs(),
                flags: PROCESS_LAUNCHING,
            };
            kernel.set_process(found.len() as u16, state)?;
            found.push(launch.run_to_c_library(config.sites)?);
        }
        let session = Self::attach(config, tell, (kernel, channels), code, found, began);
        if let Some(pid) = launched {
            resume(pid);
        }
        session
    }

    fn attach(
        config: &'a Config,
        tell: &'a mut dyn FnMut(Update),
        (mut kernel, channels): (Kernel, Channels),
        code: Code,
        found: Vec<(Process, Discovered)>,
        began: Instant,
    ) -> Result<Self, SessionError> {
        let mut followed = Vec::new();
        let mut gaps = Vec::new();
        let mut functions = 0;
        let mut python_probes = PythonProbes::new(config);
        let mut windows = Windows::new(
            &config.windows,
            config.tracing.allocations,
            config.output.is_some(),
        );
        let mut window_probes = WindowProbes::new(&config.windows.sources, config.sites);
        for (slot, (process, discovered)) in (0..).zip(found) {
            let mut process = Followed::new(process, slot);
            gaps.extend(process.new_gaps(&discovered));
            functions += process.attach(&mut kernel, &discovered)?;
            gaps.extend(process.attach_python(&mut kernel, &discovered)?);
            gaps.extend(python_probes.attach(&mut kernel, &process, &discovered)?);
            let to = (&mut kernel, &mut windows);
            gaps.extend(window_probes.attach(to, &process, &discovered)?);
            followed.push(process);
        }
        window_probes.check()?;
        let mut session = Self {
            writer: writer(config)?,
            windows,
            memory: MemoryLog::default(),
            config,
            kernel,
            drain: Drain::new(channels),
            followed,
            code,
            frames: FrameTable::default(),
            code_objects: CodeObjects::default(),
            suspects: Suspects::default(),
            samples: sample_file(config)?,
            stacks: Vec::new(),
            stacks_seen: 0,
            python_stacks: HashSet::new(),
            python_probes,
            window_probes,
            tell,
        };
        let took = began.elapsed();
        let tables = session.prepare_walks()?;
        session.open_all()?;
        (session.tell)(Update::Started {
            processes: session.followed.iter().map(describe).collect(),
            functions,
            took,
            tables,
        });
        gaps.into_iter().try_for_each(|gap| session.note(gap))?;
        session.note_rings()?;
        Ok(session)
    }

    /// Records until `stop` is ready, the configured time is over, or every process has ended.
    ///
    /// # Errors
    ///
    /// When the capture cannot be written. What was written before is safe.
    pub async fn run(&mut self, stop: impl Future<Output = ()>) -> Result<(), SessionError> {
        give_way();
        let mut poll = ticks(match self.config.tracing.allocations {
            true => POLL,
            false => POLL_WINDOWS,
        });
        let mut write = ticks(self.config.interval);
        // Where nothing is written, nobody asks.
        let looks = self.writer.is_some();
        let mut look = ticks(MemoryAt::EVERY);
        let reviews = self.config.stacks.policy == StackPolicy::Auto;
        let mut review = ticks(REVIEW);
        let new_code = self.drain.new_code().and_then(watch);
        let new_code = new_code.map_err(SessionError::Watch)?;
        let over = async {
            match self.config.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(stop, over);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                () = &mut over => return Ok(()),
                _ = write.tick() => self.write()?,
                _ = look.tick(), if looks => self.look_at_memory(),
                _ = review.tick(), if reviews => self.review()?,
                ready = new_code.readable() => {
                    ready.map_err(SessionError::Watch)?.clear_ready();
                    self.poll()?;
                }
                _ = poll.tick() => {
                    self.poll()?;
                    if self.followed.iter().all(|process| !process.open) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Stops counting, writes the last figures, and takes the probes out.
    ///
    /// # Errors
    ///
    /// When the capture cannot be written. The probes are taken out all the same.
    pub fn finish(mut self) -> Result<(), SessionError> {
        let written = self.write_last();
        let probes = self.kernel.probes();
        (self.tell)(Update::Detaching { probes });
        self.kernel.detach_all();
        let ended_ns = written?;
        match self.writer {
            Some(writer) => Ok(writer.finish(ended_ns)?),
            None => Ok(()),
        }
    }

    /// Returns when the last event counted.
    fn write_last(&mut self) -> Result<u64, SessionError> {
        for followed in self.followed.iter_mut().filter(|followed| followed.open) {
            followed.close(&mut self.kernel)?;
        }
        let ended = now();
        self.note_children()?;
        self.note_rings()?;
        self.poll()?;
        self.end_windows()?;
        self.look_at_memory();
        self.memory.end();
        self.write()?;
        if let Some(text) = self.python_probes.heaps.summary() {
            (self.tell)(Update::Note(text));
        }
        Ok(ended)
    }

    /// Lets the kernel side know the code of every process, before anything counts.
    fn prepare_walks(&mut self) -> Result<Tables, SessionError> {
        let began = Instant::now();
        for followed in &mut self.followed {
            followed.set_code(&mut self.kernel, &mut self.code)?;
        }
        self.code.wait_for_tables(began + TABLES);
        self.deliver_tables()?;
        Ok(self.code.tables(began.elapsed()))
    }

    fn deliver_tables(&mut self) -> Result<(), SessionError> {
        for path in self.code.deliver(&mut self.kernel)? {
            let path = path.display();
            self.note(format!(
                "no room for the unwind table of {path}: stacks are cut there; raise \
                 --max-unwind-memory"
            ))?;
        }
        Ok(())
    }

    fn open_all(&mut self) -> Result<(), SessionError> {
        for followed in &mut self.followed {
            if let Some(writer) = &mut self.writer {
                writer.add_process(&row(followed))?;
            }
            let pid = followed.process.pid().unsigned_abs();
            self.windows.add_process(followed.slot, pid);
            followed.open(&mut self.kernel)?;
        }
        Ok(())
    }

    /// Empties the ring buffers and sees who has ended.
    fn poll(&mut self) -> Result<(), SessionError> {
        // A stack is older than what is in the event ring by the time it is read, so the events
        // tell where its code is.
        let stacks = self.drain.stacks();
        let events = self.drain.events();
        let mut with_new_code = BTreeSet::new();
        for (kind, event) in events {
            let slot = event.process as usize;
            let Some(followed) = self.followed.get_mut(slot) else {
                continue;
            };
            followed.apply(kind, &event);
            match kind {
                EventKind::CodeMapped => {
                    with_new_code.insert(slot);
                }
                EventKind::Executed => self.end(slot, "replaced its program (exec)")?,
                _ => {}
            }
        }
        // Once for all that appeared, and not for a process that has replaced its program: what is
        // mapped now is the next one's.
        for slot in with_new_code {
            self.attach_new_code(slot)?;
        }
        for mut stack in stacks {
            if let Some(followed) = self.followed.get_mut(usize::from(stack.process)) {
                followed.locate(&mut stack);
                for frame in stack
                    .frames
                    .iter()
                    .copied()
                    .filter_map(PythonFrame::from_raw)
                {
                    let python = followed.python.as_ref();
                    self.code_objects.learn(frame, python, &mut self.drain);
                }
            }
            self.suspects.add_stack(stack.id, stack.kind, stack.context);
            if stack.kind.is_python() {
                self.python_stacks.insert(stack.id);
            }
            self.stacks.push(self.frames.intern(&stack));
        }
        self.drain.freed_python_code(|freed| {
            let followed = self.followed.get(freed.process as usize);
            let python = followed.and_then(|it| it.python.as_ref());
            self.code_objects.learn_freed(freed, python);
        });
        self.poll_windows()?;
        self.write_samples()?;
        self.deliver_tables()?;
        self.kernel.flush_messages();
        // Otherwise nobody asks where code is, or the kernel's trampoline.
        let follows_calls = self.config.tracing.allocations || self.config.windows.follow_calls();
        for slot in 0..self.followed.len() {
            let followed = &mut self.followed[slot];
            if follows_calls {
                followed.look_again(&mut self.kernel, &mut self.code)?;
            }
            if followed.open && followed.process.has_exited() {
                self.end(slot, "ended")?;
            }
        }
        Ok(())
    }

    /// Has the stacks of contexts walked that seem to grow.
    fn review(&mut self) -> Result<(), SessionError> {
        let totals = self.drain.totals()?;
        for (context, suspected) in self.suspects.review(Instant::now(), &totals) {
            self.kernel.set_suspected(context, suspected)?;
        }
        Ok(())
    }

    /// A process's recording is over before ours.
    fn end(&mut self, slot: usize, how: &str) -> Result<(), SessionError> {
        let followed = &mut self.followed[slot];
        if !followed.open {
            return Ok(());
        }
        followed.close(&mut self.kernel)?;
        let (slot, pid) = (followed.slot, followed.process.pid());
        let text = format!("pid {pid} ({}) {how}", followed.process.comm());
        if let Some(writer) = &mut self.writer {
            writer.end_process(slot, now(), how)?;
        }
        self.windows.end(slot, &mut self.drain, None);
        self.note(format!("{text}; the report shows what it held then"))
    }

    fn note_children(&mut self) -> Result<(), SessionError> {
        let followed: Vec<Pid> = self.followed.iter().map(|f| f.process.pid()).collect();
        let mut unfollowed: Vec<Pid> = followed
            .iter()
            .flat_map(|&pid| crate::target::children(pid))
            .filter(|pid| !followed.contains(pid))
            .collect();
        unfollowed.sort_unstable();
        unfollowed.dedup();
        if unfollowed.is_empty() {
            return Ok(());
        }
        self.note(format!(
            "child processes that were not recorded: {unfollowed:?}; give --children or their pids"
        ))
    }

    fn note(&mut self, text: String) -> Result<(), SessionError> {
        if let Some(writer) = &mut self.writer {
            writer.note(now(), &text)?;
        }
        (self.tell)(Update::Note(text));
        Ok(())
    }
}
