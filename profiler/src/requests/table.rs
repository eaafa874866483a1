//! One row for each route: what the requests of the route took and left behind.
//!
//! The table adds up bytes only where they surely belong to the windows. Memory that belongs to no
//! window, or to one of several windows, has a row of its own. The table never splits such memory
//! among routes.

mod quantiles;

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::growth::{Evidence, Growth, Known};
use super::record::{Amount, Binding, Unbound, WindowEnd, WindowRecord};
use super::route::Route;
use crate::estimate::EstimatedFrom;
use quantiles::Quantiles;

/// The complete table. In the JSON form, names and meanings stay as they are, and new names may
/// come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteTable {
    /// The routes, with those first whose requests together left the most behind.
    pub routes: Vec<RouteRow>,
    /// Allocations of no window. `None` where nobody counted them.
    pub background: Option<Unbound>,
    /// Allocations of one of several windows. `None` where nobody counted them.
    pub ambiguous: Option<Unbound>,
}

/// What the requests of one route did. Durations are in nanoseconds, sizes in bytes. `None` is a
/// figure that no request has. Percentiles are off by at most 0.4 %.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteRow {
    /// The route, such as `GET /users/{id}` or `other`.
    pub route: Route,
    /// The number of windows.
    pub requests: u64,
    /// The median duration of the requests with a response.
    pub duration_p50: Option<u64>,
    /// The 95th percentile of the duration of the requests with a response.
    pub duration_p95: Option<u64>,
    /// The median growth of the process's RSS.
    pub delta_p50: Option<i64>,
    /// The 95th percentile of the growth of the process's RSS.
    pub delta_p95: Option<i64>,
    /// The largest growth of the process's RSS, exact.
    pub delta_max: Option<i64>,
    /// The mean over the closed requests that allocations could be bound to.
    pub alloc_bytes_per_request: Option<f64>,
    /// The mean over the closed requests that allocations could be bound to.
    pub retained_bytes_per_request: Option<f64>,
    /// The mean over those of these requests whose grace is over.
    pub survivor_bytes_per_request: Option<f64>,
    /// The least sure binding of any request: `exact`, `lineage`, `single`, `candidates` or `none`.
    pub confidence: &'static str,
    /// How many requests have which binding.
    pub confidences: Confidences,
    /// The memory that the means count, `blocks`. The means include none of Python's small objects,
    /// mappings and other heaps. `None` where nothing was bound.
    pub scope: Option<&'static str>,
    /// Why the route is suspected of leaving more and more behind, if it is.
    pub suspected: Option<Evidence>,
    /// What the growth of memory tells, where allocations could not be bound.
    #[serde(flatten)]
    pub estimate: RowEstimate,
    #[serde(skip)]
    left_behind: u64,
}

/// An estimate of what a request leaves behind. The estimate comes from the growth of memory that
/// belongs to no single request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(into = "EstimateFields")]
pub enum RowEstimate {
    /// All requests were bound, or nobody asked for an estimate.
    #[default]
    None,
    /// An estimate that [`estimate`](crate::estimate) made.
    Told {
        /// Bytes that a request leaves behind.
        bytes_per_request: f64,
        /// How far the estimate is typically off, in bytes.
        standard_error: f64,
        /// The memory whose growth the estimate is made from.
        from: EstimatedFrom,
    },
    /// Why there is no estimate, as a clause.
    Missing(String),
}

#[derive(Default, Serialize)]
struct EstimateFields {
    estimated_bytes_per_request: Option<f64>,
    estimate_standard_error: Option<f64>,
    estimated_from: Option<EstimatedFrom>,
    no_estimate: Option<String>,
}

impl From<RowEstimate> for EstimateFields {
    fn from(estimate: RowEstimate) -> Self {
        // Nobody can use more digits, and further digits would differ from machine to machine.
        let rounded = |bytes: f64| Some((bytes * 100.0).round() / 100.0);
        match estimate {
            RowEstimate::None => Self::default(),
            RowEstimate::Told {
                bytes_per_request,
                standard_error,
                from,
            } => Self {
                estimated_bytes_per_request: rounded(bytes_per_request),
                estimate_standard_error: rounded(standard_error),
                estimated_from: Some(from),
                ..Self::default()
            },
            RowEstimate::Missing(why) => Self {
                no_estimate: Some(why),
                ..Self::default()
            },
        }
    }
}

/// The number of requests by binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confidences {
    /// [`Binding::Exact`].
    pub exact: u64,
    /// [`Binding::Lineage`].
    pub lineage: u64,
    /// [`Binding::Single`].
    pub single: u64,
    /// [`Binding::Candidates`].
    pub candidates: u64,
    /// [`Binding::None`].
    pub none: u64,
}

/// Builds a table from windows as they finish. The size of the builder depends on the number of
/// routes, and not on the number of windows.
#[derive(Debug, Default)]
pub struct TableBuilder {
    rows: HashMap<Route, Row>,
}

#[derive(Debug, Default)]
struct Row {
    requests: u64,
    durations: Quantiles,
    deltas: Quantiles,
    confidences: Confidences,
    /// Closed windows to which allocations could be bound.
    bound: u64,
    allocated: Amount,
    retained: Amount,
    /// Windows whose grace is over.
    past_grace: u64,
    survivors: Amount,
    growth: Growth,
}

impl TableBuilder {
    /// Counts a window.
    pub fn add(&mut self, record: &WindowRecord) {
        let row = self.rows.entry(record.route.row()).or_default();
        row.requests += 1;
        if let Some(duration) = record.duration_ns {
            row.durations
                .add(i64::try_from(duration).unwrap_or(i64::MAX));
        }
        if let Some(delta) = record.delta() {
            row.deltas.add(delta);
        }
        row.confidences.add(record.binding);
        if record.binding.is_bound() && record.end != WindowEnd::StillOpen {
            row.bound += 1;
            row.allocated.add(record.allocated);
            row.retained.add(record.retained);
            row.growth.closed(record.retained.bytes);
        }
    }

    /// Counts what survived of one window when its grace was over. The caller calls this once for
    /// each bound window, even if nothing of the window survived.
    pub fn add_survivors(&mut self, route: &Route, survived: Amount) {
        let row = self.rows.entry(route.row()).or_default();
        row.past_grace += 1;
        row.survivors.add(survived);
        row.growth.past_grace(survived.bytes);
    }

    /// Tells what is known about a route so far.
    #[must_use]
    pub fn known(&self, route: &Route) -> Known {
        let row = self.rows.get(&route.row());
        row.map(|row| row.growth.known()).unwrap_or_default()
    }

    /// Builds the table so far, with what could not be bound, if anybody counted that.
    #[must_use]
    pub fn build(&self, background: Option<Unbound>, ambiguous: Option<Unbound>) -> RouteTable {
        let rows = self.rows.iter().map(|(route, row)| row.build(route));
        let mut routes: Vec<_> = rows.collect();
        sort(&mut routes);
        RouteTable {
            routes,
            background,
            ambiguous,
        }
    }
}

impl RouteTable {
    /// Fills in estimates, and then sorts the routes again, because estimates count as left behind
    /// too.
    pub fn estimate(&mut self, estimates: &HashMap<Route, RowEstimate>) {
        for row in &mut self.routes {
            let Some(estimate) = estimates.get(&row.route) else {
                continue;
            };
            if let RowEstimate::Told {
                bytes_per_request, ..
            } = estimate
            {
                let unbound = row.confidences.candidates + row.confidences.none;
                let left = (bytes_per_request * unbound as f64) as u64;
                row.left_behind = row.left_behind.saturating_add(left);
            }
            row.estimate = estimate.clone();
        }
        sort(&mut self.routes);
    }
}

/// Sorts the routes. Those that left the most behind come first.
fn sort(routes: &mut [RouteRow]) {
    let key = |row: &RouteRow| (Reverse(row.left_behind), Reverse(row.requests));
    routes.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.route.cmp(&b.route)));
}

impl Row {
    fn build(&self, route: &Route) -> RouteRow {
        let unsigned = |value: i64| value.unsigned_abs();
        RouteRow {
            route: route.clone(),
            requests: self.requests,
            duration_p50: self.durations.at(50).map(unsigned),
            duration_p95: self.durations.at(95).map(unsigned),
            delta_p50: self.deltas.at(50),
            delta_p95: self.deltas.at(95),
            delta_max: self.deltas.max(),
            alloc_bytes_per_request: mean(self.allocated.bytes, self.bound),
            retained_bytes_per_request: mean(self.retained.bytes, self.bound),
            survivor_bytes_per_request: mean(self.survivors.bytes, self.past_grace),
            confidence: self.confidences.least().name(),
            confidences: self.confidences,
            scope: (self.bound > 0).then_some("blocks"),
            suspected: self.growth.known().evidence,
            estimate: RowEstimate::None,
            left_behind: match self.past_grace {
                0 => self.retained.bytes,
                _ => self.survivors.bytes,
            },
        }
    }
}

fn mean(sum: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum as f64 / count as f64)
}

impl Confidences {
    fn add(&mut self, binding: Binding) {
        match binding {
            Binding::Exact => self.exact += 1,
            Binding::Lineage => self.lineage += 1,
            Binding::Single => self.single += 1,
            Binding::Candidates(_) => self.candidates += 1,
            Binding::None => self.none += 1,
        }
    }

    /// Returns the least sure binding. For a row without requests, nothing is known.
    fn least(self) -> Binding {
        let Self {
            exact,
            lineage,
            single,
            candidates,
            none,
        } = self;
        match (none, candidates, single, lineage, exact) {
            (0, 0, 0, 0, 1..) => Binding::Exact,
            (0, 0, 0, 1.., _) => Binding::Lineage,
            (0, 0, 1.., ..) => Binding::Single,
            // The name does not depend on how many candidates there are.
            (0, 1.., ..) => Binding::Candidates(0),
            _ => Binding::None,
        }
    }
}

#[cfg(test)]
mod tests;
