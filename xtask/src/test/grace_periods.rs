//! Shortens the kernel's RCU grace periods while tests run: it waits for some with every probe that it takes out,
//! and without this they are a third of the tests' time.

use std::fs;

/// "1" has every grace period expedited (Documentation/admin-guide/kernel-parameters.txt, `rcupdate.rcu_expedited`).
const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// Grace periods are short while this lives.
pub struct Expedited {
    /// What was set before, if anything could be.
    before: Option<String>,
}

impl Expedited {
    /// Where the kernel does not allow it, tests only take longer.
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
