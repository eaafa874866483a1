//! A load that is as steady as time, of which routes have changing shares. What all of their requests leave
//! alike cannot be told from the background; but neither of the two is negative. So if one route leaves
//! nothing even when all growth is blamed on requests, there is no background, and all can be told.

use super::{
    collinear,
    linear::Design,
    robust::{self, Fit},
};

/// What counts as nothing, as a part of what the route with the most leaves.
const NOTHING: f64 = 0.05;

/// None if the background may be something.
pub(super) fn fit(design: &Design, growth: &[f64]) -> Option<Fit> {
    // Of a series and its mirror image, all means are zero, and so is the intercept.
    let mirrored = |it: &[f64]| it.iter().copied().chain(it.iter().map(|it| -it)).collect();
    let columns: Vec<Vec<f64>> = design.columns.iter().map(|it| mirrored(it)).collect();
    if collinear::ties(&columns).iter().any(Option::is_some) {
        return None;
    }
    let mut fit = robust::fit(&Design::new(columns), &mirrored(growth));
    let least = fit
        .coefficients
        .iter()
        .copied()
        .fold(f64::INFINITY, f64::min);
    let most = fit.coefficients.iter().copied().fold(0.0, f64::max);
    if least > NOTHING * most {
        return None;
    }
    fit.residuals.truncate(growth.len());
    // The image tells nothing new; and what the least leaves may be background, in all of them.
    fit.standard_errors
        .iter_mut()
        .for_each(|it| *it = (*it * 2.0_f64.sqrt()).hypot(least));
    Some(fit)
}
