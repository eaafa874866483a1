//! Why residue will not look at a process. Each message names what to do instead.

use std::path::PathBuf;

use procfs::ProcError;
use rustix::{
    process::geteuid,
    thread::{CapabilitySet, capabilities},
};

/// The reason why residue refuses a process.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody has that PID.
    #[error("no process {pid}: check the PID, for example with `pgrep -a NAME`")]
    NoSuchProcess {
        /// The PID as given.
        pid: i32,
    },
    /// The number is a thread's.
    #[error("{tid} is a thread of process {pid}: use -p {pid}, which covers all its threads")]
    Thread {
        /// The number as given.
        tid: i32,
        /// The process that the thread belongs to.
        pid: i32,
    },
    /// The process is a kernel thread (`PF_KTHREAD`).
    #[error("{pid} ({comm}) is a kernel thread and has no heap: give the PID of a server process")]
    KernelThread {
        /// The PID as given.
        pid: i32,
        /// Its name.
        comm: String,
    },
    /// The process has exited, and its parent has not waited for it.
    #[error(
        "{pid} ({comm}) is a zombie, all its memory is gone: give the PID of a process that still \
         runs"
    )]
    Zombie {
        /// The PID as given.
        pid: i32,
        /// Its name.
        comm: String,
    },
    /// The kernel will not let residue look.
    #[error(
        "no permission to look into process {pid}: run residue with sudo, or give it the \
         capabilities CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE"
    )]
    NoPrivileges {
        /// The PID as given.
        pid: i32,
    },
    /// The kernel will not let residue look, although residue has the capabilities that this takes.
    #[error(
        "process {pid} is protected here, even from who has CAP_SYS_PTRACE: a security module, or the machine that this \
         system is a part of, keeps it to itself; give another process"
    )]
    Protected {
        /// The PID as given.
        pid: i32,
    },
    /// Residue runs as a root that has fewer rights than root has.
    #[error(
        "no permission to look into process {pid}: this root lacks CAP_SYS_PTRACE, as root in a container does; add \
         the capabilities CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE, or run residue on the host"
    )]
    LesserRoot {
        /// The PID as given.
        pid: i32,
    },
    /// Return probes overwrite return addresses, which Go moves with its stacks.
    #[error(
        "{pid} ({exe}) is a Go program, whose goroutine stacks a return probe would corrupt: use \
         Go's own heap profile (net/http/pprof), or --rss-only, which counts requests and estimates \
         what each route leaves behind"
    )]
    GoProgram {
        /// The PID as given.
        pid: i32,
        /// The program that the process runs.
        exe: PathBuf,
    },
    /// The process's seccomp filter would judge the kernel's own return from a probe.
    #[error(
        "{pid} ({comm}) runs under a seccomp filter, and Linux {kernel} lets that filter kill a \
         process that is probed: use Linux 6.14 or later (or 6.10 or earlier)"
    )]
    Sandboxed {
        /// The PID as given.
        pid: i32,
        /// Its name.
        comm: String,
        /// The running kernel's release.
        kernel: String,
    },
    /// The program is for i386 or x32.
    #[error("{pid} ({exe}) is a 32-bit program: residue reads 64-bit ones, run a 64-bit build")]
    ThirtyTwoBit {
        /// The PID as given.
        pid: i32,
        /// The program that the process runs.
        exe: PathBuf,
    },
    /// The process's file is not what a 64-bit x86-64 process runs.
    #[error("{pid} ({exe}) runs {reason}: run a 64-bit x86-64 build of it")]
    Unsupported {
        /// The PID as given.
        pid: i32,
        /// The program that the process runs.
        exe: PathBuf,
        /// What the file is instead.
        reason: super::elf::NotUsable,
    },
    /// The process exited while residue looked.
    #[error("process {pid} exited while residue looked at it: start it again and give its new PID")]
    Vanished {
        /// The PID as given.
        pid: i32,
    },
    /// Another error of `/proc`.
    #[error("cannot read /proc/{pid}: check that /proc is mounted")]
    Unreadable {
        /// The PID as given.
        pid: i32,
        /// What the kernel said.
        source: ProcError,
    },
}

impl Refusal {
    /// What an error in a file below `/proc/PID` means for a process that was there a moment ago.
    pub(super) fn from_proc(pid: i32, error: ProcError) -> Self {
        use rustix::io::Errno;
        match error {
            ProcError::PermissionDenied(_) => Self::denied(pid),
            ProcError::NotFound(_) => Self::Vanished { pid },
            ProcError::Io(io, path) => match Errno::from_io_error(&io) {
                Some(Errno::SRCH | Errno::NOENT) => Self::Vanished { pid },
                Some(Errno::ACCESS | Errno::PERM) => Self::denied(pid),
                _ => Self::Unreadable {
                    pid,
                    source: ProcError::Io(io, path),
                },
            },
            source => Self::Unreadable { pid, source },
        }
    }

    fn denied(pid: i32) -> Self {
        let may_trace =
            capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_PTRACE));
        match (may_trace, geteuid().is_root()) {
            (true, _) => Self::Protected { pid },
            (false, true) => Self::LesserRoot { pid },
            (false, false) => Self::NoPrivileges { pid },
        }
    }

    /// As [`Self::from_proc`], for plain reads and writes.
    pub(super) fn from_io(pid: i32, error: std::io::Error) -> Self {
        Self::from_proc(pid, ProcError::Io(error, None))
    }
}
