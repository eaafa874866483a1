//! All probes on interpreters: on Python's own allocator, and on what its tasks are known by.

use super::{
    Config, discovered::Discovered, followed::Followed, python_heap::PythonHeaps,
    python_tasks::PythonTasks,
};
use crate::attach::{AttachError, Kernel};

/// See the module documentation.
pub struct PythonProbes {
    /// The allocators.
    pub heaps: PythonHeaps,
    tasks: PythonTasks,
}

impl PythonProbes {
    pub fn new(config: &Config) -> Self {
        Self {
            heaps: PythonHeaps::new(config),
            tasks: PythonTasks::new(config),
        }
    }

    /// Puts the probes into a process whose Python was found, each once. Returns what whoever records
    /// should know of it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn attach(
        &mut self,
        kernel: &mut Kernel,
        followed: &Followed,
        discovered: &Discovered,
    ) -> Result<Vec<String>, AttachError> {
        let mut notes = self.heaps.attach(kernel, followed, discovered)?;
        notes.extend(self.tasks.attach(kernel, followed, discovered)?);
        Ok(notes)
    }
}
