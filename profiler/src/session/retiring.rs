//! Says what being recorded costs the processes, and takes the probes out of one that it costs too much.

use crate::error_text::in_full;

use super::{
    ProgramSet, Session, SessionError, Update, clock,
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
        self.note_unpriced()
    }

    /// Says, once, that costs are not known in full.
    fn note_unpriced(&mut self) -> Result<(), SessionError> {
        if let Some(error) = self.costs.unpriced()
            && !std::mem::replace(&mut self.unpriced_told, true)
        {
            let error = in_full(error);
            self.note(format!(
                "what the kernel takes for a probe could not be measured on this host: {error}. What recording costs is \
                 more than is said, and --max-slowdown goes by that until it can be measured"
            ))?;
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
        let since_ns = clock::monotonic_ns();
        let seconds = self
            .costs
            .of(followed.slot)
            .unwrap_or(spent)
            .wall
            .as_secs_f64();
        let why = format!("counted for {seconds:.0} s, until its probes were taken out: {cost}");
        followed.retire(&mut self.kernel, why.clone())?;
        let (slot, name) = (followed.slot, super::describe(followed));
        self.windows
            .no_longer_counts(slot, since_ns, &mut self.drain);
        let unseen = self.window_probes.seen_in(slot);
        self.kernel.detach_aside(slot);
        self.over.push(usize::from(slot));
        if let Some(writer) = &mut self.writer {
            writer.end_process(slot, now(), &why)?;
        }
        let limit = self.config.max_slowdown.unwrap_or_default();
        let unseen = match &unseen[..] {
            [] => String::new(),
            all => format!(", without {}", all.join(" and ")),
        };
        self.note(format!(
            "pid {name} was {cost}, more than --max-slowdown {limit} allows: its probes are taken out, its figures \
             stay as they are now, and it is followed by its resident set alone{unseen}. Give a higher --max-slowdown, or \
             off, to record it all the same"
        ))
    }

    /// Whether there are probes that count what they cost.
    pub(super) fn has_costs(&self) -> bool {
        self.config.programs == ProgramSet::Counting && self.kernel.has_probes()
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
                // Without load there are no requests either.
                if self.config.tracing.allocations {
                    idle.push(name);
                }
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
