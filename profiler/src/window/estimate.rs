//! What the requests of each route leave behind, where no allocation could be bound to one.
//!
//! Growth by interval is regressed on the requests by route in the interval:
//!
//! ```text
//! growth = background + sum of bytes(route) * requests(route) + noise,  bytes(route) >= 0
//! ```
//!
//! It is an estimate, and says how far it may be off. It is of what requests leave behind regularly:
//! single jumps, such as a cache that was loaded, are kept from distorting it, and what they amount to is
//! reported. Jumps that are not rare are what requests do, and count. Routes that were always requested
//! together cannot be told apart, and are named so.

mod collinear;
mod levels;
mod linear;
mod load;
mod robust;

use thiserror::Error;

use linear::Design;

/// Routes that can be told apart, at most. With more, those with few requests belong into one `other`.
pub const MAX_ROUTES: usize = 32;
/// Intervals for each number that is estimated, at least: below three, the noise itself is a guess.
const INTERVALS_EACH: usize = 3;

/// One interval. All of a series have the same length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
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
    /// Growth an interval without any request, bytes; it may be negative.
    pub background: f64,
    /// Growth over all intervals that neither requests nor the background explain, bytes: single jumps.
    pub unexplained: f64,
}

/// What one request of a route leaves behind, bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteEstimate {
    /// Within two standard errors, most of the time.
    Told {
        /// Not negative. Since no route's may be, it is somewhat high, by up to a third of the standard
        /// error, where others leave nothing.
        bytes: f64,
        /// How far it is off, typically.
        standard_error: f64,
    },
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

/// Estimates what the requests of each route leave behind.
///
/// # Errors
///
/// If the series is too short, or its shape is wrong.
pub fn by_route(series: &[Interval]) -> Result<Estimate, EstimateError> {
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
    let growth: Vec<_> = series.iter().map(|it| it.growth as f64).collect();
    Ok(estimate(&columns, &seen, &growth))
}

/// `seen` are the columns that are not zero throughout.
fn estimate(columns: &[Vec<f64>], seen: &[usize], growth: &[f64]) -> Estimate {
    let mut routes = vec![RouteEstimate::NotSeen; columns.len()];
    let design = Design::new(seen.iter().map(|it| columns[*it].clone()).collect());
    let ties = collinear::ties(&design.columns);
    for (index, others) in ties.iter().enumerate() {
        if let Some(others) = others {
            let others = others.iter().map(|other| seen[*other]).collect();
            routes[seen[index]] = RouteEstimate::TiedTo(others);
        }
    }
    // What is tied takes part in the fit, or its growth would be blamed on the others.
    let of_levels = levels::fit(&design.columns, growth);
    let mut fit = of_levels.unwrap_or_else(|| robust::fit(&design, growth));
    if ties.iter().flatten().any(|others| !others.is_empty())
        && let Some(pinned) = load::fit(&design, growth)
    {
        fit = pinned;
        for (index, route) in seen.iter().enumerate() {
            routes[*route] = RouteEstimate::Told {
                bytes: fit.coefficients[index],
                standard_error: fit.standard_errors[index],
            };
        }
    }
    for (index, route) in seen.iter().enumerate() {
        if ties[index].is_none() {
            routes[*route] = RouteEstimate::Told {
                bytes: fit.coefficients[index],
                standard_error: fit.standard_errors[index],
            };
        }
    }
    Estimate {
        routes,
        background: fit.intercept,
        unexplained: fit.residuals.iter().sum(),
    }
}

#[cfg(test)]
mod tests;
