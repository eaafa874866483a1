//! A library was loaded while recording.

use std::time::{Duration, Instant};

use super::{
    Core, SessionError, discovered::Discovered, followed::Followed, processes::Processes,
    python_probes::PythonProbes,
};
use crate::{
    attach::AttachError,
    error_text::in_full,
    ids::Slot,
    remark::{Late, Remark},
};

/// How long everything else waits for the unwind tables of a library that was loaded: the library may be at work
/// already.
const TABLES: Duration = Duration::from_millis(20);

/// Probes the libraries that the process in a slot has loaded, and makes their unwind tables: a library may hold an
/// allocator, or what opens windows, and frames will lie in it.
///
/// # Errors
///
/// When the kernel refuses for a reason that all processes have. What one process loads must not end the recording
/// of all.
pub fn attach(
    processes: &mut Processes,
    core: &mut Core<'_>,
    slot: Slot,
) -> Result<(), SessionError> {
    let Some((python, sources, followed)) = processes.with_probes(slot) else {
        return Ok(());
    };
    if !followed.is_counted() {
        return Ok(());
    }
    if followed.process.refresh().is_err() {
        // Of one that ended, the next poll sees that.
        if !followed.process.has_exited() {
            tell(core, followed, Late::Unread);
        }
        return Ok(());
    }
    let mut discovered = Discovered::default();
    if core.config.tracing.allocations {
        discovered = follow_allocations(core, followed, python)?;
    }
    let to = (&mut core.kernel, &mut core.windows);
    let gaps = sources.attach(to, followed, &discovered);
    let gaps = or_told(core, followed, gaps)?;
    core.remarks(gaps);
    Ok(())
}

/// Makes the unwind tables of the code that is mapped now, and probes the allocators and the interpreter in that code.
/// Returns what residue found there.
fn follow_allocations(
    core: &mut Core<'_>,
    followed: &mut Followed,
    python: &mut PythonProbes,
) -> Result<Discovered, SessionError> {
    followed.set_code(&mut core.kernel, &mut core.stacks.code)?;
    core.stacks.code.wait_for_tables(Instant::now() + TABLES);
    core.deliver_tables()?;
    let discovered = Discovered::under_way(&followed.process, core.config.sites);
    let gaps = followed.new_gaps(&discovered);
    core.remarks(gaps);
    let gap = followed.attach_python(&mut core.kernel, &discovered);
    let gap = or_told(core, followed, gap)?;
    core.remarks(gap);
    let gaps = python.attach(&mut core.kernel, followed, &discovered);
    let gaps = or_told(core, followed, gaps)?;
    core.remarks(gaps);
    attach_allocators(core, followed, &discovered)?;
    Ok(discovered)
}

fn attach_allocators(
    core: &mut Core<'_>,
    followed: &mut Followed,
    discovered: &Discovered,
) -> Result<(), SessionError> {
    let added = followed.attach(&mut core.kernel, discovered);
    let added = or_told(core, followed, added)?;
    if added.functions > 0 {
        core.remark(&Remark::Library {
            pid: followed.process.pid(),
            probes: Late::Probed(added.functions),
        });
    }
    for refused in &added.refused {
        tell(core, followed, Late::Refused(in_full(refused)));
    }
    Ok(())
}

/// What was attached, or nothing where the kernel refuses that of this process.
fn or_told<T: Default>(
    core: &mut Core<'_>,
    followed: &mut Followed,
    attached: Result<T, AttachError>,
) -> Result<T, SessionError> {
    match attached {
        Ok(attached) => return Ok(attached),
        // It ended meanwhile; the next poll sees that.
        Err(AttachError::ProcessGone { .. }) => {}
        Err(error) if error.is_of_late_probe() => {
            tell(core, followed, Late::Refused(in_full(&error)));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(T::default())
}

/// Once for each reason.
fn tell(core: &mut Core<'_>, followed: &mut Followed, probes: Late) {
    let pid = followed.process.pid();
    let remark = Remark::Library { pid, probes };
    if followed.is_news(&remark) {
        core.remark(&remark);
    }
}
