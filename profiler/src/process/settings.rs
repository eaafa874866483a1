//! How a process was set up from outside, as far as somebody asks for it by name.

use std::path::Path;

use super::Process;
use crate::process::live::read_bounded;

/// More than `execve` lets through on x86-64 (`MAX_ARG_STRLEN` for one string, a quarter of the stack for all).
const MAX_ENVIRONMENT_BYTES: u64 = 8 << 20;

impl Process {
    /// The value of an environment variable; none if it is not set or may not be read. A program may have changed
    /// it: gperftools marks a value that it has used by a first byte which is no text. Nothing else of the
    /// environment is kept.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        let environment = read_bounded(&self.proc, "environ", MAX_ENVIRONMENT_BYTES).ok()?;
        value(&environment, name)
    }

    /// What a symbolic link in its root directory says, not where that leads.
    #[must_use]
    pub fn link(&self, path: &str) -> Option<String> {
        self.root().read_link(Path::new(path)).ok()
    }
}

fn value(environment: &[u8], name: &str) -> Option<String> {
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })?;
    Some(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let environment = b"XMALLOC_CONF=no\0MALLOC_CONFIG=no\0MALLOC_CONF=prof:true\0A=\xff\0";
        assert_eq!(
            value(environment, "MALLOC_CONF").as_deref(),
            Some("prof:true")
        );
        assert_eq!(value(environment, "A").as_deref(), Some("\u{fffd}"));
        assert_eq!(value(environment, "CONF"), None);
        assert_eq!(value(b"", "A"), None);
    }
}
