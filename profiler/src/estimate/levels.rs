//! Whether memory itself can be regressed on how many requests there were until then.
//!
//! What a collector has yet to free, and what requests under way hold, comes and goes: it distorts growth from
//! one interval to the next, and in the end says nothing. If the levels differ from what requests explain only
//! by what comes and goes, they tell what stays far better than growth does. If they drift apart, by a jump or
//! because leaks are at random, they do not (Engle and Granger, "Co-integration and Error Correction",
//! Econometrica 55, 1987).

use super::{
    linear::Design,
    model::{Model, Series},
};

/// Intervals for each column, at least: a short series seems to drift or not by chance.
const INTERVALS_EACH: usize = 8;
/// Critical value of the test for drift by one column, and how much more each further one asks for (MacKinnon,
/// "Critical Values for Cointegration Tests", 1991, with constant and trend, 1 %).
const CRITICAL: f64 = 4.2;
const CRITICAL_EACH: f64 = 0.33;
/// How much of what comes may still be there an interval later. Beyond, growth tells as much.
const MOST_PERSISTENT: f64 = 0.4;
/// By how much squares have to be less to say that something is explained much better.
const MUCH_BETTER: f64 = 2.0;

/// Whether levels do not drift from what requests explain.
pub(super) fn stay(series: &Series) -> bool {
    let columns = series.columns.len();
    if series.growth.len() < INTERVALS_EACH * (columns + 1) {
        return false;
    }
    let (design, memory) = Model::LEVELS.of(series);
    let solution = design.solve(&memory);
    let residuals = design.residuals(&memory, &solution);
    if solution.coefficients.last() == Some(&0.0) && falls(&design, &memory, &residuals) {
        return false;
    }
    let critical = CRITICAL + CRITICAL_EACH * columns as f64;
    drift(&residuals).is_some_and(|(persistence, statistic)| {
        persistence <= MOST_PERSISTENT && statistic <= -critical
    })
}

/// Whether memory would be explained much better if there were less from interval to interval by itself.
fn falls(design: &Design, memory: &[f64], residuals: &[f64]) -> bool {
    let mut columns = design.columns.clone();
    let backwards = columns.pop().unwrap_or_default();
    columns.push(backwards.iter().map(|it| -it).collect());
    let design = Design::new(columns, design.baseline.clone());
    let solution = design.solve(memory);
    let squares = |of: &[f64]| of.iter().map(|it| it * it).sum::<f64>();
    MUCH_BETTER * squares(&design.residuals(memory, &solution)) < squares(residuals)
}

/// How much of a residual is left in the next one, and the statistic of Dickey and Fuller. None if there are no
/// residuals to speak of.
fn drift(residuals: &[f64]) -> Option<(f64, f64)> {
    let pairs = residuals.windows(2);
    let squares: f64 = pairs.clone().map(|it| it[0] * it[0]).sum();
    let persistence = pairs.clone().map(|it| it[0] * it[1]).sum::<f64>() / squares;
    let left: f64 = pairs
        .clone()
        .map(|it| (it[1] - persistence * it[0]).powi(2))
        .sum();
    let error = (left / (pairs.len() as f64 - 1.0) / squares).sqrt();
    let statistic = (persistence - 1.0) / error;
    statistic.is_finite().then_some((persistence, statistic))
}
