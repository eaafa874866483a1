//! Says what being recorded costs the processes, and takes the probes out of one that it costs too much.

use std::collections::HashSet;

use super::{Core, SessionError, clock, cost::Finding, processes::Processes};
use crate::{
    error_text::in_full,
    ids::Slot,
    remark::{Cost, Remark, Spent},
};

/// Looks at what recording has cost each process since the last look. To be called when all events were read.
///
/// # Errors
///
/// When the kernel refuses to read or update a map, which it has no reason to.
pub fn look(processes: &mut Processes, core: &mut Core<'_>) -> Result<(), SessionError> {
    let counted = processes.iter().filter(|followed| followed.is_counted());
    let counted: Vec<Slot> = counted.map(|followed| followed.slot).collect();
    for slot in counted {
        let Some(followed) = processes.get_mut(slot) else {
            continue;
        };
        match core.costs.look(&mut core.kernel, followed)? {
            None => {}
            Some(Finding::Says(spent)) => {
                let process = followed.named();
                core.remark(&Remark::Cost(Cost::Slowed { process, spent }));
            }
            Some(Finding::TooMuch(spent)) => let_go(processes, core, slot, spent)?,
        }
    }
    if let Some(error) = core.costs.take_unpriced() {
        core.remark(&Remark::Cost(Cost::Unknown(in_full(&error))));
    }
    Ok(())
}

/// The last look, after which nobody is let go.
///
/// # Errors
///
/// As for [`look`].
pub fn look_a_last_time(
    processes: &mut Processes,
    core: &mut Core<'_>,
) -> Result<(), SessionError> {
    for followed in processes
        .iter_mut()
        .filter(|followed| followed.is_counted())
    {
        core.costs.look(&mut core.kernel, followed)?;
    }
    Ok(())
}

/// From here on the process is followed by its requests and its resident set alone.
fn let_go(
    processes: &mut Processes,
    core: &mut Core<'_>,
    slot: Slot,
    spent: Spent,
) -> Result<(), SessionError> {
    let Some(followed) = processes.get_mut(slot) else {
        return Ok(());
    };
    let since_ns = clock::monotonic_ns();
    let wall = followed.meter.all().unwrap_or(spent).wall;
    let seconds = wall.as_secs_f64();
    let why = format!("counted for {seconds:.0} s, until its probes were taken out: {spent}");
    followed.let_go(&mut core.kernel, why.clone())?;
    core.windows
        .no_longer_counts(slot, since_ns, &mut core.drain);
    core.kernel.detach_aside(slot);
    core.kernel.forget(&HashSet::from([slot]), &HashSet::new());
    core.retire(followed.number, why);
    let remark = Cost::LetGo {
        process: followed.named(),
        spent,
        limit: core.costs.limit(),
        unseen: followed.window_probes.shows(),
    };
    core.remark(&Remark::Cost(remark));
    Ok(())
}

/// Says of every process what it was like to be recorded, and which did nothing.
///
/// # Errors
///
/// When the kernel refuses to read a map, which it has no reason to.
pub fn tell(processes: &Processes, core: &mut Core<'_>) -> Result<(), SessionError> {
    let mut outcomes = processes.past_costs();
    for followed in processes.iter() {
        let time = core.kernel.probe_time(followed.slot)?;
        outcomes.add(followed, followed.meter.outcome(time));
    }
    core.remarks(outcomes.remarks(core.config.tracing.allocations));
    Ok(())
}
