//! How far estimates are off, by how much they change when a part of the recording is left out.
//!
//! The recording is cut into some ten stretches, and each is left out once. Whatever noise is
//! like within a stretch, whether it is of steps, of a collector's teeth, or lasts for many intervals, it is in how
//! estimates differ then; a formula would have to know it (Künsch, "The Jackknife and the Bootstrap for General
//! Stationary Observations", Annals of Statistics 17, 1989).

use std::ops::Range;

use super::{
    linear::{Solution, picked},
    model::{Kind, Model, Series},
};

/// Stretches. Fewer are longer, and tell slower noise; more tell their own differences better.
const STRETCHES: usize = 10;
/// Stretches, less one, that a route's requests have to be spread over as if evenly: what two tell is a guess.
const LEAST_FREEDOM: f64 = 2.5;
/// The normal distribution's two-sided quantile of 97 %: with 95 %, one situation or another would always be found in
/// which a little less than 19 of 20 hold the truth.
const NORMAL: f64 = 2.170_09;

/// Series whose estimates are to be judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jackknife<'a> {
    pub model: Model,
    pub series: &'a Series,
    /// What was estimated with all of it.
    pub solution: &'a Solution,
}

impl Jackknife<'_> {
    /// For each column, half of what is to be added on both sides of its estimate so that it holds the truth 19 times
    /// of 20. None if a route's requests came in too few stretches to say.
    pub(super) fn standard_errors(self) -> Vec<Option<f64>> {
        let stretches = stretches(&self.series.columns);
        let error = |column: usize| {
            let freedom = self.freedom(column, &stretches);
            let wide = || student(freedom) / 2.0 * self.deviation(column, &stretches);
            (freedom >= LEAST_FREEDOM).then(wide)
        };
        (0..self.series.columns.len()).map(error).collect()
    }

    /// Of the estimates without each of the stretches.
    fn deviation(self, column: usize, stretches: &[Range<usize>]) -> f64 {
        let (mut design, values) = self.model.of(&self.taking_part(column));
        if self.model == Model::LEVELS && self.solution.background == 0.0 {
            design.columns.pop();
        }
        let of_own = |left_out: &Range<usize>| {
            let is_kept = |row: &usize| !self.is_in(*row, left_out);
            let rows: Vec<_> = (0..values.len()).filter(is_kept).collect();
            let coefficients = design.only(&rows).solve_freely(&picked(&values, &rows));
            coefficients.first().copied().unwrap_or_default()
        };
        let whole = of_own(&(0..0));
        let squares = stretches.iter().map(|it| (of_own(it) - whole).powi(2));
        let count = stretches.len() as f64;
        (squares.sum::<f64>() * (count - 1.0) / count).sqrt()
    }

    /// Whether a row of the model is of one of these intervals.
    fn is_in(&self, row: usize, intervals: &Range<usize>) -> bool {
        let interval = match self.model.kind {
            Kind::Growth => Some(row),
            // There is a level before the first interval, and one at the end of each.
            Kind::Levels => row.checked_sub(1),
        };
        interval.is_some_and(|it| intervals.contains(&it))
    }

    /// This column, and all others but those at their bound of zero, which stay there.
    fn taking_part(&self, column: usize) -> Series {
        let is_free = |it: &usize| self.solution.coefficients[*it] > 0.0;
        let others = (0..self.series.columns.len()).filter(|it| *it != column);
        let taking_part = std::iter::once(column).chain(others.filter(is_free));
        self.series.of_routes(&taking_part.collect::<Vec<_>>())
    }

    /// By how many stretches, less one, the estimate is made if each counts by how much its requests differ from
    /// what those of other routes would lead one to expect.
    fn freedom(self, column: usize, stretches: &[Range<usize>]) -> f64 {
        freedom_of_first(self.model, &self.taking_part(column), stretches)
    }
}

/// For each route, whether its requests differ from what those of all others would lead one to expect in too few
/// stretches to say anything.
pub(super) fn told_by_few(model: Model, series: &Series) -> Vec<bool> {
    let routes = series.columns.len();
    let stretches = stretches(&series.columns);
    let of = |route: usize| {
        let others = (0..routes).filter(|it| *it != route);
        let ordered: Vec<_> = std::iter::once(route).chain(others).collect();
        freedom_of_first(model, &series.of_routes(&ordered), &stretches) < LEAST_FREEDOM
    };
    (0..routes).map(of).collect()
}

fn freedom_of_first(model: Model, series: &Series, stretches: &[Range<usize>]) -> f64 {
    let of_growth = Model {
        kind: Kind::Growth,
        ..model
    };
    let (design, _) = of_growth.of(series);
    let own = design.unexplained(0);
    let of_stretch = stretches
        .iter()
        .map(|it| own[it.clone()].iter().map(|it| it * it).sum());
    let weights: Vec<f64> = of_stretch.collect();
    let sum: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|it| it * it).sum();
    if squares > 0.0 {
        sum * sum / squares - 1.0
    } else {
        0.0
    }
}

/// Intervals one behind another with about as many requests in each stretch; none is empty.
fn stretches(columns: &[Vec<f64>]) -> Vec<Range<usize>> {
    let intervals = columns.first().map_or(0, Vec::len);
    let requests = |it: usize| columns.iter().map(|column| column[it]).sum::<f64>();
    let all: f64 = (0..intervals).map(requests).sum();
    let (mut until_now, mut full) = (0.0, 0.0);
    let mut ends: Vec<usize> = Vec::new();
    for interval in 0..intervals {
        until_now += requests(interval);
        let now_full = (until_now / all * STRETCHES as f64).floor();
        if now_full > full {
            full = now_full;
            ends.push(interval + 1);
        }
    }
    // What comes behind the last request belongs to the last stretch.
    ends.pop();
    let begins = std::iter::once(0).chain(ends.iter().copied());
    let ends = ends.iter().copied().chain([intervals]);
    begins.zip(ends).map(|(begin, end)| begin..end).collect()
}

/// Student's two-sided quantile of 97 %, by the expansion of Cornish and Fisher: within 2 % from three degrees of
/// freedom on.
fn student(freedom: f64) -> f64 {
    let [z, f] = [NORMAL, freedom];
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / f + second / f.powi(2) + third / f.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_quantiles_are_those_of_the_tables() {
        for (freedom, quantile) in [(3.0, 3.896), (4.0, 3.298), (9.0, 2.574), (30.0, 2.278)] {
            assert!(
                (student(freedom) / quantile - 1.0).abs() < 0.02,
                "{freedom}"
            );
        }
    }

    #[test]
    fn stretches_have_as_many_requests_and_leave_nothing_out() {
        let column: Vec<f64> = (0..40).map(|it| if it < 20 { 5.0 } else { 0.0 }).collect();
        let found = stretches(&[column]);
        assert_eq!(found.len(), STRETCHES);
        assert_eq!([&found[1], &found[9]], [&(2..4), &(18..40)]);
        let [whole] = &stretches(&[vec![0.0, 9.0, 0.0]])[..] else {
            panic!("requests of one interval are in one stretch");
        };
        assert_eq!(*whole, 0..3);
    }
}
