//! Least squares that single jumps do not distort: Huber's estimator, by reweighting.

use super::linear::{Design, Moments, Solution};

/// Residuals beyond so many standard deviations count less (Huber's k). Large, so that noise which is
/// skewed, as that of leaks is which not every request has, is hardly cut.
const BEYOND: f64 = 2.5;
/// The share of intervals whose residuals may lie beyond, one in so many, or one at all: of normal noise
/// 1.2 % do. If there are more, jumps are no exception.
const ONE_IN: usize = 20;
/// The median of the absolute deviations of normal noise, in standard deviations.
const MEDIAN_DEVIATION: f64 = 0.6745;
/// Reweightings, at most; some ten do.
const MAX_ROUNDS: usize = 50;
/// A round that changes no residual by more than this part of their scale is the last.
const TOLERANCE: f64 = 1e-6;

/// A fit, and how well each coefficient is known.
#[derive(Debug)]
pub(super) struct Fit {
    pub coefficients: Vec<f64>,
    pub standard_errors: Vec<f64>,
    pub intercept: f64,
    pub residuals: Vec<f64>,
}

/// There have to be more values than columns, by two at least.
pub(super) fn fit(design: &Design, values: &[f64]) -> Fit {
    let even = vec![1.0; values.len()];
    let plain = design.solve(values, &even);
    let (solution, weights) = reweighted(design, values, plain.clone());
    let beyond = weights.iter().filter(|weight| **weight < 1.0).count();
    if beyond <= (values.len() / ONE_IN).max(1) {
        with_errors(design, values, solution, &weights)
    } else {
        with_errors(design, values, plain, &even)
    }
}

fn reweighted(design: &Design, values: &[f64], plain: Solution) -> (Solution, Vec<f64>) {
    let mut residuals = design.residuals(values, &plain);
    let mut solution = plain;
    let mut weights = vec![1.0; values.len()];
    let largest = values.iter().fold(0.0, |most: f64, it| most.max(it.abs()));
    for _ in 0..MAX_ROUNDS {
        // Where most residuals are zero, those that are not by rounding are no jumps.
        let scale = scale(&residuals, design.columns.len()).max(largest * 1e-12);
        let weight = |it: &f64| match it.abs() / scale {
            deviations if deviations > BEYOND => BEYOND / deviations,
            _ => 1.0,
        };
        weights = residuals.iter().map(weight).collect();
        solution = design.solve(values, &weights);
        let before = std::mem::replace(&mut residuals, design.residuals(values, &solution));
        let moves = residuals
            .iter()
            .zip(before)
            .map(|(new, old)| (new - old).abs());
        if moves.fold(0.0, f64::max) <= TOLERANCE * scale {
            break;
        }
    }
    (solution, weights)
}

/// The standard deviation of the noise, by what half of the residuals do not exceed.
fn scale(residuals: &[f64], columns: usize) -> f64 {
    let mut sizes: Vec<_> = residuals.iter().map(|it| it.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let median = sizes[sizes.len() / 2];
    // A fit takes a part of the noise along.
    let kept = freedom(residuals.len(), columns) / residuals.len() as f64;
    median / MEDIAN_DEVIATION / kept.sqrt()
}

fn freedom(values: usize, columns: usize) -> f64 {
    values.saturating_sub(columns + 1).max(1) as f64
}

/// Huber, "Robust Statistics", section 7.6, the first of his covariance estimates: the variance of the
/// weighted residuals over the square of the share that has its full weight.
fn with_errors(design: &Design, values: &[f64], solution: Solution, weights: &[f64]) -> Fit {
    let residuals = design.residuals(values, &solution);
    let weighted = residuals
        .iter()
        .zip(weights)
        .map(|(it, weight)| it * weight);
    let squares: f64 = weighted.map(|it| it * it).sum();
    let full = weights.iter().filter(|weight| **weight >= 1.0).count();
    let full = full as f64 / values.len() as f64;
    let variance = squares / freedom(values.len(), design.columns.len()) / full.powi(2);
    let count = values.len() as f64;
    let moments = Moments::of(&design.columns, &vec![1.0; values.len()]);
    let inflations = moments.inverse_correlations(count);
    let errors = inflations.iter().enumerate().map(|(index, row)| match row {
        Some(row) => (variance * row[index] / moments.products[index][index]).sqrt(),
        None => f64::INFINITY,
    });
    Fit {
        standard_errors: errors.collect(),
        coefficients: solution.coefficients,
        intercept: solution.intercept,
        residuals,
    }
}
