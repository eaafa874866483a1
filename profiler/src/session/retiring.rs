//! Says what being recorded costs the processes, and takes the probes out of one that it costs too much.

use super::{
    ProgramSet, Session, SessionError, Update,
    cost::{Finding, Spent},
    now,
};

/// From which slowdown on a process's cost is listed at the end.
const LISTED: f64 = 1.05;
/// How many processes are listed.
const MOST: usize = 10;

impl Session<'_> {
    pub(super) fn look_at_costs(&mut self) -> Result<(), SessionError> {
        for slot in 0..self.followed.len() {
            let followed = &self.followed[slot];
            if !followed.is_counted() {
                continue;
            }
            let name = super::describe(followed);
            match self.costs.look(&mut self.kernel, followed)? {
                None => {}
                Some(Finding::Says(spent)) => {
                    // The report has what it came to, said at the end.
                    let text = format!("pid {name} is {} while it is recorded", spent.text());
                    (self.tell)(Update::Note(text));
                }
                Some(Finding::TooMuch(spent)) => self.retire(slot, spent)?,
            }
        }
        Ok(())
    }

    /// The last look, after which nobody is let go.
    pub(super) fn look_a_last_time(&mut self) -> Result<(), SessionError> {
        for followed in self.followed.iter().filter(|it| it.is_counted()) {
            self.costs.look(&mut self.kernel, followed)?;
        }
        Ok(())
    }

    /// From here on the process is followed by its requests and its resident set alone.
    fn retire(&mut self, slot: usize, spent: Spent) -> Result<(), SessionError> {
        self.poll()?;
        let followed = &mut self.followed[slot];
        if !followed.is_counted() {
            return Ok(());
        }
        let cost = spent.text();
        let seconds = self
            .costs
            .of(followed.slot)
            .unwrap_or(spent)
            .wall
            .as_secs_f64();
        let why = format!("counted for {seconds:.0} s, until its probes were taken out: {cost}");
        followed.retire(&mut self.kernel, why.clone())?;
        let (slot, name) = (followed.slot, super::describe(followed));
        self.windows.no_longer_counts(slot, &mut self.drain);
        self.kernel.detach_aside(slot);
        if let Some(writer) = &mut self.writer {
            writer.end_process(slot, now(), &why)?;
        }
        let limit = self.config.max_slowdown.unwrap_or_default();
        self.note(format!(
            "pid {name} was {cost}, more than --max-slowdown {limit} allows: its probes are taken out, its figures \
             stay as they are now, and it is followed by its resident set alone. Give a higher --max-slowdown, or \
             off, to record it all the same"
        ))
    }

    /// Whether there are probes that count what they cost.
    pub(super) fn has_costs(&self) -> bool {
        self.config.tracing.allocations && self.config.programs == ProgramSet::Counting
    }

    /// Says of every process what it was like to be recorded, and which did nothing.
    pub(super) fn note_costs(&mut self) -> Result<(), SessionError> {
        if !self.has_costs() {
            return Ok(());
        }
        let (mut slowed, mut idle) = (Vec::new(), Vec::new());
        for followed in self.followed.iter().filter(|it| it.left_out.is_none()) {
            let name = super::describe(followed);
            if self.kernel.probe_time(followed.slot)?.hits() == 0 {
                idle.push(name);
            } else if let Some(spent) = self.costs.of(followed.slot)
                && (spent.slowdown() >= LISTED || self.costs.has_said(followed.slot))
            {
                slowed.push(format!("{name} {}", spent.text()));
            }
        }
        if !slowed.is_empty() {
            let text = format!("recording made pid {}", list(&slowed, "; "));
            self.note(text)?;
        }
        if !idle.is_empty() {
            let text = format!(
                "neither allocated nor freed anything while recorded: pid {}. If there was load, other processes \
                 took it",
                list(&idle, ", ")
            );
            self.note(text)?;
        }
        Ok(())
    }
}

fn list(all: &[String], between: &str) -> String {
    let further = match all.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!("{between}and {more} more"),
    };
    let named = &all[..all.len().min(MOST)];
    format!("{}{further}", named.join(between))
}
