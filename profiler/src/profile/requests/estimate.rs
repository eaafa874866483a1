//! Estimates for requests that no allocation could be bound to. The estimates come from how much
//! the memory grew that belongs to no single request.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::capture::Capture;
use crate::estimate::{self, Interval, MIN_REQUESTS, RouteEstimate};
use crate::ids::ProcessNumber;
use crate::requests::record::{MemoryAt, WindowRecord};
use crate::requests::route::Route;
use crate::{
    estimate::EstimatedFrom,
    requests::table::{RouteTable, RowEstimate},
};

/// The most intervals that the estimate tells apart: enough for three times the largest number of
/// routes. In a longer recording, several intervals are joined into one.
const MAX_INTERVALS: usize = 300;

/// Why a route that shares its column with others has no estimate.
const TOO_FEW: &str = "its requests are too few among those of the others";
/// Why a route has no estimate whose requests all ended outside of whole intervals.
const NOT_SEEN: &str = "none of its requests ended in a whole interval";
/// Why a route has no estimate whose requests came in too short a time.
const AT_ONCE: &str =
    "its requests came within too short a part of the recording: record while they come again";
/// Why a route has no estimate whose requests cannot be told from the passing of time.
const STEADY: &str = "its requests came as evenly as time";

/// Fills in the estimates of routes with requests that were not bound.
pub(super) fn fill_in(capture: &Capture, table: &mut RouteTable) {
    // One whose probes were taken out is among these: its blocks were not counted to the end.
    let memory = capture.windows.memory.iter();
    let uncounted = memory.filter(|memory| memory.unbound_bytes.is_none());
    let uncounted: HashSet<ProcessNumber> = uncounted.map(|memory| memory.process).collect();
    let records = capture.windows.records.iter().map(|(record, _)| record);
    let (resident, complete): (Vec<_>, Vec<_>) =
        records.partition(|record| uncounted.contains(&record.process));
    // What bound requests leave is not among the blocks that are not bound; the resident set has it like all else.
    let blocks = complete.into_iter().filter(is_unbound).collect();
    let groups = [
        (EstimatedFrom::Blocks, blocks),
        (EstimatedFrom::ResidentSet, resident),
    ];
    let mut known: HashMap<Route, (u64, RowEstimate)> = HashMap::new();
    for (from, records) in groups {
        for (route, requests, estimate) in estimates(capture, &records, from) {
            let is_told = |it: &RowEstimate| matches!(it, RowEstimate::Told { .. });
            let is_better = |known: &(u64, RowEstimate)| {
                (is_told(&estimate), requests) > (is_told(&known.1), known.0)
            };
            if known.get(&route).is_none_or(is_better) {
                known.insert(route, (requests, estimate));
            }
        }
    }
    let known = known.into_iter();
    table.estimate(
        &known
            .map(|(route, (_, estimate))| (route, estimate))
            .collect(),
    );
}

fn is_unbound(record: &&WindowRecord) -> bool {
    !record.binding.is_bound()
}

/// By route with requests that were not bound, how many of those there are, and what one leaves.
fn estimates(
    capture: &Capture,
    records: &[&WindowRecord],
    from: EstimatedFrom,
) -> Vec<(Route, u64, RowEstimate)> {
    let routes = ranked(records);
    let processes: HashSet<ProcessNumber> = records.iter().map(|record| record.process).collect();
    let levels = levels(&capture.windows.memory, &processes, from);
    let intervals = levels.len().saturating_sub(1);
    let columns = Columns::new(&routes, estimate::told_apart(intervals, routes.len()));
    let series = series(&levels, records, &columns);
    let estimate = estimate::by_route(&series, from);
    // The resident set has what bound requests left as well, and they are counted there.
    let bound = match from {
        EstimatedFrom::Blocks => counted(bound(capture, &processes)),
        EstimatedFrom::ResidentSet => HashMap::new(),
    };
    let of_route = |route: &Route, requests: u64| match &estimate {
        Ok(estimate) => {
            let bound = bound.get(route).copied().unwrap_or_default();
            with_bound(
                columns.explain(route, &estimate.routes, from),
                requests,
                bound,
            )
        }
        Err(error) => RowEstimate::Missing(error.to_string()),
    };
    let unbound = counted(records.iter().copied().filter(is_unbound)).into_iter();
    unbound
        .map(|(route, requests)| {
            let estimate = of_route(&route, requests);
            (route, requests, estimate)
        })
        .collect()
}

fn bound<'a>(
    capture: &'a Capture,
    processes: &HashSet<ProcessNumber>,
) -> impl Iterator<Item = &'a WindowRecord> {
    let records = capture.windows.records.iter().map(|(record, _)| record);
    records.filter(|record| record.binding.is_bound() && processes.contains(&record.process))
}

/// What the unbound requests of a route would leave if all of the memory were theirs that is bound to no request. The
/// route's bound requests may have left some of it, too: what a thread did that was taken for one with work of its own.
/// So as large a part of it may be theirs as they are of all. From half on, that says nothing.
fn with_bound(estimate: RowEstimate, unbound: u64, bound: u64) -> RowEstimate {
    let part = bound as f64 / (bound + unbound) as f64;
    match estimate {
        RowEstimate::Told { .. } if part >= 0.5 => RowEstimate::Missing(format!(
            "{bound} of its {} requests are bound, and may have left some of the memory all the same that is not",
            bound + unbound
        )),
        RowEstimate::Told {
            bytes_per_request,
            standard_error,
            from,
        } => RowEstimate::Told {
            bytes_per_request,
            standard_error: standard_error.hypot(part * bytes_per_request),
            from,
        },
        missing => missing,
    }
}

/// Lists the routes, with the most requests first.
fn ranked(records: &[&WindowRecord]) -> Vec<Route> {
    let mut routes: Vec<_> = counted(records.iter().copied()).into_iter().collect();
    routes.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    routes.into_iter().map(|(route, _)| route).collect()
}

/// Counts the requests of each route.
fn counted<'a>(records: impl Iterator<Item = &'a WindowRecord>) -> HashMap<Route, u64> {
    let mut requests = HashMap::new();
    for record in records {
        *requests.entry(record.route.row()).or_default() += 1;
    }
    requests
}

/// The memory of all processes together at one moment.
#[derive(Clone, Copy)]
struct Level {
    /// Nanoseconds since 1970 UTC.
    at_ns: u64,
    bytes: i128,
}

/// Finds the levels at which intervals begin and end, from the first moment at which the recorder had looked at all of
/// these processes. The looks that are left over at the end make no whole interval. Looks at memory that has not changed
/// count too: if intervals ended only where a request left something behind, then every interval would seem to leave
/// something.
fn levels(
    memory: &[MemoryAt],
    processes: &HashSet<ProcessNumber>,
    from: EstimatedFrom,
) -> Vec<Level> {
    let of_processes = memory
        .iter()
        .filter(|memory| processes.contains(&memory.process));
    let mut now: HashMap<ProcessNumber, u64> = HashMap::new();
    let mut levels: Vec<Level> = Vec::new();
    for memory in of_processes {
        let bytes = match from {
            EstimatedFrom::Blocks => memory.unbound_bytes,
            EstimatedFrom::ResidentSet => memory.resident_bytes,
        };
        now.extend(bytes.map(|bytes| (memory.process, bytes)));
        if now.len() < processes.len() {
            continue;
        }
        let at_ns = memory.at_ns;
        levels.pop_if(|level| level.at_ns == at_ns);
        let bytes = now.values().map(|bytes| i128::from(*bytes)).sum();
        levels.push(Level { at_ns, bytes });
    }
    let levels = looked_at_as_well(&levels);
    let joined = levels.len().div_ceil(MAX_INTERVALS).max(1);
    levels.into_iter().step_by(joined).collect()
}

/// Adds the looks that the capture does not hold, because the memory had not changed.
fn looked_at_as_well(levels: &[Level]) -> Vec<Level> {
    let span = levels.first().zip(levels.last());
    let span_ns = span.map_or(0, |(first, last)| last.at_ns.saturating_sub(first.at_ns));
    let look_ns = MemoryAt::EVERY.as_nanos() as u64;
    let every_ns = look_ns.max(span_ns / MAX_INTERVALS as u64);
    let between = |pair: &[Level]| {
        let [from, to] = [&pair[0], &pair[1]];
        let looks = match from.bytes == to.bytes {
            true => to.at_ns.saturating_sub(from.at_ns) / every_ns,
            false => 0,
        };
        let bytes = from.bytes;
        let (first_ns, last_ns) = (from.at_ns, to.at_ns);
        let at = (0..looks.max(1)).map(move |look| first_ns + look * every_ns);
        at.filter(move |at_ns| *at_ns < last_ns)
            .map(move |at_ns| Level { at_ns, bytes })
    };
    let mut all: Vec<_> = levels.windows(2).flat_map(between).collect();
    all.extend(levels.last().copied());
    all
}

/// Counts the growth and the requests of each interval, for all processes together.
fn series(levels: &[Level], records: &[&WindowRecord], columns: &Columns<'_>) -> Vec<Interval> {
    let mut series: Vec<_> = levels
        .windows(2)
        .map(|pair| Interval {
            length_ns: pair[1].at_ns.saturating_sub(pair[0].at_ns),
            growth: (pair[1].bytes - pair[0].bytes).clamp(i64::MIN.into(), i64::MAX.into()) as i64,
            requests: vec![0; columns.count()],
        })
        .collect();
    for record in records {
        let after = levels.partition_point(|level| level.at_ns < answered_ns(record));
        let interval = after.checked_sub(1).and_then(|index| series.get_mut(index));
        if let Some(interval) = interval {
            interval.requests[columns.of(&record.route.row())] += 1;
        }
    }
    series
}

/// Tells when a request was answered. What the request leaves behind was allocated before its last
/// byte was sent. The recorder may see the end of the window much later.
fn answered_ns(record: &WindowRecord) -> u64 {
    let answered = record
        .duration_ns
        .map(|duration| record.opened_ns.saturating_add(duration));
    answered.map_or(record.closed_ns, |answered| answered.min(record.closed_ns))
}

/// The column in which each route counts its requests. The first routes have a column each, the
/// others share one.
struct Columns<'a> {
    routes: &'a [Route],
    of: HashMap<&'a Route, usize>,
    told_apart: usize,
}

impl<'a> Columns<'a> {
    fn new(routes: &'a [Route], told_apart: usize) -> Self {
        let columns = routes.iter().enumerate();
        let of = columns.map(|(index, route)| (route, index.min(told_apart)));
        Self {
            routes,
            of: of.collect(),
            told_apart,
        }
    }

    fn count(&self) -> usize {
        self.routes.len().min(self.told_apart + 1)
    }

    fn of(&self, route: &Route) -> usize {
        self.of[route]
    }

    fn explain(
        &self,
        route: &Route,
        estimates: &[RouteEstimate],
        from: EstimatedFrom,
    ) -> RowEstimate {
        let column = self.of(route);
        let missing = |why: &str| RowEstimate::Missing(why.to_owned());
        match &estimates[column] {
            _ if column >= self.told_apart => missing(TOO_FEW),
            RouteEstimate::Told {
                bytes,
                standard_error,
            } => RowEstimate::Told {
                bytes_per_request: *bytes,
                standard_error: *standard_error,
                from,
            },
            RouteEstimate::TiedTo(others) if others.is_empty() => missing(STEADY),
            RouteEstimate::TiedTo(others) => missing(&self.tied_to(others)),
            RouteEstimate::TooFew(requests) => missing(&format!(
                "{requests} requests are too few to tell what one leaves behind, which takes {MIN_REQUESTS}: record longer"
            )),
            RouteEstimate::AtOnce => missing(AT_ONCE),
            RouteEstimate::NotSeen => missing(NOT_SEEN),
        }
    }

    fn tied_to(&self, others: &[usize]) -> String {
        let names: Vec<_> = others.iter().map(|column| self.name(*column)).collect();
        let names = names.join(", ");
        format!("its requests came along with, or in the stead of, {names}")
    }

    fn name(&self, column: usize) -> String {
        match self.routes.get(column) {
            Some(route) if column < self.told_apart => route.to_string(),
            _ => "those with few requests".to_owned(),
        }
    }
}
