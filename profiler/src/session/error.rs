//! Why a recording could not start or go on.

use thiserror::Error;

use crate::{attach::AttachError, probes::PlanError, process::Refusal, sink::SinkError};

/// Why a recording could not start or go on. Each message names what to do.
#[derive(Debug, Error)]
pub enum SessionError {
    /// There is nothing that makes the windows that were asked for.
    #[error(transparent)]
    Source(#[from] crate::probes::windows::SourceError),
    /// A process cannot or must not be recorded.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing to probe was found.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The limit on address space is too low.
    #[error(
        "the limit on address space is {} MiB, and residue needs {} and more: raise it (ulimit -Hv unlimited, LimitAS= of \
         systemd)",
        bytes >> 20,
        needed >> 20
    )]
    AddressSpace {
        /// What it is.
        bytes: u64,
        /// What it should be.
        needed: u64,
    },
    /// Neither a process nor a command was given.
    #[error("nothing to record: give -p PID, or a command after --")]
    NoCommand,
    /// The command could not be started.
    #[error("failed to run {name}: {source}; check the command after --")]
    Launch {
        /// The command.
        name: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Nobody is left who keeps anything of the recording.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The samples of stacks cannot be written.
    #[error("failed to write the samples of stacks")]
    Samples(#[source] std::io::Error),
    /// The kernel's events cannot be waited for.
    #[error("failed to watch for new code: raise the limit on open files (ulimit -n)")]
    Watch(#[source] std::io::Error),
    /// The kernel's maps cannot be read.
    #[error("failed to read the kernel's maps")]
    Drain(#[from] aya::maps::MapError),
}
