//! Shortens the kernel's RCU grace periods while tests run. The kernel waits for such periods with
//! every probe that residue takes out. Without this, the waits are a third of the tests' time.

use std::fs;

/// "1" makes the kernel expedite every grace period
/// (Documentation/admin-guide/kernel-parameters.txt, `rcupdate.rcu_expedited`).
const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// Keeps grace periods short as long as this value lives.
pub struct Expedited {
    /// The setting to restore. None if the kernel did not allow the change.
    before: Option<String>,
}

impl Expedited {
    /// Asks the kernel for short grace periods. Where the kernel refuses, the tests only take
    /// longer.
    pub fn request() -> Self {
        let before = fs::read_to_string(EXPEDITED).ok();
        let is_set = fs::write(EXPEDITED, "1").is_ok();
        Self {
            before: before.filter(|_| is_set),
        }
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = fs::write(EXPEDITED, before)
        {
            eprintln!("xtask: {EXPEDITED} stays at 1: {error}");
        }
    }
}
