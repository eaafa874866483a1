//! The request windows of a recording: from events to records, and what they left behind.

mod not_bound;

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use residue_ebpf::abi::{
    counters::Counter,
    window::{SPEAKS_HTTP2, SPEAKS_TLS, WINDOWS, WindowStage, WindowState},
};

use super::clock;
use crate::{
    drain::Drain,
    ids::{FunctionId, ProcessNumber, Slot, StackId, WindowId, WindowNumber},
    probes::windows::WindowSource,
    remark::Unread,
    requests::{
        head::IdHeader,
        record::{
            Amount, Binding, LeftBehind, ProcessUnbound, Stage, Survived, Unbound, WindowEnd,
            WindowRecord,
        },
        route::{Route, RouteRules, Routes},
        survivors::{Grace, OpenSpan, past_grace},
        track::{Last, Tracker},
    },
};
use not_bound::NotBound;

/// How often it is looked at what windows left behind.
const LOOK: Duration = Duration::from_secs(1);
/// How much more time passes between two looks at the live set than one takes: that bounds their share of
/// a CPU, however large the live set is.
const REST: u32 = 50;

/// What windows are, and what is told of them.
#[derive(Clone, Debug, Default)]
pub struct WindowRules {
    /// What makes them.
    pub sources: Vec<WindowSource>,
    /// How paths become routes.
    pub routes: RouteRules,
    /// Which header has the request id.
    pub id_header: IdHeader,
    /// From when on what a window retained counts as survivors.
    pub grace: Grace,
}

impl WindowRules {
    /// Whether calls of functions make any.
    pub fn follow_calls(&self) -> bool {
        let is_function = |source: &_| matches!(source, WindowSource::Function(_));
        self.sources.iter().any(is_function)
    }
}

/// What is new of windows since the last interval.
#[derive(Debug, Default)]
pub struct News {
    /// Windows that are over.
    pub finished: Vec<WindowRecord>,
    /// Windows whose grace is over.
    pub survivors: Vec<Survived>,
    /// What was left behind by stack.
    pub left_behind: Vec<LeftBehind>,
}

/// What windows have in common whose memory is added up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowKey {
    /// The window's number.
    pub window: WindowNumber,
    /// The number of the process.
    pub process: ProcessNumber,
    /// Its route.
    pub route: Route,
    /// Of the response.
    pub status: Option<u16>,
}

/// The request windows of a recording.
pub struct Windows {
    tracker: Tracker,
    grace: Grace,
    /// By process: windows whose grace is not over.
    waiting: HashMap<ProcessNumber, Vec<OpenSpan>>,
    /// The same windows, as far as they are bound.
    keys: HashMap<WindowId, WindowKey>,
    /// Those of them that closed since the last look.
    fresh: Vec<WindowId>,
    not_bound: NotBound,
    news: News,
    /// How many of the finished windows everybody was told of.
    told: usize,
    /// Whether anybody asks by which stacks something was left behind.
    by_stack: bool,
    next_look: Instant,
    /// Windows whose survivors nobody could tell any more.
    forgotten: u64,
    /// The same, because nobody counts any more.
    uncounted: u64,
    spoken: HashMap<Slot, u64>,
    /// Processes of which it was said that they have an io_uring.
    rings: HashSet<Slot>,
}

impl Windows {
    /// No window is open yet. `by_stack` says whether to look at which stacks left something behind, which
    /// takes a look at the whole live set.
    pub fn new(rules: &WindowRules, allocations: bool, by_stack: bool) -> Self {
        let routes = Routes::new(rules.routes.clone());
        Self {
            tracker: Tracker::new(
                rules.id_header.clone(),
                routes,
                clock::offset_ns(),
                allocations,
            ),
            grace: rules.grace,
            waiting: HashMap::new(),
            keys: HashMap::new(),
            fresh: Vec::new(),
            not_bound: NotBound::default(),
            news: News::default(),
            told: 0,
            by_stack,
            next_look: Instant::now() + LOOK,
            forgotten: 0,
            uncounted: 0,
            spoken: HashMap::new(),
            rings: HashSet::new(),
        }
    }

    /// Names the windows that a function makes, which is probed under this number.
    pub fn add_source(&mut self, function: FunctionId, route: Route) {
        self.tracker.add_source(function, route);
    }

    /// What the process in a slot reads through TLS is seen decrypted.
    pub fn decrypts(&mut self, slot: Slot) {
        *self.spoken.entry(slot).or_default() |= SPEAKS_TLS;
    }

    /// Names the process in a slot, which has this number in the recording.
    pub fn add_process(&mut self, slot: Slot, number: ProcessNumber, pid: u32) {
        self.tracker.add_process(slot, number, pid);
    }

    /// Forgets the process in a slot, whose windows are over: another one may have the slot.
    pub fn remove_process(&mut self, slot: Slot) {
        self.spoken.remove(&slot);
        self.rings.remove(&slot);
        self.tracker.remove_process(slot);
    }

    fn number(&self, slot: Slot) -> ProcessNumber {
        let number = self.tracker.number(slot);
        number.unwrap_or(ProcessNumber(slot.index()))
    }

    /// Takes what the kernel side has sent, and closes what it could not.
    pub fn poll(&mut self, drain: &mut Drain) {
        let mut finished = Vec::new();
        drain.window_events(|event, fragment| {
            finished.extend(self.tracker.take(event, fragment));
        });
        let now_ns = clock::monotonic_ns();
        for (id, state) in self.tracker.over(now_ns, |id| drain.window(id)) {
            let is_closed = state.stage() == WindowStage::Closed as u32;
            if is_closed || drain.close_window(&state) {
                let process = drain.process_windows(Slot::of_record(state.process));
                let last = Last::looked_at(state, &process, now_ns);
                finished.extend(self.tracker.finish(id, &last, None));
            }
        }
        self.add(finished);
        if Instant::now() >= self.next_look {
            self.look(drain);
        }
    }

    /// The process in a slot, or the recording, is over: so are its windows.
    pub fn end(&mut self, slot: Slot, drain: &mut Drain, end: Option<WindowEnd>) {
        self.poll(drain);
        let open = self.tracker.of_process(slot);
        self.close(&open, slot, drain, end);
        self.look(drain);
    }

    fn close(&mut self, windows: &[WindowId], slot: Slot, drain: &Drain, end: Option<WindowEnd>) {
        let now_ns = clock::monotonic_ns();
        for &id in windows {
            let Some(state) = drain.window(id) else {
                continue;
            };
            // Whether or not somebody else closes it meanwhile, nothing more is heard of it.
            if state.stage() != WindowStage::Closed as u32 {
                let _ = drain.close_window(&state);
            }
            let last = Last::looked_at(state, &drain.process_windows(slot), now_ns);
            let finished = self.tracker.finish(id, &last, end);
            self.add(finished);
        }
    }

    /// Nobody counts any more, from this moment of the monotonic clock on, what the process in a slot allocates and
    /// frees: what its windows will have left behind, nobody can tell. Nobody sees its calls return, either.
    pub fn no_longer_counts(&mut self, slot: Slot, since_ns: u64, drain: &mut Drain) {
        self.tracker.no_longer_counts(slot, since_ns);
        self.poll(drain);
        self.look(drain);
        let calls = self.tracker.calls_of_process(slot);
        self.close(&calls, slot, drain, Some(WindowEnd::StillOpen));
        let number = self.number(slot);
        self.waiting.remove(&number);
        let known = self.keys.len();
        self.keys.retain(|_, key| key.process != number);
        self.uncounted += (known - self.keys.len()) as u64;
    }

    fn add(&mut self, finished: Vec<WindowRecord>) {
        // Without allocations there is nothing to survive.
        let waits = |record: &&WindowRecord| record.binding != Binding::None;
        for record in finished.iter().filter(waits) {
            let waiting = self.waiting.entry(record.process).or_default();
            waiting.push(OpenSpan {
                window: record.window,
                opened_ns: record.opened_ns,
                closed_ns: Some(record.closed_ns),
            });
            if !record.binding.is_bound() {
                self.not_bound.add(record.process, record.window.window());
            }
            // What is still open has left nothing behind yet.
            if record.binding.is_bound() && record.end != WindowEnd::StillOpen {
                let id = record.window.window();
                self.keys.insert(id, key(record));
                self.fresh.push(id);
            }
        }
        self.news.finished.extend(finished);
    }

    /// Looks at what is left of windows that have closed since the last look, and of those whose grace is
    /// over.
    fn look(&mut self, drain: &Drain) {
        let began = Instant::now();
        let survived = self.past_grace(drain);
        let fresh = std::mem::take(&mut self.fresh);
        if self.by_stack && !(fresh.is_empty() && survived.is_empty()) {
            let mut marks = Marks::default();
            fresh.iter().for_each(|id| marks.add(*id, RETAINED));
            survived.iter().for_each(|id| marks.add(*id, SURVIVED));
            self.news
                .left_behind
                .extend(left_behind(&marks, &self.keys, drain));
        }
        for id in survived {
            self.keys.remove(&id);
        }
        self.next_look = Instant::now() + LOOK.max(REST * began.elapsed());
    }

    /// The bound windows whose grace is over, and whose survivors can be told.
    fn past_grace(&mut self, drain: &Drain) -> Vec<WindowId> {
        let now_ns = clock::now();
        let mut over = Vec::new();
        for waiting in self.waiting.values_mut() {
            let survived: HashSet<WindowNumber> = past_grace(waiting, now_ns, self.grace)
                .into_iter()
                .collect();
            waiting.retain(|span| !survived.contains(&span.window));
            over.extend(survived.into_iter().map(WindowNumber::window));
        }
        over.retain(|id| {
            let Some(key) = self.keys.get(id) else {
                return false;
            };
            let Some(state) = drain.window(*id) else {
                self.forgotten += 1;
                self.keys.remove(id);
                return false;
            };
            self.news.survivors.push(Survived {
                window: key.window,
                route: key.route.clone(),
                amount: Amount::outstanding(&state.amounts),
            });
            true
        });
        over
    }

    /// The finished windows that nobody was told of.
    pub fn untold(&mut self) -> &[WindowRecord] {
        let told = std::mem::replace(&mut self.told, self.news.finished.len());
        self.news.finished.get(told..).unwrap_or_default()
    }

    /// What is new since the last time.
    pub fn take(&mut self) -> News {
        self.told = 0;
        std::mem::take(&mut self.news)
    }

    /// What is missing of windows.
    pub const fn missing(&self) -> [(Counter, u64); 5] {
        [
            (Counter::SurvivorsUnknown, self.forgotten),
            (Counter::SurvivorsUncounted, self.uncounted),
            (Counter::WindowsFull, self.tracker.crowded_out()),
            (Counter::NotHttp, self.tracker.not_http()),
            (Counter::RoutesFull, self.tracker.overflowed()),
        ]
    }

    /// What the process in a slot has allocated in no single window.
    pub fn unbound(&self, slot: Slot, drain: &Drain) -> ProcessUnbound {
        let process = drain.process_windows(slot);
        let of = |amounts: &residue_ebpf::abi::window::Amounts| Unbound {
            allocated: Amount::allocated(amounts),
            outstanding: Amount::outstanding(amounts),
        };
        ProcessUnbound {
            process: self.number(slot),
            background: of(&process.background),
            ambiguous: of(&process.ambiguous),
        }
    }

    /// What blocks the process in a slot has outstanding that are not known to be a single request's, bytes. Those of
    /// windows that are open are among them: whether such a window is bound is not known before it is over, and what
    /// it has allocated by then would come too late for the estimates.
    pub fn not_bound_bytes(&mut self, slot: Slot, drain: &Drain) -> u64 {
        let bytes = |window: &WindowState| Amount::outstanding(&window.amounts).bytes;
        let open = self.tracker.of_process(slot).into_iter();
        let open = open.filter_map(|id| drain.window(id));
        // A call is always bound.
        let open = open.filter(|window| window.source == 0);
        let open: u64 = open.map(|window| bytes(&window)).sum();
        let look = |id| drain.window(id).as_ref().map(bytes);
        let number = self.number(slot);
        let over = self.not_bound.outstanding(number, look);
        let unbound = self.unbound(slot, drain);
        let no_windows = unbound.background.outstanding.bytes + unbound.ambiguous.outstanding.bytes;
        no_windows + open + over
    }

    /// Takes note of a process that has an io_uring. Returns whether that is new.
    pub fn has_new_ring(&mut self, slot: Slot, drain: &Drain) -> bool {
        drain.set_has_ring(slot);
        self.rings.insert(slot)
    }

    /// The protocols that the process in a slot speaks and residue does not read; each once.
    pub fn new_protocols(&mut self, slot: Slot, drain: &Drain) -> impl Iterator<Item = Unread> {
        let speaks = drain.process_windows(slot).speaks;
        let told = self.spoken.entry(slot).or_default();
        let new = speaks & !*told;
        *told |= speaks;
        let all = [(SPEAKS_HTTP2, Unread::Http2), (SPEAKS_TLS, Unread::Tls)];
        let new = all
            .into_iter()
            .filter(move |(protocol, _)| new & protocol != 0);
        new.map(|(_, unread)| unread)
    }
}

const RETAINED: u8 = 1;
const SURVIVED: u8 = 2;

/// Which windows are looked for, by their place.
struct Marks(Vec<(WindowId, u8)>);

impl Default for Marks {
    fn default() -> Self {
        Self(vec![(WindowId(0), 0); WINDOWS as usize])
    }
}

impl Marks {
    fn add(&mut self, window: WindowId, stage: u8) {
        let (id, stages) = &mut self.0[(window.0 % WINDOWS) as usize];
        if *id != window {
            (*id, *stages) = (window, 0);
        }
        *stages |= stage;
    }

    fn of(&self, window: WindowId) -> u8 {
        let (id, stages) = self.0[(window.0 % WINDOWS) as usize];
        if id == window { stages } else { 0 }
    }
}

fn left_behind(
    marks: &Marks,
    keys: &HashMap<WindowId, WindowKey>,
    drain: &Drain,
) -> Vec<LeftBehind> {
    let mut by_window: HashMap<(WindowId, StackId), Amount> = HashMap::new();
    drain.blocks_of_windows(|window, stack, bytes| {
        if marks.of(window) != 0 {
            let amount = by_window.entry((window, stack)).or_default();
            amount.add(Amount { bytes, objects: 1 });
        }
    });
    let mut sums: HashMap<(ProcessNumber, &Route, Option<u16>, Stage, StackId), Amount> =
        HashMap::new();
    for ((window, stack), amount) in by_window {
        let Some(key) = keys.get(&window) else {
            continue;
        };
        for (mark, stage) in [(RETAINED, Stage::Retained), (SURVIVED, Stage::Survivors)] {
            if marks.of(window) & mark != 0 {
                let sum = (key.process, &key.route, key.status, stage, stack);
                sums.entry(sum).or_default().add(amount);
            }
        }
    }
    let sums = sums.into_iter();
    sums.map(
        |((process, route, status, stage, stack), amount)| LeftBehind {
            process,
            route: route.clone(),
            status,
            stage,
            stack,
            amount,
        },
    )
    .collect()
}

fn key(record: &WindowRecord) -> WindowKey {
    WindowKey {
        window: record.window,
        process: record.process,
        route: record.route.clone(),
        status: record.status,
    }
}
