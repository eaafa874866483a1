//! What the requests of each route leave behind, where no allocation could be bound to one.
//!
//! Growth by interval is regressed on the requests by route in the interval, and on its length:
//!
//! ```text
//! growth = background * length + sum of bytes(route) * requests(route) + noise,  bytes(route) >= 0
//! ```
//!
//! Intervals are not of one length. In a longer one there is more of everything, and without its length, requests would
//! be blamed for what comes with time.
//!
//! It is an estimate, and says how far it may be off: an interval of two standard errors on both sides holds the
//! truth 19 times of 20, in every situation that `tests/coverage.rs` simulates, or nothing is told. It is of what
//! requests leave behind regularly: jumps beyond any step of an allocator, such as a cache that was loaded, are kept
//! from distorting it, and what they amount to is reported. Jumps that are not rare are what requests do, and
//! count. Routes that were always requested together cannot be told apart, and are named so.

mod collinear;
mod jackknife;
mod jumps;
mod levels;
mod linear;
mod load;
mod model;

use serde::Serialize;

use thiserror::Error;

use jackknife::Jackknife;
use model::{Model, Series};

/// The memory whose growth an estimate is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EstimatedFrom {
    /// Blocks of the allocator that are bound to no single request.
    Blocks,
    /// All resident memory of the process.
    ResidentSet,
}

/// Routes that can be told apart, at most. With more, those with few requests belong into one `other`.
pub const MAX_ROUTES: usize = 32;
/// Intervals for each number that is estimated, at least: below three, the noise itself is a guess.
const INTERVALS_EACH: usize = 3;
/// Requests of a route, at least, for what one leaves behind to be told.
pub const MIN_REQUESTS: u64 = 20;
/// Moves of memory that tell how large its steps are, at least.
const MIN_MOVES: usize = 4;

/// One interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// How long it was, nanoseconds.
    pub length_ns: u64,
    /// Growth of what is outstanding (or of RSS, which is noisier), bytes.
    pub growth: i64,
    /// Requests that ended in it, by route: the same routes in the same order for all intervals.
    pub requests: Vec<u64>,
}

/// What was made of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// In the order of the requests' counts.
    pub routes: Vec<RouteEstimate>,
    /// Growth in an interval of the mean length without any request, bytes; it may be negative.
    pub background: f64,
    /// Growth over all intervals that neither requests nor the background explain, bytes: single jumps.
    pub unexplained: f64,
}

/// What one request of a route leaves behind, bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteEstimate {
    /// The truth is within two standard errors, 19 times of 20.
    Told {
        /// Not negative. Since no route's may be, it is somewhat high, by up to a third of the standard
        /// error, where others leave nothing.
        bytes: f64,
        /// Half of what it may be off, never zero.
        standard_error: f64,
    },
    /// It has so many requests, which are less than [`MIN_REQUESTS`].
    TooFew(u64),
    /// All of its requests came in too short a part of the recording to see how much estimates vary.
    AtOnce,
    /// Its requests came along with those of these other routes (by their index), or in their stead; or, if
    /// there are none, as evenly as time. What each of them leaves cannot be told.
    TiedTo(Vec<usize>),
    /// There was no request.
    NotSeen,
}

/// Why nothing can be estimated.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EstimateError {
    /// More numbers are asked for than there is data.
    #[error(
        "{intervals} intervals in which memory was looked at are too few for {routes} routes, which take {needed}: \
         record longer"
    )]
    TooFewIntervals {
        /// How many there are.
        intervals: usize,
        /// Routes that were requested.
        routes: usize,
        /// How many it takes.
        needed: usize,
    },
    /// There are more than [`MAX_ROUTES`].
    #[error("{0} routes are too many to be told apart: join those with few requests")]
    TooManyRoutes(usize),
    /// Intervals count different numbers of routes.
    #[error("the intervals do not all count the same routes")]
    Ragged,
}

/// Of so many routes in so many intervals, how many can have counts of their own, where all others are
/// joined into one. Too few intervals for any leave all of them, as far as they may be, for
/// [`by_route`] to say so.
#[must_use]
pub fn told_apart(intervals: usize, routes: usize) -> usize {
    let columns = (intervals / INTERVALS_EACH).saturating_sub(1);
    match columns.min(MAX_ROUTES) {
        columns if routes <= columns => routes,
        0 | 1 => routes.min(MAX_ROUTES - 1),
        columns => columns - 1,
    }
}

/// Estimates what the requests of each route leave behind, from the growth of this memory.
///
/// # Errors
///
/// If the series is too short, or its shape is wrong.
pub fn by_route(series: &[Interval], from: EstimatedFrom) -> Result<Estimate, EstimateError> {
    let routes = series.first().map_or(0, |interval| interval.requests.len());
    if series.iter().any(|it| it.requests.len() != routes) {
        return Err(EstimateError::Ragged);
    }
    if routes > MAX_ROUTES {
        return Err(EstimateError::TooManyRoutes(routes));
    }
    let column = |route: usize| -> Vec<f64> {
        let counts = series
            .iter()
            .map(|interval| interval.requests[route] as f64);
        counts.collect()
    };
    let columns: Vec<_> = (0..routes).map(column).collect();
    let seen = |route: &usize| columns[*route].iter().any(|count| *count > 0.0);
    let seen: Vec<usize> = (0..routes).filter(seen).collect();
    let needed = INTERVALS_EACH * (seen.len() + 1);
    if series.len() < needed {
        return Err(EstimateError::TooFewIntervals {
            intervals: series.len(),
            routes: seen.len(),
            needed,
        });
    }
    let recorded = Recorded {
        series: Series {
            columns: seen.iter().map(|it| columns[*it].clone()).collect(),
            growth: series.iter().map(|it| it.growth as f64).collect(),
            lengths: lengths(series),
        },
        seen,
        from,
    };
    Ok(recorded.estimate(routes))
}

/// In mean lengths.
fn lengths(series: &[Interval]) -> Vec<f64> {
    let all: f64 = series.iter().map(|it| it.length_ns.max(1) as f64).sum();
    let mean = all / series.len() as f64;
    let lengths = series.iter().map(|it| it.length_ns.max(1) as f64 / mean);
    lengths.collect()
}

/// What was counted of the routes that were requested.
struct Recorded {
    /// Which routes those are.
    seen: Vec<usize>,
    series: Series,
    from: EstimatedFrom,
}

impl Recorded {
    fn estimate(&self, routes: usize) -> Estimate {
        let regular = self.without_jumps();
        let ties = collinear::ties(&Model::GROWTH.of(&regular).0);
        let model = match levels::stay(&regular) {
            true => Model::LEVELS,
            false => Model::GROWTH,
        };
        // What is tied takes part in the fit, or its growth would be blamed on the others.
        let solution = model.fit(&regular);
        let jackknife = Jackknife {
            model,
            series: &regular,
            solution: &solution,
        };
        let errors = jackknife.standard_errors();
        let found = (solution, errors);
        let confounded = load::confounded_with_time(&regular);
        let by_load = load::steady(model, &regular, &found, &confounded);
        let is_told_by_load = by_load.is_some();
        let (solution, errors) = by_load.unwrap_or(found);
        let mut estimates = vec![RouteEstimate::NotSeen; routes];
        for (column, tie) in ties.iter().enumerate() {
            let named = |others: &Vec<usize>| others.iter().map(|it| self.seen[*it]).collect();
            let tied_to = tie.as_ref().filter(|_| !is_told_by_load).map(named);
            estimates[self.seen[column]] = match (tied_to, errors[column]) {
                _ if self.requests(column) < MIN_REQUESTS => {
                    RouteEstimate::TooFew(self.requests(column))
                }
                (Some(others), _) => RouteEstimate::TiedTo(others),
                // As evenly as time, but for a few moments.
                (None, None) if confounded[column] => RouteEstimate::TiedTo(Vec::new()),
                (None, None) => RouteEstimate::AtOnce,
                (None, Some(error)) => RouteEstimate::Told {
                    bytes: solution.coefficients[column],
                    standard_error: error.max(self.least_error(column)),
                },
            };
        }
        let (design, growth) = Model::GROWTH.of(&self.series);
        Estimate {
            routes: estimates,
            background: solution.background,
            unexplained: design.residuals(&growth, &solution).iter().sum(),
        }
    }

    /// As if the intervals with single jumps had not been.
    fn without_jumps(&self) -> Series {
        let (design, growth) = Model::GROWTH.of(&self.series);
        let jumps = jumps::single(&design, &growth, largest_step(self.from));
        let kept = (0..growth.len()).filter(|it| !jumps.contains(it));
        self.series.only(&kept.collect::<Vec<_>>())
    }

    fn requests(&self, column: usize) -> u64 {
        self.series.columns[column].iter().sum::<f64>() as u64
    }

    /// Memory that hardly moved while a route was requested does not say in which steps it does: as much as half a
    /// step may be left behind and not be seen yet, or have been left before. Else a byte is the least, since that
    /// is what is counted.
    fn least_error(&self, column: usize) -> f64 {
        let requests = self.series.columns[column]
            .iter()
            .zip(&self.series.growth)
            .filter(|(it, _)| **it > 0.0);
        let moves = requests
            .filter(|(_, growth)| growth.abs() > jitter(self.from))
            .count();
        match moves < MIN_MOVES {
            true => largest_step(self.from) / self.requests(column) as f64,
            false => 0.5,
        }
    }
}

/// Bytes that memory may take at once for what requests leave little by little: heaps of runtimes take blocks of
/// 64 KiB (Ruby's heap pages, Python's pools), and arenas of 1 MiB (Python's, from 3.10 on) from the kernel.
const fn largest_step(from: EstimatedFrom) -> f64 {
    match from {
        EstimatedFrom::Blocks => 65_536.0,
        EstimatedFrom::ResidentSet => 1_048_576.0,
    }
}

/// Bytes by which memory seems to move and does not: of the resident set, up to 32 pages have yet to be added up on
/// each CPU.
const fn jitter(from: EstimatedFrom) -> f64 {
    match from {
        EstimatedFrom::Blocks => 0.0,
        EstimatedFrom::ResidentSet => 65_536.0,
    }
}

#[cfg(test)]
mod tests;
