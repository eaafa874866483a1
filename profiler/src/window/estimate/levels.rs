//! Regression of how much memory there is on how many requests there were until then.
//!
//! What a collector has yet to free, and what requests under way hold, comes and goes: it distorts growth from
//! one interval to the next, and in the end says nothing. If the levels differ from what requests explain only
//! by what comes and goes, they tell what stays far better than growth does. If they drift apart, by a jump or
//! because leaks are at random, they do not, and nothing is said here (Engle and Granger, "Co-integration and
//! Error Correction", Econometrica 55, 1987).

use super::{
    linear::{Design, Moments},
    robust::Fit,
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

/// None where levels drift.
pub(super) fn fit(columns: &[Vec<f64>], growth: &[f64]) -> Option<Fit> {
    if growth.len() < INTERVALS_EACH * (columns.len() + 1) {
        return None;
    }
    let time = (0..=growth.len()).map(|it| it as f64).collect();
    let levels = columns.iter().map(|column| summed(column));
    let design = Design::new(levels.chain([time]).collect());
    let memory = summed(growth);
    let solution = design.solve(&memory, &vec![1.0; memory.len()]);
    let residuals = design.residuals(&memory, &solution);
    if solution.coefficients.last() == Some(&0.0) && falls(&design, &memory, &residuals) {
        return None;
    }
    let (persistence, statistic) = drift(&residuals)?;
    if persistence > MOST_PERSISTENT
        || statistic > -(CRITICAL + CRITICAL_EACH * columns.len() as f64)
    {
        return None;
    }
    let mut coefficients = solution.coefficients;
    let errors = standard_errors(&design, &coefficients, &residuals, persistence);
    let intercept = coefficients.pop()?;
    Some(Fit {
        coefficients,
        standard_errors: errors,
        intercept,
        residuals: residuals.windows(2).map(|it| it[1] - it[0]).collect(),
    })
}

/// Whether memory would be explained much better if there were less from interval to interval by itself.
fn falls(design: &Design, memory: &[f64], residuals: &[f64]) -> bool {
    let mut columns = design.columns.clone();
    let backwards = columns.pop().unwrap_or_default();
    columns.push(backwards.iter().map(|it| -it).collect());
    let design = Design::new(columns);
    let solution = design.solve(memory, &vec![1.0; memory.len()]);
    let squares = |of: &[f64]| of.iter().map(|it| it * it).sum::<f64>();
    MUCH_BETTER * squares(&design.residuals(memory, &solution)) < squares(residuals)
}

fn summed(changes: &[f64]) -> Vec<f64> {
    let mut level = 0.0;
    let levels = changes.iter().map(|change| {
        level += change;
        level
    });
    [0.0].into_iter().chain(levels).collect()
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

/// Of each column but the last, which is time. What is at its bound of zero takes no part, but for the
/// column itself.
fn standard_errors(
    design: &Design,
    coefficients: &[f64],
    residuals: &[f64],
    persistence: f64,
) -> Vec<f64> {
    let taking_part = coefficients.iter().filter(|it| **it > 0.0).count();
    let freedom = residuals.len().saturating_sub(taking_part + 1).max(1) as f64;
    let variance = residuals.iter().map(|it| it * it).sum::<f64>() / freedom;
    // Residuals that are alike tell less than as many different ones.
    let persistence = persistence.clamp(0.0, 0.99);
    let variance = variance * (1.0 + persistence) / (1.0 - persistence);
    let error = |column: usize| {
        let others = (0..coefficients.len()).filter(|it| *it != column && coefficients[*it] > 0.0);
        let columns = others.chain([column]).map(|it| design.columns[it].clone());
        let columns: Vec<_> = columns.collect();
        let moments = Moments::of(&columns, &vec![1.0; residuals.len()]);
        let inflation = moments.inverse_correlations(residuals.len() as f64);
        match (inflation.last(), moments.products.last()) {
            (Some(Some(row)), Some(products)) => {
                let own = columns.len() - 1;
                (variance * row[own] / products[own]).sqrt()
            }
            _ => f64::INFINITY,
        }
    };
    (0..coefficients.len().saturating_sub(1))
        .map(error)
        .collect()
}
