//! A recording, from the first look at a process to the finished capture. The whole pipeline on
//! one page: discover, plan, attach, drain, symbolize, write.

mod about;
mod children;
mod clock;
mod code;
mod cost;
mod discovered;
mod ending;
mod error;
mod followed;
mod frames;
mod interval;
mod launch;
mod limits;
mod memory;
mod names;
mod new_code;
pub(crate) mod python;
mod python_heap;
mod python_probes;
mod python_tasks;
mod retiring;
mod samples;
mod sources;
mod starting;
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
    capture::{Ended, Stack, Writer},
    drain::Drain,
    heap::Suspects,
    private_file::{Given, STAYS_ROOTS},
    probes::SitePolicy,
    process::Pid,
    requests::record::MemoryAt,
    unwind::TableStore,
};
use about::{describe, row, writer};
use children::When;
use clock::now;
use code::Code;
use cost::Costs;
use discovered::Discovered;
use followed::Followed;
use frames::FrameTable;
use launch::{Held, Launch, Launched};
use memory::MemoryLog;
use python::CodeObjects;
use python_probes::PythonProbes;
use samples::{SampleFile, sample_file};
use sources::WindowProbes;
use starting::{Attached, Found, Probing};
use wake::{give_way, ticks, watch};
use windows::Windows;

pub use ending::Finished;
pub use error::SessionError;
pub use launch::end_held as end_held_command;
pub use limits::raise as raise_limits;
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

/// How long an interval waits for names of frames. Those that come later are written with the next one.
const NAMES: Duration = Duration::from_millis(50);

/// What to record, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The processes.
    pub pids: Vec<Pid>,
    /// Whether their descendants are among them.
    pub children: bool,
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
    /// How many times slower a process may become before its probes are taken out, if at all.
    pub max_slowdown: Option<f64>,
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
    costs: Costs,
    /// It was said that costs are not known in full.
    unpriced_told: bool,
    /// Processes that are over, and whose traces in the kernel's maps are not removed yet.
    over: Vec<usize>,
    command: Option<Launched>,
    /// Those of which it was said that nobody records them.
    named_children: HashSet<Pid>,
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
        let mut found = Found::look(config, &mut code)?;
        let launch = match &*config.command {
            [] => None,
            command => Some(Launch::prepare(command)?),
        };
        let (mut kernel, channels) = Kernel::load(config.limits, config.programs, config.stacks)?;
        kernel.attach_tracepoints(config.tracing)?;
        let mut launched = None;
        if let Some(launch) = launch {
            let state = ProcessState {
                tgid: launch.pid().as_raw_nonzero().get().unsigned_abs(),
                flags: PROCESS_LAUNCHING,
            };
            kernel.set_process(found.processes.len() as u16, state)?;
            let (process, command) = launch.run_to_c_library(config.sites)?;
            found.processes.push(process);
            launched = Some(command);
        }
        let mut session = Self::attach(config, tell, (kernel, channels), code, found, began);
        // It goes on, whether it is recorded or not.
        let command = launched.map(Held::release);
        if let Ok(session) = &mut session {
            session.command = command;
        }
        session
    }

    fn attach(
        config: &'a Config,
        tell: &'a mut dyn FnMut(Update),
        (mut kernel, channels): (Kernel, Channels),
        code: Code,
        found: Found,
        began: Instant,
    ) -> Result<Self, SessionError> {
        let mut python_probes = PythonProbes::new(config);
        let mut windows = Windows::new(
            &config.windows,
            config.tracing.allocations,
            config.output.is_some(),
        );
        let mut window_probes = WindowProbes::new(&config.windows.sources, config.sites);
        let mut attached = Attached::default();
        for process in found.processes {
            let mut probing = Probing {
                kernel: &mut kernel,
                python: &mut python_probes,
                windows: &mut windows,
                sources: &mut window_probes,
            };
            attached.add(&mut probing, process)?;
        }
        attached.check()?;
        let Attached {
            followed,
            functions,
            gaps,
            ..
        } = attached;
        window_probes.check()?;
        tell(Update::Attached);
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
            costs: Costs::new(config.max_slowdown),
            unpriced_told: false,
            over: Vec::new(),
            command: None,
            named_children: HashSet::new(),
            tell,
        };
        let took = began.elapsed();
        let tables = session.prepare_walks()?;
        session.open_all()?;
        let processes = session.recorded().map(describe).collect();
        (session.tell)(Update::Started {
            processes,
            functions,
            took,
            tables,
        });
        let stays_roots = session
            .writer
            .as_ref()
            .is_some_and(|it| it.given() == Given::Refused);
        let refused = stays_roots.then(|| STAYS_ROOTS.to_owned());
        let gaps = found.left_out.into_iter().chain(gaps).chain(refused);
        gaps.into_iter().try_for_each(|gap| session.note(gap))?;
        session.note_children(When::AtTheStart)?;
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
        let costs = self.has_costs();
        let mut cost = ticks(cost::EVERY);
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
                _ = write.tick() => {
                    self.note_children(When::Meanwhile)?;
                    self.write(Instant::now() + NAMES)?;
                }
                _ = look.tick(), if looks => self.look_at_memory(),
                _ = review.tick(), if reviews => self.review()?,
                _ = cost.tick(), if costs => self.look_at_costs()?,
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

    /// The processes of which anything was counted.
    fn recorded(&self) -> impl Iterator<Item = &Followed> {
        self.followed.iter().filter(|it| it.left_out.is_none())
    }

    fn open_all(&mut self) -> Result<(), SessionError> {
        for followed in &mut self.followed {
            if let Some(writer) = &mut self.writer {
                writer.add_process(row(followed))?;
            }
            if let Some(why) = &followed.left_out {
                if let Some(writer) = &mut self.writer {
                    writer.end_process(
                        followed.slot,
                        now(),
                        &format!("{}{why}", Ended::NOT_RECORDED),
                    )?;
                }
                continue;
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
                let how = self.how_it_ended(slot);
                self.end(slot, &how)?;
            }
        }
        self.forget_those_over();
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

    fn note(&mut self, text: String) -> Result<(), SessionError> {
        if let Some(writer) = &mut self.writer {
            writer.note(now(), &text)?;
        }
        (self.tell)(Update::Note(text));
        Ok(())
    }
}
