//! How a recording ends: what it made first, the probes last.

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use super::{
    Core, SessionError, children::Children, clock::now, interval, memory::MemoryLog,
    polling::drain, processes::Processes, slowdowns,
};
use crate::{attach::Remaining, remark::When, requests::record::WindowEnd};

/// How long the last interval waits for names of frames. The debug information of the largest programs takes some
/// seconds to read.
const LAST_NAMES: Duration = Duration::from_secs(10);

/// A recording that is over.
pub struct Finished {
    /// Whether everything that the sinks make is complete.
    pub written: Result<(), SessionError>,
    /// How the command ended, if there was one and it has ended.
    pub command: Option<ExitStatus>,
    /// What the kernel still has to take out. It takes a tenth of a second or more for each.
    pub probes: Remaining,
}

/// Stops counting, and tells the last interval. Returns when the last event counted, nanoseconds since 1970 UTC.
///
/// # Errors
///
/// When the kernel refuses to read or update a map, which it has no reason to.
pub fn write_last(
    core: &mut Core<'_>,
    processes: &mut Processes,
    children: &mut Children,
    memory: &mut MemoryLog,
) -> Result<u64, SessionError> {
    if core.has_costs() {
        slowdowns::look_a_last_time(processes, core)?;
    }
    processes.close(core)?;
    let ended = now();
    if core.counts_costs() {
        slowdowns::tell(processes, core)?;
    }
    children.look(processes, core, When::AtTheEnd);
    processes.look_at_rings(core);
    drain(core, processes)?;
    for followed in processes.iter() {
        let end = Some(WindowEnd::StillOpen);
        core.windows.end(followed.slot, &mut core.drain, end);
    }
    memory.look(processes, core);
    memory.end();
    interval::tell(core, processes, memory, Instant::now() + LAST_NAMES)?;
    core.remarks(processes.python_objects());
    Ok(ended)
}
