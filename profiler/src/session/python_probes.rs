//! All probes on interpreters: on Python's own allocator, and on what its tasks are known by.

use super::{
    Config, discovered::Discovered, followed::Followed, python_heap::PythonHeaps,
    python_tasks::PythonTasks,
};
use crate::{
    attach::{AttachError, Kernel},
    remark::Remark,
};

/// What puts probes on interpreters.
pub struct PythonProbes {
    /// The allocators.
    pub heaps: PythonHeaps,
    tasks: PythonTasks,
}

/// Which probes the interpreter of one process has.
#[derive(Debug, Default)]
pub struct PythonProbed {
    heap: bool,
    /// What makes and frees contexts.
    pub contexts: bool,
    /// The queues by which threads are given work.
    pub queues: bool,
    /// The code that makes tasks, AVMAs, as the kernel side knows it.
    pub task_code: Option<[u64; 2]>,
}

impl PythonProbes {
    pub const fn new(config: &Config) -> Self {
        Self {
            heaps: PythonHeaps::new(config),
            tasks: PythonTasks::new(config),
        }
    }

    /// Puts the probes into a process whose Python was found, each once. Returns what a person should know of that.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn attach(
        &mut self,
        kernel: &mut Kernel,
        followed: &mut Followed,
        discovered: &Discovered,
    ) -> Result<Vec<Remark>, AttachError> {
        let mut probed = std::mem::take(&mut followed.python_probes);
        let remarks = self.attach_missing(kernel, followed, &mut probed, discovered);
        followed.python_probes = probed;
        remarks
    }

    fn attach_missing(
        &mut self,
        kernel: &mut Kernel,
        followed: &Followed,
        probed: &mut PythonProbed,
        discovered: &Discovered,
    ) -> Result<Vec<Remark>, AttachError> {
        let Some(python) = &followed.python else {
            return Ok(Vec::new());
        };
        let mut remarks = Vec::new();
        if !std::mem::replace(&mut probed.heap, true) {
            remarks = self.heaps.attach(kernel, followed, python, discovered)?;
        }
        let task = (followed, python);
        remarks.extend(self.tasks.attach(kernel, task, probed, discovered)?);
        Ok(remarks)
    }
}
