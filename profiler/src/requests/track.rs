//! Follows windows from the kernel side's events to their records. Pure.
//!
//! The kernel side opens and closes windows, since it must know at each allocation which one is open. Two
//! things are left to us: what the heads say, and windows whose end it cannot see, because the thread
//! turned to nothing else yet: they are over when the response is whole.

mod exchange;
mod last;

use std::collections::HashMap;

use residue_ebpf::abi::window::{
    Amounts, WINDOW_CHUNKS_ENDED, WINDOW_HANDED_OVER, WINDOW_HAS_TASKS, WINDOW_NEXT_RESPONSE,
    WINDOW_RESET, WINDOW_TASKS_INHERITED, WindowEvent, WindowEventKind, WindowStage, WindowState,
};

use super::head::{IdHeader, ResponseEnd};
use super::record::{Amount, Binding, WindowEnd, WindowRecord};
use super::route::{Route, Routes};
use crate::ids::{FunctionId, ProcessNumber, Slot, WindowId, WindowNumber};
use exchange::Exchange;

pub use last::Last;

/// How long a thread that is bound to a window may do nothing before the window of a whole response is
/// taken to be over, nanoseconds. Cleaning up takes less, and whoever watches wants to see the line.
const QUIET_NS: u64 = 1_000_000_000;

/// How long a task may go on behind the response, nanoseconds: one that never ends, such as a worker that
/// all requests share, is not the first request's for ever.
const LINGER_NS: u64 = 30_000_000_000;

/// Requests that arrive together and are told one by one, at most. Whoever sends them chooses how many there
/// are; that so many could have been meant is all that is said of more ([`Binding::Candidates`]).
const MOST_TOGETHER: usize = u8::MAX as usize;

/// The windows that are open.
#[derive(Debug)]
pub struct Tracker {
    id_header: IdHeader,
    routes: Routes,
    /// What to add to the monotonic clock for nanoseconds since 1970 UTC.
    clock_offset_ns: i64,
    /// Whether allocations are followed.
    allocations: bool,
    /// Processes whose allocations are not, although others' are: since when, nanoseconds of the monotonic clock.
    uncounted: HashMap<Slot, u64>,
    not_http: u64,
    crowded_out: u64,
    /// By slot: the number and the pid of the process that has the slot.
    processes: HashMap<Slot, (ProcessNumber, u32)>,
    /// Names of windows that are no requests, by [`WindowState::source`].
    sources: HashMap<u32, Route>,
    open: HashMap<WindowId, Open>,
}

#[derive(Debug)]
struct Open {
    /// As it was when it opened.
    opened: WindowEvent,
    /// The request, and those that arrived together with it.
    exchanges: Vec<Exchange>,
    /// Requests beyond those.
    crowded_out: u64,
    /// When its memory last changed, as far as was seen.
    changed_ns: u64,
    amounts: Amounts,
}

impl Tracker {
    /// No window is open yet. `clock_offset_ns` is what to add to the monotonic clock for nanoseconds
    /// since 1970 UTC.
    #[must_use]
    pub fn new(
        id_header: IdHeader,
        routes: Routes,
        clock_offset_ns: i64,
        allocations: bool,
    ) -> Self {
        Self {
            id_header,
            routes,
            clock_offset_ns,
            allocations,
            uncounted: HashMap::new(),
            not_http: 0,
            crowded_out: 0,
            processes: HashMap::new(),
            sources: HashMap::new(),
            open: HashMap::new(),
        }
    }

    /// Names the windows that a function makes.
    pub fn add_source(&mut self, function: FunctionId, route: Route) {
        // A source of zero is the sockets.
        self.sources.insert(function.0 + 1, route);
    }

    /// Names the process in a slot.
    pub fn add_process(&mut self, slot: Slot, number: ProcessNumber, pid: u32) {
        self.processes.insert(slot, (number, pid));
    }

    /// The number of the process in a slot.
    #[must_use]
    pub fn number(&self, slot: Slot) -> Option<ProcessNumber> {
        let process = self.processes.get(&slot);
        process.map(|(number, _)| *number)
    }

    /// Forgets the process in a slot, and what of its windows came after their end.
    pub fn remove_process(&mut self, slot: Slot) {
        self.processes.remove(&slot);
        self.uncounted.remove(&slot);
        self.open
            .retain(|_, open| open.opened.state.process != slot.index());
    }

    /// Requests that are in no route of their own because there are too many.
    #[must_use]
    pub const fn overflowed(&self) -> u64 {
        self.routes.overflowed()
    }

    /// Requests that have no record because too many arrived together.
    #[must_use]
    pub const fn crowded_out(&self) -> u64 {
        self.crowded_out
    }

    /// Windows that were of another protocol, and have no record.
    #[must_use]
    pub const fn not_http(&self) -> u64 {
        self.not_http
    }

    /// Takes what the kernel side has sent; returns the records of what is over.
    pub fn take(&mut self, event: &WindowEvent, fragment: &[u8]) -> Vec<WindowRecord> {
        let id = WindowId(event.window);
        match WindowEventKind::from_bits(event.kind) {
            Some(WindowEventKind::Opened) if event.state.source != 0 => {
                if let Some(route) = self.sources.get(&event.state.source) {
                    let call = Exchange::call(route.clone());
                    self.open.insert(id, Open::new(event, call));
                }
            }
            Some(WindowEventKind::Opened) => {
                self.open.insert(id, Open::new(event, Exchange::default()));
                self.push_request(id, event, fragment);
            }
            Some(WindowEventKind::Request) => self.push_request(id, event, fragment),
            Some(WindowEventKind::Response) => self.push_response(id, event, fragment),
            Some(WindowEventKind::Closed) => return self.finish(id, &event.into(), None),
            None => {}
        }
        Vec::new()
    }

    fn push_request(&mut self, id: WindowId, event: &WindowEvent, fragment: &[u8]) {
        if let Some(open) = self.open.get_mut(&id) {
            let is_cut = event.transferred > event.fragment_len;
            open.push_request(fragment, is_cut, &self.id_header);
        }
    }

    fn push_response(&mut self, id: WindowId, event: &WindowEvent, fragment: &[u8]) {
        if let Some(open) = self.open.get_mut(&id) {
            let is_next = event.state.has(WINDOW_NEXT_RESPONSE);
            open.push_response(fragment, is_next, &self.id_header);
        }
    }

    /// Windows whose response is whole though the kernel side has not seen their end, or whose end was
    /// lost, by what `look` says of each. Those of which nothing is known any more are forgotten.
    pub fn over(
        &mut self,
        now_ns: u64,
        look: impl Fn(WindowId) -> Option<WindowState>,
    ) -> Vec<(WindowId, WindowState)> {
        let mut over = Vec::new();
        self.open.retain(|&id, open| {
            let Some(state) = look(id) else {
                return false;
            };
            if open.is_over(&state, now_ns) {
                over.push((id, state));
            }
            true
        });
        over
    }

    /// The windows of a process that are open.
    #[must_use]
    pub fn of_process(&self, slot: Slot) -> Vec<WindowId> {
        let open = self.open.iter();
        open.filter(|(_, open)| open.opened.state.process == slot.index())
            .map(|(id, _)| *id)
            .collect()
    }

    /// Those of them that are calls of functions, or the like.
    #[must_use]
    pub fn calls_of_process(&self, slot: Slot) -> Vec<WindowId> {
        let mut calls = self.of_process(slot);
        calls.retain(|id| self.open[id].opened.state.source != 0);
        calls
    }

    /// Nobody counts what the process in a slot allocates, from this moment of the monotonic clock on.
    pub fn no_longer_counts(&mut self, slot: Slot, since_ns: u64) {
        self.uncounted.insert(slot, since_ns);
    }

    /// Whether anybody counted what the process in a slot had allocated by this moment of the monotonic clock.
    fn is_counted(&self, slot: Slot, at_ns: u64) -> bool {
        let until_ns = self.uncounted.get(&slot);
        self.allocations && until_ns.is_none_or(|until_ns| at_ns < *until_ns)
    }

    /// A window is over, for the given reason or for the one that it shows itself: its record, and those
    /// of requests that arrived together with it.
    pub fn finish(
        &mut self,
        id: WindowId,
        last: &Last,
        end: Option<WindowEnd>,
    ) -> Vec<WindowRecord> {
        let Some(open) = self.open.remove(&id) else {
            return Vec::new();
        };
        self.crowded_out += open.crowded_out;
        let slot = Slot::of_record(last.state.process);
        let Some(&(process, pid)) = self.processes.get(&slot) else {
            return Vec::new();
        };
        let unix = |ns: u64| ns.saturating_add_signed(self.clock_offset_ns);
        let binding = match self.is_counted(slot, last.at_ns) {
            true => open.binding(last),
            false => Binding::None,
        };
        let (allocated, retained) = open.amounts(last);
        let end = end.unwrap_or_else(|| how_it_ended(&last.state));
        let exchanges = (0..).zip(open.exchanges);
        exchanges
            .filter_map(|(behind, exchange)| {
                let was_answered = exchange.was_answered();
                let Some((route, status, request_id)) = exchange.finish(&mut self.routes) else {
                    self.not_http += 1;
                    return None;
                };
                Some(WindowRecord {
                    window: WindowNumber::new(id, behind),
                    process,
                    pid,
                    tid: last.state.tid,
                    opened_ns: unix(last.state.opened_ns),
                    closed_ns: unix(last.at_ns),
                    duration_ns: last.duration_ns().filter(|_| was_answered),
                    route,
                    status,
                    request_id,
                    rss: last.resident_sets(),
                    allocated,
                    retained,
                    binding,
                    end,
                })
            })
            .collect()
    }
}

impl Open {
    fn new(event: &WindowEvent, exchange: Exchange) -> Self {
        Self {
            opened: *event,
            exchanges: vec![exchange],
            crowded_out: 0,
            changed_ns: event.at_ns,
            amounts: event.state.amounts,
        }
    }

    fn push_request(&mut self, fragment: &[u8], is_cut: bool, id: &IdHeader) {
        let Some(exchange) = self.exchanges.last_mut() else {
            return;
        };
        let rest = exchange.push_request(fragment, is_cut, id).to_vec();
        // Only what is no body can be another request.
        if exchange.has_no_body() && !rest.is_empty() {
            let mut next = Exchange::default();
            next.push_request(&rest, is_cut, id);
            if next.is_request() {
                self.arrived_as_well(next);
            }
        }
    }

    fn arrived_as_well(&mut self, exchange: Exchange) {
        if self.exchanges.len() < MOST_TOGETHER {
            self.exchanges.push(exchange);
        } else {
            self.crowded_out += 1;
        }
    }

    /// Responses come in the order of their requests.
    fn push_response(&mut self, fragment: &[u8], is_next: bool, id: &IdHeader) {
        let answered = self.exchanges.iter().filter(|it| it.was_answered()).count();
        let last_interim = self.exchanges.iter().rposition(Exchange::is_interim);
        let current = match (is_next, last_interim) {
            (true, Some(interim)) => {
                self.exchanges[interim].forget_interim();
                interim
            }
            (true, None) if answered < self.exchanges.len() => answered,
            (true, None) if self.exchanges.iter().any(Exchange::may_hide_another) => {
                self.arrived_as_well(Exchange::hidden());
                answered
            }
            _ => answered.saturating_sub(1),
        };
        if let Some(exchange) = self.exchanges.get_mut(current) {
            exchange.push_response(fragment, id);
        }
    }

    /// Whether the response is whole, and whoever is bound to the window, a thread or tasks, does nothing
    /// more; or whether it is closed, and nothing was heard of that for long.
    fn is_over(&mut self, state: &WindowState, now_ns: u64) -> bool {
        if state.amounts != self.amounts {
            self.amounts = state.amounts;
            self.changed_ns = now_ns;
        }
        let quiet_ns = now_ns.saturating_sub(self.changed_ns.max(state.responded_ns));
        if state.stage() == WindowStage::Closed as u32 {
            return quiet_ns >= QUIET_NS;
        }
        if state.responded_ns == 0 {
            return false;
        }
        let since_response_ns = now_ns.saturating_sub(state.responded_ns);
        let is_finished = state.stage() == WindowStage::Finished as u32;
        let has_tasks = state.tasks != 0;
        let has_lingered = has_tasks && since_response_ns >= LINGER_NS;
        match self.is_whole(state) {
            _ if is_finished && has_tasks => quiet_ns >= QUIET_NS || has_lingered,
            Some(true) => {
                let nobody = state.bound() == 0 && !has_tasks;
                nobody || quiet_ns >= QUIET_NS || has_lingered
            }
            Some(false) => false,
            None => quiet_ns >= QUIET_NS,
        }
    }

    /// `None` if that cannot be told.
    fn is_whole(&self, state: &WindowState) -> Option<bool> {
        let [exchange] = &self.exchanges[..] else {
            return None;
        };
        match exchange.response_end()? {
            ResponseEnd::Bytes { head, body } => {
                let body = if exchange.is_head() { 0 } else { body };
                Some(state.sent_bytes >= head.saturating_add(body))
            }
            ResponseEnd::LastChunk => Some(exchange.is_head() || state.has(WINDOW_CHUNKS_ENDED)),
            ResponseEnd::ConnectionClosed => Some(exchange.is_head()),
            ResponseEnd::Upgraded => Some(state.bound() == 0),
        }
    }

    fn binding(&self, last: &Last) -> Binding {
        let was_bound = last.state.bound() != 0 && !last.state.has(WINDOW_HANDED_OVER);
        let has_tasks = last.state.bound() == 0 && last.state.has(WINDOW_HAS_TASKS);
        let together = self.exchanges.len() as u64;
        let may_be_others =
            self.is_incomplete(last) || !was_bound && !has_tasks && self.is_any_ambiguous(last);
        if may_be_others || together > 1 {
            let candidates = self.candidates(last).max(together);
            return Binding::Candidates(u8::try_from(candidates).unwrap_or(u8::MAX));
        }
        if !was_bound && !has_tasks || last.state.others != 0 {
            Binding::Single
        } else if has_tasks && last.state.has(WINDOW_TASKS_INHERITED) {
            Binding::Lineage
        } else {
            Binding::Exact
        }
    }

    /// How many windows were open meanwhile that could have been meant.
    fn candidates(&self, last: &Last) -> u64 {
        let (at_first, opened) = if self.is_incomplete(last) {
            (self.opened.under_way, [self.opened.opened, last.opened])
        } else {
            let opened = [self.opened.unbound_opened, last.unbound_opened];
            (self.opened.unbound_open, opened)
        };
        at_first.saturating_add(opened[1].saturating_sub(opened[0]))
    }

    /// Whether something was allocated meanwhile that may be the window's and is not known to be: `true` even if
    /// whatever is bound to the window has amounts of its own.
    const fn is_incomplete(&self, last: &Last) -> bool {
        last.escaped != self.opened.escaped
    }

    /// Whether something was allocated meanwhile that is no single window's.
    fn is_any_ambiguous(&self, last: &Last) -> bool {
        last.ambiguous.alloc_objects != self.opened.ambiguous.alloc_objects
    }

    /// What was allocated, and what is retained; of an unbound window what may have been.
    fn amounts(&self, last: &Last) -> (Amount, Amount) {
        let (mut allocated, mut retained) = (
            Amount::allocated(&last.state.amounts),
            Amount::outstanding(&last.state.amounts),
        );
        let is_unbound = last.state.bound() == 0 && !last.state.has(WINDOW_HAS_TASKS);
        if is_unbound || self.is_incomplete(last) {
            let (before, now) = (&self.opened.ambiguous, &last.ambiguous);
            allocated.add(minus(Amount::allocated(now), Amount::allocated(before)));
            retained.add(minus(Amount::outstanding(now), Amount::outstanding(before)));
        }
        (allocated, retained)
    }
}

fn how_it_ended(state: &WindowState) -> WindowEnd {
    if state.has(WINDOW_RESET) {
        WindowEnd::Reset
    } else if state.responded_ns == 0 {
        WindowEnd::CutOff
    } else {
        WindowEnd::Done
    }
}

const fn minus(a: Amount, b: Amount) -> Amount {
    Amount {
        bytes: a.bytes.saturating_sub(b.bytes),
        objects: a.objects.saturating_sub(b.objects),
    }
}

#[cfg(test)]
mod tests;
