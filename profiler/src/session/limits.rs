//! What the system lets residue have: its own limits, raised as far as they may be.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::SessionError;

/// Below this much address space a recording does not even get to the point where it can say what failed: the
/// kernel side's maps are mapped, and each thread has a stack.
const ADDRESS_SPACE: u64 = 256 << 20;

/// The limits on open files and on address space, as they were at first.
static BEFORE: OnceLock<[(Resource, Rlimit); 2]> = OnceLock::new();

/// Raises the soft limits: each probe takes two open files.
///
/// # Errors
///
/// When the hard limit on address space is too low. It would fail anywhere, and say nothing of the limit.
pub fn raise() -> Result<(), SessionError> {
    let limits = [Resource::Nofile, Resource::As].map(|it| (it, getrlimit(it)));
    BEFORE.get_or_init(|| limits);
    for (resource, limit) in limits {
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        // What is refused is as it was.
        let _ = setrlimit(resource, raised);
    }
    match getrlimit(Resource::As).current {
        Some(bytes) if bytes < ADDRESS_SPACE => Err(SessionError::AddressSpace { bytes }),
        _ => Ok(()),
    }
}

/// Gives a command the limits that it would have without us. Makes system calls only.
///
/// # Errors
///
/// When the kernel refuses, which it has no reason to.
pub fn restore() -> rustix::io::Result<()> {
    let before = BEFORE.get().into_iter().flatten();
    for (resource, limit) in before {
        setrlimit(*resource, *limit)?;
    }
    Ok(())
}
