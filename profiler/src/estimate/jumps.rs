//! Single jumps: a cache that is loaded, a pool that is made. They are not what requests leave behind regularly.

use super::linear::{Design, picked};

/// Jumps that are single, at most. More are what requests do.
const MOST: usize = 3;
/// How many times as far as any other interval, up or down, a jump takes memory from what requests explain.
const BEYOND_OTHERS: f64 = 4.0;
/// How many times as far as an allocator's largest step it does: a smaller jump may be the step of a leak.
const BEYOND_STEPS: f64 = 2.0;

/// Which intervals have one. What went up and came down again is none, and nothing that came down is.
pub(super) fn single(design: &Design, growth: &[f64], largest_step: f64) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..growth.len()).collect();
    let mut residuals = unexplained(design, growth, &kept);
    let (mut largest, mut found) = (Vec::new(), Vec::new());
    for _ in 0..MOST {
        let highest =
            (0..kept.len()).max_by(|a, b| residuals[kept[*a]].total_cmp(&residuals[kept[*b]]));
        largest.extend(highest.map(|it| kept.remove(it)));
        residuals = unexplained(design, growth, &kept);
        let others = kept
            .iter()
            .map(|it| residuals[*it].abs())
            .fold(0.0, f64::max);
        let beyond = (BEYOND_OTHERS * others).max(BEYOND_STEPS * largest_step);
        if largest.iter().all(|it| residuals[*it] > beyond) {
            found.clone_from(&largest);
        }
    }
    found
}

/// What of the growth in each interval is not explained by what explains these best.
fn unexplained(design: &Design, growth: &[f64], intervals: &[usize]) -> Vec<f64> {
    let solution = design.only(intervals).solve(&picked(growth, intervals));
    design.residuals(growth, &solution)
}
