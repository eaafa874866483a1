//! The reasons why attaching fails, with what the user can do about each.

use std::{io, num::NonZeroU32, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, uprobe::UProbeError},
    sys::SyscallError,
};
use thiserror::Error;

use super::{Limits, MAX_LATE_FUNCTIONS, ProbePoint};

/// Why the kernel side could not be loaded or attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel does not let this user load BPF programs.
    #[error("not allowed to load BPF programs: {}", remedy())]
    NoPrivileges,
    /// The maps did not fit into memory.
    #[error(
        "no kernel memory for a live set of {max_live} allocations: give a lower --max-live (each needs 43 bytes)"
    )]
    NoMemory {
        /// The limit that the user asked for.
        max_live: u32,
    },
    /// The kernel refused the object.
    #[error("failed to load the BPF maps: is this kernel at least 6.1, with CONFIG_BPF_SYSCALL?")]
    Load(#[source] Box<EbpfError>),
    /// Residue could not map an array of the kernel side into its memory.
    #[error(
        "failed to map the kernel side's figures into memory: raise the limit on address space (ulimit -v), or give a \
         lower --max-live"
    )]
    Share(#[source] io::Error),
    /// Residue could not open the channel for the kernel side's messages.
    #[error("failed to open the kernel side's message channel")]
    Log(#[source] aya_log::Error),
    /// The kernel refused a program.
    #[error("the kernel refused the BPF program {program}")]
    Program {
        /// The name of the program.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// A tracepoint is missing, or this user may not use it.
    #[error(
        "failed to attach to the tracepoint {name}: residue needs tracefs (mount -t tracefs nodev /sys/kernel/tracing) and CONFIG_FTRACE_SYSCALLS"
    )]
    Tracepoint {
        /// `category:name`.
        name: String,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// The process ended while residue put probes into it.
    #[error("process {pid} ended while residue attached to it")]
    ProcessGone {
        /// The pid of the process.
        pid: NonZeroU32,
    },
    /// The kernel refused a probe.
    #[error("failed to put a probe at {object}+{offset:#x}", object = object.display())]
    Uprobe {
        /// The object's file.
        object: PathBuf,
        /// Offset in that file, bytes.
        offset: u64,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// This process has no file descriptors left: each probe takes two.
    #[error(
        "too many open files, each probe takes two: raise the limit (ulimit -Hn, LimitNOFILE= of systemd), or \
         record fewer processes at once"
    )]
    TooManyFiles,
    /// There are more functions than the kernel side has room for.
    #[error("too many allocator functions to probe: record fewer processes at once")]
    TooManyFunctions,
    /// One process must not take all the room that there is for probes.
    #[error("{MAX_LATE_FUNCTIONS} functions are probed already of libraries that it loaded")]
    TooManyLate,
    /// There are more executable mappings than the kernel side has room for.
    #[error("too many executable mappings to walk stacks in: record fewer processes at once")]
    TooMuchCode,
    /// There are more processes than the kernel side has room for.
    #[error("too many processes: record fewer at once")]
    TooManyProcesses,
    /// Where residue's own functions are in its file is not to be seen.
    #[error("failed to find residue's own code (/proc/self/maps)")]
    OwnCode,
    /// The kernel refused to read or write a map, which it has no reason to.
    #[error("failed to use a BPF map")]
    Map(#[from] MapError),
}

impl AttachError {
    /// Whether the error concerns one function of one process, so that the recording of everything else goes on.
    #[must_use]
    pub const fn is_of_one_probe(&self) -> bool {
        matches!(
            self,
            Self::Uprobe { .. } | Self::TooManyFunctions | Self::TooManyLate
        )
    }

    /// Whether it is about one function of one process that is recorded already. There may be no room for the
    /// probes of what that process has loaded; the others need no more.
    #[must_use]
    pub const fn is_of_late_probe(&self) -> bool {
        self.is_of_one_probe() || matches!(self, Self::TooManyFiles | Self::Program { .. })
    }

    /// Whether the error concerns one process, so that the recording of all others goes on.
    #[must_use]
    pub const fn is_of_one_process(&self) -> bool {
        self.is_of_one_probe() || matches!(self, Self::ProcessGone { .. })
    }

    pub(super) fn load(source: EbpfError, limits: Limits) -> Self {
        match os_error(&source) {
            Some(libc::EPERM | libc::EACCES) => Self::NoPrivileges,
            Some(libc::EMFILE | libc::ENFILE) => Self::TooManyFiles,
            Some(libc::ENOMEM | libc::E2BIG) => Self::NoMemory {
                max_live: limits.max_live,
            },
            _ => Self::Load(Box::new(source)),
        }
    }

    pub(super) fn program(program: &'static str, source: ProgramError) -> Self {
        match os_error(&source) {
            Some(libc::EPERM | libc::EACCES) if !is_verifier_error(&source) => Self::NoPrivileges,
            Some(libc::EMFILE | libc::ENFILE) => Self::TooManyFiles,
            _ => Self::Program {
                program,
                source: Box::new(source),
            },
        }
    }

    pub(super) fn tracepoint(category: &str, name: &str, source: ProgramError) -> Self {
        if is_out_of_files(&source) {
            return Self::TooManyFiles;
        }
        Self::Tracepoint {
            name: format!("{category}:{name}"),
            source: Box::new(source),
        }
    }

    pub(super) fn uprobe(pid: NonZeroU32, point: &ProbePoint<'_>, source: ProgramError) -> Self {
        if is_out_of_files(&source) {
            return Self::TooManyFiles;
        }
        // When a process has ended, one kernel misses its file and another the process.
        let file_gone = matches!(
            &source,
            ProgramError::UProbeError(UProbeError::FileError { io_error, .. })
                if io_error.kind() == io::ErrorKind::NotFound
        );
        if file_gone || matches!(os_error(&source), Some(libc::ESRCH | libc::ENOENT)) {
            return Self::ProcessGone { pid };
        }
        Self::Uprobe {
            object: point.name.to_owned(),
            offset: point.file_offset,
            source: Box::new(source),
        }
    }
}

fn is_out_of_files(source: &ProgramError) -> bool {
    matches!(os_error(source), Some(libc::EMFILE | libc::ENFILE))
}

/// What a user can do whom the kernel did not let load BPF programs.
fn remedy() -> &'static str {
    match rustix::process::geteuid().is_root() {
        true => {
            "this root may not, as root in a container may not: add CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE, or run \
             residue on the host, unless that is in lockdown (/sys/kernel/security/lockdown)"
        }
        false => "run residue as root (sudo), or give it CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE",
    }
}

/// Whether the verifier refused a program. The errno is EACCES, as without privileges, but only the verifier
/// writes a log.
fn is_verifier_error(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { verifier_log, .. } if !verifier_log.to_string().is_empty())
}

/// The errno at the bottom of an error chain.
fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(code);
        }
        if let Some(syscall) = error.downcast_ref::<SyscallError>() {
            return syscall.io_error.raw_os_error();
        }
        next = error.source();
    }
    None
}
