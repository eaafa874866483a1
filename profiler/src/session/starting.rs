//! How a recording begins. A process of several that cannot be recorded is left out, and named: what ends or is
//! protected must not keep the others from being recorded.

use std::time::{Duration, Instant};

use residue_ebpf::abi::heap::{PROCESS_LAUNCHING, ProcessState};

use super::{
    Config, Core, SessionError,
    clock::now,
    code::Code,
    discovered::Discovered,
    followed::Followed,
    launch::{Held, Launch},
    processes::Processes,
    samples::sample_file,
};
use crate::{
    attach::AttachError,
    capture::{self, Ended, Meta},
    error_text::in_full,
    ids::Slot,
    process::{Pid, Process},
    remark::Remark,
    sink::Started,
};

/// How long the first events wait for unwind tables, from the moment that all probes are in. The tables of most
/// processes are made before that.
const TABLES: Duration = Duration::from_millis(500);

/// The processes that can be recorded, and why the others cannot.
#[derive(Default)]
pub struct Found {
    /// Each with what to probe.
    pub processes: Vec<(Process, Discovered)>,
    /// The command that was started, and the slot that it has already.
    pub launched: Option<(Slot, (Process, Discovered))>,
    /// One remark each.
    pub left_out: Vec<Remark>,
}

impl Found {
    /// Looks at all of them. Unwind tables begin to be made, while the kernel side is loaded.
    ///
    /// # Errors
    ///
    /// When none of them can be recorded, and there is no command either: the first one's reason.
    pub fn look(config: &Config, code: &mut Code) -> Result<Self, SessionError> {
        let mut found = Self::default();
        let mut first = None;
        for &pid in &config.pids {
            match discover(config, pid) {
                Ok((process, discovered)) => {
                    code.mappings(&process);
                    found.processes.push((process, discovered));
                }
                Err(error) => {
                    found.left_out.push(not_recorded(pid, &error));
                    first = first.or(Some(error));
                }
            }
        }
        match first {
            Some(error) if found.processes.is_empty() && config.command.is_empty() => Err(error),
            _ => Ok(found),
        }
    }
}

/// Looks at a process, and at what to probe in it.
///
/// # Errors
///
/// When the process cannot be recorded.
fn discover(config: &Config, pid: Pid) -> Result<(Process, Discovered), SessionError> {
    Ok(match config.tracing.allocations {
        true => {
            let process = Process::open(pid)?;
            let discovered = Discovered::of(&process, config.sites)?;
            (process, discovered)
        }
        false => (Process::open_unprobed(pid)?, Discovered::default()),
    })
}

fn not_recorded(pid: Pid, error: &SessionError) -> Remark {
    let reason = in_full(error);
    Remark::NotRecorded { pid, reason }
}

/// Processes that begin to be recorded together, and what has come of putting probes into them.
#[derive(Default)]
struct Begun {
    /// How many functions are probed.
    pub functions: usize,
    /// What will not be seen.
    pub gaps: Vec<Remark>,
    /// Processes of which nothing will count, and why.
    left_out: Vec<(capture::Process, String)>,
    /// The slots of the others.
    attached: Vec<Slot>,
    /// The first error that left a process out.
    failed: Option<AttachError>,
}

impl Begun {
    /// Puts all probes into a process that takes this slot. If that fails because of the process, nothing of the
    /// process will count.
    ///
    /// # Errors
    ///
    /// When the kernel refuses for a reason that all processes have.
    pub fn attach(
        &mut self,
        processes: &mut Processes,
        core: &mut Core<'_>,
        slot: Slot,
        (process, discovered): (Process, Discovered),
    ) -> Result<(), AttachError> {
        let row = processes.admit(slot, process).row();
        match processes.attach(core, slot, &discovered) {
            Ok(attached) => {
                self.attached.push(slot);
                self.functions += attached.functions;
                self.gaps.extend(attached.gaps);
            }
            Err(error) => {
                processes.leave_out(core, slot);
                if !error.is_of_one_process() {
                    return Err(error);
                }
                let reason = in_full(&error);
                let pid = row.pid.cast_signed();
                self.left_out.push((row, reason.clone()));
                self.gaps.push(Remark::NotRecorded { pid, reason });
                self.failed.get_or_insert(error);
            }
        }
        Ok(())
    }

    /// Whether anything is left to record.
    ///
    /// # Errors
    ///
    /// When every process was left out: with the first one's reason.
    pub fn check(&mut self) -> Result<(), AttachError> {
        match self.failed.take() {
            Some(error) if self.attached.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// Lets the processes count from now on, and tells everybody of them.
    ///
    /// # Errors
    ///
    /// When there are more processes than the kernel side has room for.
    pub fn open(
        &mut self,
        processes: &mut Processes,
        core: &mut Core<'_>,
    ) -> Result<(), AttachError> {
        for (row, why) in self.left_out.drain(..) {
            core.sinks.follow(&row);
            core.retire(row.number, format!("{}{why}", Ended::NOT_RECORDED));
        }
        let mut slots = self.attached.drain(..);
        slots.try_for_each(|slot| processes.open(core, slot))
    }
}

/// Has a command run up to where its first allocation can be seen.
///
/// # Errors
///
/// When the command cannot be run, or must not be recorded.
pub fn launch_command(
    core: &mut Core<'_>,
    processes: &mut Processes,
    launch: Launch,
    found: &mut Found,
) -> Result<Held, SessionError> {
    let state = ProcessState {
        tgid: launch.pid().as_raw_nonzero().get().unsigned_abs(),
        flags: PROCESS_LAUNCHING,
    };
    let slot = processes.take_slot(core)?;
    core.kernel.set_process(slot, state)?;
    let (process, held) = launch.run_to_c_library(core.config.sites)?;
    found.launched = Some((slot, process));
    Ok(held)
}

/// Puts all probes in, tells everybody, and begins to count.
///
/// # Errors
///
/// When nothing can be recorded, or what is made of the recording cannot begin.
pub fn begin(
    core: &mut Core<'_>,
    processes: &mut Processes,
    found: Found,
    began: Instant,
) -> Result<(), SessionError> {
    let mut begun = Begun::default();
    for process in found.processes {
        let slot = processes.take_slot(core)?;
        begun.attach(processes, core, slot, process)?;
    }
    if let Some((slot, process)) = found.launched {
        begun.attach(processes, core, slot, process)?;
    }
    begun.check()?;
    processes.check_sources()?;
    let of_sinks = core.sinks.begin(&meta(core.config))?;
    core.samples = sample_file(core.config)?;
    let took = began.elapsed();
    let waited = prepare_walks(processes, core, &begun.attached)?;
    begun.open(processes, core)?;
    let named = processes.iter().map(Followed::named);
    let started = Started {
        processes: named.map(|named| named.to_string()).collect(),
        functions: begun.functions,
        took,
        tables: core.stacks.code.tables(waited),
    };
    core.sinks.started(&started);
    core.remarks(found.left_out.into_iter().chain(begun.gaps).chain(of_sinks));
    Ok(core.sinks.check()?)
}

/// Follows one more process in a recording under way, unless the recording follows that process already.
///
/// # Errors
///
/// When the process cannot be recorded.
pub fn follow(
    core: &mut Core<'_>,
    processes: &mut Processes,
    pid: Pid,
) -> Result<(), SessionError> {
    let process = discover(core.config, pid)?;
    if processes.has_open(pid) {
        return Ok(());
    }
    let slot = processes.take_slot(core)?;
    let mut begun = Begun::default();
    begun.attach(processes, core, slot, process)?;
    begun.check()?;
    let opened = prepare_walks(processes, core, &begun.attached)
        .and_then(|_| Ok(begun.open(processes, core)?));
    if let Err(error) = opened {
        processes.leave_out(core, slot);
        return Err(error);
    }
    core.remarks(begun.gaps);
    Ok(())
}

/// Lets the kernel side know the code of the processes in these slots, before they count. Returns how long that took.
///
/// # Errors
///
/// When the kernel side has no room.
fn prepare_walks(
    processes: &mut Processes,
    core: &mut Core<'_>,
    slots: &[Slot],
) -> Result<Duration, SessionError> {
    let began = Instant::now();
    processes.set_code(core, slots)?;
    core.stacks.code.wait_for_tables(began + TABLES);
    core.deliver_tables()?;
    Ok(began.elapsed())
}

/// What is known before anything is recorded.
fn meta(config: &Config) -> Meta {
    let limits = &config.limits;
    let mut options = vec![
        ("max-live".to_owned(), limits.max_live.to_string()),
        ("max-stacks".to_owned(), limits.max_stacks.to_string()),
        ("stacks".to_owned(), config.stacks.policy.name().to_owned()),
        (
            "max-unwind-memory".to_owned(),
            limits.max_unwind_mib.to_string(),
        ),
    ];
    if config.python_objects {
        let interval = limits.python_interval.to_string();
        options.push((capture::PYTHON_OBJECTS_OPTION.to_owned(), interval));
    }
    Meta {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        started_ns: now(),
        options,
    }
}
