//! The environment and links of a process, as far as somebody asks for one by name.

use std::path::Path;

use super::Process;
use crate::process::live::read_bounded;

/// More bytes than `execve` accepts on x86-64 (`MAX_ARG_STRLEN` for one string, a quarter of the stack for all).
const MAX_ENVIRONMENT_BYTES: u64 = 8 << 20;

impl Process {
    /// The value of an environment variable; `None` if it is not set or residue may not read it. The program may
    /// have changed the value: gperftools marks a value that it has used by a first byte that is no text. Residue
    /// keeps nothing else of the environment.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        let environment = read_bounded(&self.proc, "environ", MAX_ENVIRONMENT_BYTES).ok()?;
        value(&environment, name)
    }

    /// What a symbolic link in the process's root directory says, not where the link leads.
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
