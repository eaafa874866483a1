//! How a recording begins. A process of several that cannot be recorded is left out, and named: what ends or is
//! protected must not keep the others from being recorded.

use super::{
    Config, Discovered, Followed, PythonProbes, SessionError, WindowProbes, Windows, code::Code,
};
use crate::{
    attach::{AttachError, Kernel},
    error_text::in_full,
    process::Process,
};

/// The processes that can be recorded, and why the others cannot.
#[derive(Default)]
pub struct Found {
    /// Each with what to probe.
    pub processes: Vec<(Process, Discovered)>,
    /// One sentence each.
    pub left_out: Vec<String>,
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
                    found.left_out.push(left_out(pid, &error));
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

fn discover(config: &Config, pid: i32) -> Result<(Process, Discovered), SessionError> {
    Ok(match config.tracing.allocations {
        true => {
            let process = Process::open(pid)?;
            let discovered = Discovered::of(&process, config.sites)?;
            (process, discovered)
        }
        false => (Process::open_unprobed(pid)?, Discovered::default()),
    })
}

fn left_out(pid: i32, error: &SessionError) -> String {
    format!("pid {pid} is not recorded: {}", in_full(error))
}

/// What was attached so far.
#[derive(Default)]
pub struct Attached {
    /// By slot.
    pub followed: Vec<Followed>,
    /// How many functions are probed.
    pub functions: usize,
    /// What will not be seen, one sentence each.
    pub gaps: Vec<String>,
    /// The first error that left a process out.
    failed: Option<AttachError>,
}

impl Attached {
    /// Puts all probes into a process. If that fails because of the process, nothing of it will count.
    ///
    /// # Errors
    ///
    /// When the kernel refuses for a reason that all processes have.
    pub fn add(
        &mut self,
        probing: &mut Probing<'_>,
        (process, discovered): (Process, Discovered),
    ) -> Result<(), AttachError> {
        let slot = u16::try_from(self.followed.len()).map_err(|_| AttachError::TooManyProcesses)?;
        let mut followed = Followed::new(process, slot);
        match probing.attach(&mut followed, &discovered) {
            Ok((functions, gaps)) => {
                self.functions += functions;
                self.gaps.extend(followed.new_gaps(&discovered));
                self.gaps.extend(gaps);
            }
            Err(error) if error.is_of_one_process() => {
                let why = in_full(&error);
                let pid = followed.process.pid();
                self.gaps.push(format!("pid {pid} is not recorded: {why}"));
                followed.left_out = Some(why);
                self.failed.get_or_insert(error);
                // A command of ours may not be held any more.
                probing.kernel.release_process(slot);
                probing.kernel.detach_aside(slot);
            }
            Err(error) => return Err(error),
        }
        self.followed.push(followed);
        Ok(())
    }

    /// Whether anything is left to record.
    ///
    /// # Errors
    ///
    /// When every process was left out: with the first one's reason.
    pub fn check(&mut self) -> Result<(), AttachError> {
        let nothing = self.followed.iter().all(|it| it.left_out.is_some());
        match self.failed.take() {
            Some(error) if nothing => Err(error),
            _ => Ok(()),
        }
    }
}

/// What puts probes in, whatever they are for.
pub struct Probing<'a> {
    pub kernel: &'a mut Kernel,
    pub python: &'a mut PythonProbes,
    pub windows: &'a mut Windows,
    pub sources: &'a mut WindowProbes,
}

impl Probing<'_> {
    /// Returns how many functions are probed, and what will not be seen.
    fn attach(
        &mut self,
        followed: &mut Followed,
        discovered: &Discovered,
    ) -> Result<(usize, Vec<String>), AttachError> {
        let added = followed.attach(self.kernel, discovered)?;
        if let Some(refused) = added.refused.into_iter().next() {
            return Err(refused);
        }
        let mut gaps = Vec::from_iter(followed.attach_python(self.kernel, discovered)?);
        gaps.extend(self.python.attach(self.kernel, followed, discovered)?);
        let to = (&mut *self.kernel, &mut *self.windows);
        gaps.extend(self.sources.attach(to, followed, discovered)?);
        Ok((added.functions, gaps))
    }
}
