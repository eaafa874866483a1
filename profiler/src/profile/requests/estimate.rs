//! Estimates for requests that no allocation could be bound to: from how the memory grew that is of no
//! single one of them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::capture::Capture;
use crate::window::estimate::{self, Interval, MIN_REQUESTS, RouteEstimate};
use crate::window::record::{MemoryAt, WindowRecord};
use crate::window::route::Route;
use crate::window::table::{EstimatedFrom, RouteTable, RowEstimate};

/// Intervals that are told apart: enough for the most routes that can be, three times over. Of a longer
/// recording several are joined.
const MAX_INTERVALS: usize = 300;

/// Why a route has no estimate that shares a column with others.
const TOO_FEW: &str = "its requests are too few among those of the others";
/// As it says.
const TOGETHER: &str = "its requests arrived together with others";
/// As it says.
const NOT_SEEN: &str = "none of its requests ended in a whole interval";
/// As it says.
const AT_ONCE: &str =
    "its requests came within too short a part of the recording: record while they come again";
/// As it says.
const STEADY: &str = "its requests came as evenly as time";

/// Fills in the estimates of routes with requests that were not bound.
pub(super) fn fill_in(capture: &Capture, table: &mut RouteTable) {
    let records = || capture.windows.records.iter().map(|(record, _)| record);
    let by_threads: HashSet<u16> = records()
        .filter(|it| it.binding.is_bound())
        .map(|it| it.process)
        .collect();
    let behind_others = records().filter(|it| it.window >> 32 != 0);
    let shared: HashSet<u32> = behind_others.map(|it| it.window as u32).collect();
    // What such requests allocated is theirs together where a thread serves all of them, and in none of the memory
    // that estimates are made from.
    let is_apart = |it: &&WindowRecord| {
        by_threads.contains(&it.process) && shared.contains(&(it.window as u32))
    };
    let unbound = records().filter(|it| !it.binding.is_bound());
    let (apart, unbound): (Vec<_>, Vec<_>) = unbound.partition(is_apart);
    let missing = |it: &WindowRecord| (it.route.row(), RowEstimate::Missing(TOGETHER.to_owned()));
    let mut known: HashMap<_, _> = apart.into_iter().map(missing).collect();
    if !unbound.is_empty() {
        known.extend(estimates(capture, &unbound));
    }
    table.estimate(&known);
}

fn estimates(capture: &Capture, unbound: &[&WindowRecord]) -> HashMap<Route, RowEstimate> {
    let routes = ranked(unbound);
    let processes: HashSet<u16> = unbound.iter().map(|it| it.process).collect();
    let (levels, from) = levels(&capture.windows.memory, &processes);
    let intervals = levels.len().saturating_sub(1);
    let columns = Columns::new(&routes, estimate::told_apart(intervals, routes.len()));
    let series = series(&levels, unbound, &columns);
    let estimate = estimate::by_route(&series, from);
    let [by_route, bound_by_route] = [
        counted(unbound.iter().copied()),
        counted(bound(capture, &processes)),
    ];
    let of_route = |route: &Route| match &estimate {
        Ok(estimate) => {
            let bound = bound_by_route.get(route).copied().unwrap_or_default();
            let of_all = columns.explain(route, &estimate.routes, from);
            with_bound(of_all, by_route[route], bound)
        }
        Err(error) => RowEstimate::Missing(error.to_string()),
    };
    let estimates = routes.iter().map(|route| (route.clone(), of_route(route)));
    estimates.collect()
}

fn bound<'a>(
    capture: &'a Capture,
    processes: &HashSet<u16>,
) -> impl Iterator<Item = &'a WindowRecord> {
    let records = capture.windows.records.iter().map(|(record, _)| record);
    records.filter(|it| it.binding.is_bound() && processes.contains(&it.process))
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

/// Those with the most requests first.
fn ranked(unbound: &[&WindowRecord]) -> Vec<Route> {
    let mut routes: Vec<_> = counted(unbound.iter().copied()).into_iter().collect();
    routes.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    routes.into_iter().map(|(route, _)| route).collect()
}

/// How many requests each route has.
fn counted<'a>(records: impl Iterator<Item = &'a WindowRecord>) -> HashMap<Route, u64> {
    let mut requests = HashMap::new();
    for record in records {
        *requests.entry(record.route.row()).or_default() += 1;
    }
    requests
}

/// Memory of all processes together at one moment.
#[derive(Clone, Copy)]
struct Level {
    /// Nanoseconds since 1970 UTC.
    at_ns: u64,
    bytes: i128,
}

/// Where intervals meet, from the first moment at which all of these processes were looked at. What the last
/// looks leave over is no whole interval. Where memory stays as it is, it was looked at all the same: intervals that
/// end only where something is left behind would say that all of them leave something.
fn levels(memory: &[MemoryAt], processes: &HashSet<u16>) -> (Vec<Level>, EstimatedFrom) {
    let of_processes = memory.iter().filter(|it| processes.contains(&it.process));
    let from = match of_processes.clone().all(|it| it.unbound_bytes.is_some()) {
        true => EstimatedFrom::Blocks,
        false => EstimatedFrom::ResidentSet,
    };
    let mut now: HashMap<u16, u64> = HashMap::new();
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
        levels.pop_if(|it| it.at_ns == at_ns);
        let bytes = now.values().map(|bytes| i128::from(*bytes)).sum();
        levels.push(Level { at_ns, bytes });
    }
    let levels = looked_at_as_well(&levels);
    let joined = levels.len().div_ceil(MAX_INTERVALS).max(1);
    (levels.into_iter().step_by(joined).collect(), from)
}

/// With the looks that are not stored, since nothing had changed.
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
    apart(all, every_ns / 2)
}

/// Without looks that came too soon after the one before: what is by time would be said by whatever happened in a moment.
fn apart(mut levels: Vec<Level>, least_ns: u64) -> Vec<Level> {
    let mut last_ns = None;
    levels.retain(|it| {
        let is_apart = last_ns.is_none_or(|last| it.at_ns.saturating_sub(last) >= least_ns);
        if is_apart {
            last_ns = Some(it.at_ns);
        }
        is_apart
    });
    levels
}

/// Growth and requests of each interval, of all processes together that have unbound requests.
fn series(levels: &[Level], unbound: &[&WindowRecord], columns: &Columns<'_>) -> Vec<Interval> {
    let mut series: Vec<_> = levels
        .windows(2)
        .map(|pair| Interval {
            length_ns: pair[1].at_ns.saturating_sub(pair[0].at_ns),
            growth: (pair[1].bytes - pair[0].bytes).clamp(i64::MIN.into(), i64::MAX.into()) as i64,
            requests: vec![0; columns.count()],
        })
        .collect();
    for record in unbound {
        let after = levels.partition_point(|it| it.at_ns < answered_ns(record));
        let interval = after.checked_sub(1).and_then(|it| series.get_mut(it));
        if let Some(interval) = interval {
            interval.requests[columns.of(&record.route.row())] += 1;
        }
    }
    series
}

/// What a request leaves behind was allocated before its last byte was sent; that its window is over may be
/// known much later.
fn answered_ns(record: &WindowRecord) -> u64 {
    let answered = record
        .duration_ns
        .map(|it| record.opened_ns.saturating_add(it));
    answered.map_or(record.closed_ns, |it| it.min(record.closed_ns))
}

/// Which column of requests each route counts in: the first ones have their own, the others share one.
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
            RouteEstimate::TiedTo(others) => {
                let names: Vec<_> = others.iter().map(|it| self.name(*it)).collect();
                let names = names.join(", ");
                missing(&format!(
                    "its requests came along with, or in the stead of, {names}"
                ))
            }
            RouteEstimate::TooFew(requests) => missing(&format!(
                "{requests} requests are too few to tell what one leaves behind, which takes {MIN_REQUESTS}: record longer"
            )),
            RouteEstimate::AtOnce => missing(AT_ONCE),
            RouteEstimate::NotSeen => missing(NOT_SEEN),
        }
    }

    fn name(&self, column: usize) -> String {
        match self.routes.get(column) {
            Some(route) if column < self.told_apart => route.to_string(),
            _ => "those with few requests".to_owned(),
        }
    }
}
