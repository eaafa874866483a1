//! What a recording does several times an interval.

use super::{Core, SessionError, new_code, processes::Processes};

/// Empties the ring buffers and sees who has ended.
///
/// # Errors
///
/// When nobody is left who keeps anything, or the kernel refuses what it has no reason to refuse.
pub fn poll(core: &mut Core<'_>, processes: &mut Processes) -> Result<(), SessionError> {
    drain(core, processes)?;
    Ok(core.sinks.check()?)
}

/// As [`poll`], whoever is left.
///
/// # Errors
///
/// When the kernel refuses what it has no reason to refuse.
pub fn drain(core: &mut Core<'_>, processes: &mut Processes) -> Result<(), SessionError> {
    let retired = processes.take_leaving();
    // A stack is older than what is in the event ring by the time it is read, so the events
    // tell where its code is.
    let stacks = core.drain.stacks();
    let changed = processes.apply(core.drain.events());
    // Once for all code that appeared.
    for slot in changed.with_new_code {
        new_code::attach(processes, core, slot)?;
    }
    core.stacks.take(stacks, processes, &mut core.drain);
    core.windows.poll(&mut core.drain);
    core.tell_of_requests();
    processes.look_at_protocols(core);
    if let Some(samples) = &mut core.samples {
        samples.take(processes, &mut core.drain)?;
    }
    core.deliver_tables()?;
    core.kernel.flush_messages();
    processes.forget(core, &retired)?;
    for slot in changed.executed {
        processes.retire(core, slot, "replaced its program (exec)")?;
    }
    for (slot, pid) in processes.look_again(core)? {
        let how = processes.how_it_ended(pid);
        processes.retire(core, slot, &how)?;
    }
    Ok(())
}
