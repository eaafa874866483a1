//! One live process, held so that its PID cannot come to mean another.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use object::read::ReadCache;
use procfs::process::Stat;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::elf::{ElfFacts, NotUsable};
use super::{Mappings, Refusal};

/// A process id in residue's own PID namespace.
pub type Pid = i32;

/// `PF_KTHREAD` (include/linux/sched.h).
const KERNEL_THREAD: u32 = 0x0020_0000;
/// Far above what `/proc/PID/maps` holds at the default limit of 65,530 mappings.
const MAX_MAPS_BYTES: u64 = 256 << 20;
/// A command line longer than this is cut: it is for titles.
const MAX_CMDLINE_BYTES: u64 = 64 << 10;

/// A live 64-bit process that residue may look into.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    proc: procfs::process::Process,
    comm: String,
    exe: PathBuf,
    executable: ElfFacts,
    cmdline: Vec<String>,
    start_time: u64,
    mappings: Mappings,
}

impl Process {
    /// Opens a process and takes a snapshot of it.
    ///
    /// # Errors
    /// A [`Refusal`] for whatever residue cannot or must not profile.
    pub fn open(pid: Pid) -> Result<Self, Refusal> {
        let proc = open_proc(pid)?;
        let pidfd = open_pidfd(pid)?;
        let stat = refuse_by_state(pid, &proc)?;
        let exe = proc.exe().map_err(|error| Refusal::from_proc(pid, error))?;
        let executable = refuse_by_executable(pid, &proc, &exe)?;
        let mut process = Self {
            cmdline: read_cmdline(pid, &proc)?,
            comm: stat.comm,
            start_time: stat.starttime,
            mappings: Mappings::default(),
            pid,
            pidfd,
            proc,
            exe,
            executable,
        };
        process.refresh()?;
        Ok(process)
    }

    /// Takes a new snapshot of the mappings, for example after a library was loaded.
    ///
    /// # Errors
    /// When the process has exited meanwhile.
    pub fn refresh(&mut self) -> Result<(), Refusal> {
        let pid = self.pid;
        let text = read_bounded(pid, &self.proc, "maps", MAX_MAPS_BYTES)?;
        let mappings = Mappings::parse(&text).filter(|mappings| !mappings.is_empty());
        // A process without mappings is one that is exiting.
        let Some(mappings) = mappings.filter(|_| !self.has_exited()) else {
            return Err(Refusal::Vanished { pid });
        };
        self.mappings = mappings;
        Ok(())
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable once the process has exited: poll it.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it has exited, zombies included.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = rustix::event::Timespec::default();
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// The name of its first thread, as `ps` shows it.
    #[must_use]
    pub fn comm(&self) -> &str {
        &self.comm
    }

    /// Its executable, as the target names it.
    #[must_use]
    pub fn exe(&self) -> &Path {
        &self.exe
    }

    /// Its arguments, as far as they are UTF-8; empty when it has overwritten them.
    #[must_use]
    pub fn cmdline(&self) -> &[String] {
        &self.cmdline
    }

    /// When it started: clock ticks since boot. With the PID, this names a process for good.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Its mappings at the last snapshot.
    #[must_use]
    pub fn mappings(&self) -> &Mappings {
        &self.mappings
    }

    /// Its executable's headers.
    pub(super) fn executable(&self) -> &ElfFacts {
        &self.executable
    }

    /// `/proc/PID/mem`, for bounded reads.
    pub(super) fn memory(&self) -> Option<File> {
        self.proc.mem().ok()
    }
}

fn open_proc(pid: Pid) -> Result<procfs::process::Process, Refusal> {
    let refuse = |error| match Refusal::from_proc(pid, error) {
        Refusal::Vanished { .. } => Refusal::NoSuchProcess { pid },
        refusal => refusal,
    };
    let missing = || Refusal::NoSuchProcess { pid };
    rustix::process::Pid::from_raw(pid)
        .filter(|_| pid > 0)
        .ok_or_else(missing)?;
    let proc = procfs::process::Process::new(pid).map_err(refuse)?;
    match proc.status().map_err(refuse)?.tgid {
        tgid if tgid == pid => Ok(proc),
        tgid => Err(Refusal::Thread {
            tid: pid,
            pid: tgid,
        }),
    }
}

fn open_pidfd(pid: Pid) -> Result<OwnedFd, Refusal> {
    let id = rustix::process::Pid::from_raw(pid).ok_or(Refusal::NoSuchProcess { pid })?;
    pidfd_open(id, PidfdFlags::empty()).map_err(|error| Refusal::from_io(pid, error.into()))
}

/// Read after the pidfd was opened: as the directory still answers, both are the same process.
fn refuse_by_state(pid: Pid, proc: &procfs::process::Process) -> Result<Stat, Refusal> {
    let stat = proc
        .stat()
        .map_err(|error| Refusal::from_proc(pid, error))?;
    let comm = stat.comm.clone();
    if stat.flags & KERNEL_THREAD != 0 {
        return Err(Refusal::KernelThread { pid, comm });
    }
    match stat.state {
        'Z' | 'X' => Err(Refusal::Zombie { pid, comm }),
        _ => Ok(stat),
    }
}

fn refuse_by_executable(
    pid: Pid,
    proc: &procfs::process::Process,
    exe: &Path,
) -> Result<ElfFacts, Refusal> {
    let file = proc
        .open_relative("exe")
        .map_err(|error| Refusal::from_proc(pid, error))?;
    let exe = exe.to_path_buf();
    match ElfFacts::read(&ReadCache::new(file)) {
        Ok(facts) if facts.is_go => Err(Refusal::GoProgram { pid, exe }),
        Ok(facts) => Ok(facts),
        Err(NotUsable::ThirtyTwoBit) => Err(Refusal::ThirtyTwoBit { pid, exe }),
        Err(reason) => Err(Refusal::Unsupported { pid, exe, reason }),
    }
}

fn read_cmdline(pid: Pid, proc: &procfs::process::Process) -> Result<Vec<String>, Refusal> {
    let text = read_bounded(pid, proc, "cmdline", MAX_CMDLINE_BYTES)?;
    let arguments = text.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut arguments: Vec<_> = arguments.map(String::from).collect();
    while arguments.last().is_some_and(String::is_empty) {
        arguments.pop();
    }
    Ok(arguments)
}

fn read_bounded(
    pid: Pid,
    proc: &procfs::process::Process,
    name: &str,
    most: u64,
) -> Result<Vec<u8>, Refusal> {
    let file = proc
        .open_relative(name)
        .map_err(|error| Refusal::from_proc(pid, error))?;
    let mut bytes = Vec::new();
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| Refusal::from_io(pid, error))?;
    Ok(bytes)
}
