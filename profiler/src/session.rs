//! A recording, from the first look at a process to the last word to whoever listens. The whole pipeline on one page:
//! discover, plan, attach, drain, symbolize, tell.

mod children;
mod clock;
mod code;
mod config;
mod core;
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
mod polling;
mod processes;
pub(crate) mod python;
mod python_heap;
mod python_probes;
mod python_tasks;
mod samples;
mod slowdowns;
mod sources;
mod stacks;
mod starting;
mod wake;
mod walkers;
mod windows;

use std::time::{Duration, Instant};

use residue_ebpf::abi::heap::StackPolicy;

use crate::{
    attach::Kernel,
    process::Pid,
    remark::{Named, When},
    requests::record::MemoryAt,
    sink::{Keeps, Sinks},
};
use children::Children;
use core::Core;
use ending::write_last;
use followed::Followed;
use launch::{Held, Launch};
use memory::MemoryLog;
use processes::Processes;
use stacks::Stacks;
use starting::{Found, begin, launch_command};
use wake::{give_way, ticks, watch};

pub use config::Config;
pub use ending::Finished;
pub use error::SessionError;
pub use launch::end_held as end_held_command;
pub use limits::raise as raise_limits;
pub use windows::WindowRules;

/// How often the ring buffers are emptied. They hold the stacks of a few thousand first-time
/// callers; at this rate a hundred thousand a second get through.
const POLL: Duration = Duration::from_millis(20);

/// The same where no allocation is followed: what happens to windows is little, and each time costs the host
/// a tenth of a millisecond.
const POLL_WINDOWS: Duration = Duration::from_millis(50);

/// How often the totals are reviewed for shallow contexts that grow.
const REVIEW: Duration = Duration::from_millis(250);

/// How long an interval waits for names of frames. Those that come later are told with the next one.
const NAMES: Duration = Duration::from_millis(50);

/// A recording under way.
pub struct Session<'a> {
    core: Core<'a>,
    processes: Processes,
    children: Children,
    memory: MemoryLog,
}

impl<'a> Session<'a> {
    /// Looks at the processes, puts the probes in, and begins to count. Either all of that happens
    /// or nothing: an error leaves no probe behind.
    ///
    /// # Errors
    ///
    /// Each [`SessionError`] names what to do about it.
    pub fn start(config: &'a Config, sinks: Sinks<'a>) -> Result<Self, SessionError> {
        let began = Instant::now();
        let mut stacks = Stacks::new(config);
        let mut found = Found::look(config, &mut stacks.code)?;
        let launch = match &*config.command {
            [] => None,
            command => Some(Launch::prepare(command)?),
        };
        let kernel_side = Kernel::load(config.limits, config.programs, config.stacks)?;
        let mut session = Self {
            core: Core::new(config, kernel_side, stacks, sinks),
            processes: Processes::new(config),
            children: Children::default(),
            memory: MemoryLog::default(),
        };
        let (core, processes) = (&mut session.core, &mut session.processes);
        core.kernel.attach_tracepoints(config.tracing)?;
        let held = launch.map(|command| launch_command(core, processes, command, &mut found));
        let held = held.transpose()?;
        let begun = begin(core, processes, found, began);
        // The command goes on, whether it is recorded or not.
        processes.set_command(held.map(Held::release));
        begun?;
        session.children.look(processes, core, When::AtTheStart);
        processes.look_at_rings(core);
        Ok(session)
    }

    /// Follows one more process, which counts from the moment that this returns.
    ///
    /// # Errors
    ///
    /// When the process cannot be recorded. The recording of the others goes on.
    pub fn follow(&mut self, pid: Pid) -> Result<(), SessionError> {
        starting::follow(&mut self.core, &mut self.processes, pid)
    }

    /// The processes that are recorded now.
    pub fn recorded(&self) -> impl Iterator<Item = Named> {
        let open = self.processes.iter().filter(|followed| followed.open);
        open.map(Followed::named)
    }

    /// Records until `stop` is ready, the configured time is over, or every process has ended.
    ///
    /// # Errors
    ///
    /// When nobody is left who keeps anything, or the kernel refuses what it has no reason to refuse. What was written
    /// before is safe.
    pub async fn run(&mut self, stop: impl Future<Output = ()>) -> Result<(), SessionError> {
        give_way();
        let config = self.core.config;
        let mut poll = ticks(match config.tracing.allocations {
            true => POLL,
            false => POLL_WINDOWS,
        });
        let mut write = ticks(config.interval);
        let looks = self.core.sinks.keep() == Keeps::Everything;
        let mut look = ticks(MemoryAt::EVERY);
        let reviews = config.stacks.policy == StackPolicy::Auto;
        let mut review = ticks(REVIEW);
        let mut cost = ticks(cost::EVERY);
        let new_code = self.core.drain.new_code().and_then(watch);
        let new_code = new_code.map_err(SessionError::Watch)?;
        let over = async {
            match config.duration {
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
                _ = look.tick(), if looks => self.memory.look(&self.processes, &mut self.core),
                _ = review.tick(), if reviews => self.core.review()?,
                _ = cost.tick(), if self.core.has_costs() => {
                    self.poll()?;
                    slowdowns::look(&mut self.processes, &mut self.core)?;
                }
                ready = new_code.readable() => {
                    ready.map_err(SessionError::Watch)?.clear_ready();
                    self.poll()?;
                }
                _ = poll.tick() => {
                    self.poll()?;
                    if !self.processes.is_any_open() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Empties the ring buffers and sees who has ended.
    ///
    /// # Errors
    ///
    /// As for [`Session::run`].
    pub fn poll(&mut self) -> Result<(), SessionError> {
        polling::poll(&mut self.core, &mut self.processes)
    }

    fn write(&mut self) -> Result<(), SessionError> {
        let Self {
            core,
            processes,
            memory,
            ..
        } = self;
        self.children.look(processes, core, When::Meanwhile);
        interval::tell(core, processes, memory, Instant::now() + NAMES)
    }

    /// Stops counting and completes what is made of the recording. The probes stay in until somebody takes them out.
    #[must_use = "the probes are still in"]
    pub fn finish(mut self) -> Finished {
        let (core, processes) = (&mut self.core, &mut self.processes);
        let ended = write_last(core, processes, &mut self.children, &mut self.memory);
        let sinks = self.core.sinks;
        Finished {
            written: ended.and_then(|ended_ns| Ok(sinks.finish(ended_ns)?)),
            command: self.processes.status_of_command(),
            probes: self.core.kernel.into_remaining(),
        }
    }
}
