//! A load that is as steady as time, of which routes have changing shares. What all of their requests leave
//! alike cannot be told from the background; but neither of the two is negative. So if one route leaves
//! nothing even when all growth is blamed on requests, there is no background, and all can be told.

use super::{collinear, model::Model};

/// What counts as nothing, as a part of what the route with the most leaves.
const NOTHING: f64 = 0.05;

/// What the route with the least would leave without any background, bytes: in each route's estimate, as much may
/// be background. None if more may be.
pub(super) fn least(columns: &[Vec<f64>], growth: &[f64]) -> Option<f64> {
    let (design, _) = Model::Load.of(columns, growth);
    if collinear::ties(&design.columns).iter().any(Option::is_some) {
        return None;
    }
    let left = Model::Load.fit(columns, growth).coefficients;
    let least = left.iter().copied().fold(f64::INFINITY, f64::min);
    let most = left.iter().copied().fold(0.0, f64::max);
    (least <= NOTHING * most).then_some(least)
}
