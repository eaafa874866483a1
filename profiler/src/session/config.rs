//! What to record, and how.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use super::WindowRules;
use crate::{
    attach::{Limits, ProgramSet, StackConfig, Tracing},
    probes::SitePolicy,
    process::Pid,
};

/// What to record, and how. Who listens is not part of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The processes.
    pub pids: Vec<Pid>,
    /// Whether their descendants are among them.
    pub children: bool,
    /// A command to start and record as well; may be empty.
    pub command: Vec<OsString>,
    /// When the recording ends by itself, if it does.
    pub duration: Option<Duration>,
    /// How long an interval is.
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

impl Config {
    /// Whether anything depends on where the code of a process is: allocations, or calls of its own functions.
    pub(super) fn follows_calls(&self) -> bool {
        self.tracing.allocations || self.windows.follow_calls()
    }
}
