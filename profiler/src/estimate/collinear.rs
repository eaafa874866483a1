//! Which columns say the same, so that no data can tell their coefficients apart.

use super::linear::{Design, Moments};

/// By how much the others may inflate the variance of a coefficient until it counts as not known: ten
/// times the standard error. Two columns alone do so when they correlate by 0.995.
const MAX_INFLATION: f64 = 100.0;
/// The partial correlation from which on another column is one of those that it is tied to.
const PARTNER: f64 = 0.5;

/// For each column, the others that it is tied to; none, if it is to the background. `None` if it stands
/// for itself.
pub(super) fn ties(Design { columns, baseline }: &Design) -> Vec<Option<Vec<usize>>> {
    let inverse = Moments::of(columns, baseline).inverse_correlations();
    let inflation = |it: usize| inverse[it].as_ref().map_or(0.0, |row| row[it]);
    let partners = |column: usize, row: &Vec<f64>| -> Vec<usize> {
        let is_partner = |other: &usize| {
            let scale = (inflation(column) * inflation(*other)).sqrt();
            *other != column && row[*other].abs() > PARTNER * scale && scale > 0.0
        };
        (0..columns.len()).filter(is_partner).collect()
    };
    let tie = |(column, row): (usize, &Option<Vec<f64>>)| match row {
        None => Some(Vec::new()),
        Some(row) if inflation(column) > MAX_INFLATION => Some(partners(column, row)),
        Some(_) => None,
    };
    inverse.iter().enumerate().map(tie).collect()
}

/// Whether the others and the background inflate the variance of each coefficient so many times.
pub(super) fn inflate(Design { columns, baseline }: &Design, times: f64) -> bool {
    let inverse = Moments::of(columns, baseline).inverse_correlations();
    let mut rows = inverse.iter().enumerate();
    rows.all(|(it, row)| row.as_ref().is_none_or(|row| row[it] > times))
}
