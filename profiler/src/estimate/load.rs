//! A load that is as steady as time, of which routes have changing shares. What all of their requests leave alike
//! cannot be told from the background, or only from the few moments at which the load was another.
//!
//! But neither of the two is negative. Without any background, requests leave the most; the more background there is,
//! the less they leave, until one of the routes leaves nothing. The truth is between these two ends. Often they are
//! close together: where one route leaves nothing even without any background, there is none.

use super::{
    collinear,
    jackknife::{self, Jackknife},
    linear::Solution,
    model::{Model, Series},
};

/// How many times as sure as what was found beside time the range has to be, to be told where time can be told apart.
const MUCH_SURER: f64 = 1.5;
/// Where memory seems to fall by itself, what requests leave beyond all growth is found from few moments: as much as
/// this part of it may be there.
const BEYOND_GROWTH: f64 = 1.5;

/// What requests leave, and for each route, half of how far that may be off: none if too little of the recording tells.
pub(super) type Found = (Solution, Vec<Option<f64>>);

/// For each route, whether its requests can be told from those of all others, but only if there is no background.
pub(super) fn confounded_with_time(series: &Series) -> Vec<bool> {
    let beside_time = is_unknown(Model::GROWTH, series).into_iter();
    let alone = is_unknown(Model::GROWTH.without_background(), series);
    let is_confounded = beside_time
        .zip(alone)
        .map(|(beside, alone)| beside && !alone);
    is_confounded.collect()
}

/// For each route, whether nothing tells what its requests leave from what those of others do.
fn is_unknown(model: Model, series: &Series) -> Vec<bool> {
    let ties = collinear::ties(&model.of(series).0).into_iter();
    let told_by_few = jackknife::told_by_few(model, series);
    let is_unknown = ties.zip(told_by_few);
    is_unknown.map(|(tie, few)| tie.is_some() || few).collect()
}

/// What requests leave if the background is not negative. `beside_time` is what was found without that condition. None
/// if that is better, or if requests can be told neither from time nor from one another.
pub(super) fn steady(
    model: Model,
    series: &Series,
    beside_time: &Found,
    confounded: &[bool],
) -> Option<Found> {
    let is_confounded = confounded.contains(&true);
    if !is_confounded && !collinear::inflate(&Model::GROWTH.of(series).0, MUCH_SURER.powi(2)) {
        return None;
    }
    let range = Range::of(model, series)?;
    let (wanted, errors) = beside_time;
    let found = range.told(wanted);
    let mut both = found.1.iter().zip(errors);
    let is_surer = both.all(|(of_range, error)| {
        let is_surer = |it: &f64| error.is_none_or(|error| MUCH_SURER * it < error);
        of_range.as_ref().is_some_and(is_surer)
    });
    let is_better = range.has(wanted.background) && is_surer;
    (is_confounded || is_better).then_some(found)
}

/// What requests may leave.
#[derive(Debug)]
struct Range {
    without_background: End,
    with_most_background: End,
}

/// What requests leave with one background.
#[derive(Debug)]
struct End {
    solution: Solution,
    errors: Vec<Option<f64>>,
}

impl Range {
    fn of(model: Model, series: &Series) -> Option<Self> {
        let routes = series.columns.len();
        if routes < 2 {
            return None;
        }
        let without_background = End::of(model.without_background(), series);
        let first = first_to_leave_nothing(series, &without_background.solution)?;
        let others: Vec<_> = (0..routes).filter(|it| *it != first).collect();
        let mut with_most_background = End::of(model, &series.of_routes(&others));
        let most = &mut with_most_background;
        most.solution.coefficients.insert(first, 0.0);
        most.errors.insert(first, Some(0.0));
        Some(Self {
            without_background,
            with_most_background,
        })
    }

    fn has(&self, background: f64) -> bool {
        (0.0..=self.with_most_background.solution.background).contains(&background)
    }

    /// What requests leave with about as much background as `wanted` has.
    fn told(&self, wanted: &Solution) -> Found {
        let ends = [&self.without_background, &self.with_most_background];
        let most = self.with_most_background.solution.background;
        let part = match most > 0.0 {
            true => (wanted.background / most).clamp(0.0, 1.0),
            false => 0.0,
        };
        let between = |of: &dyn Fn(&Solution) -> f64| {
            let [none, most] = ends.map(|end| of(&end.solution));
            none + part * (most - none)
        };
        let routes = 0..wanted.coefficients.len();
        let coefficients = routes.clone().map(|it| between(&|of| of.coefficients[it]));
        let told = Solution {
            coefficients: coefficients.collect(),
            background: between(&|of| of.background),
        };
        let errors = routes.map(|route| {
            let bytes = told.coefficients[route];
            let [none, most] = ends.map(|end| end.reach(route, bytes));
            let beyond = match wanted.background < 0.0 {
                true => BEYOND_GROWTH * (wanted.coefficients[route] - bytes).max(0.0),
                false => 0.0,
            };
            Some((none? + beyond).max(most?) / 2.0)
        });
        let errors = errors.collect();
        (told, errors)
    }
}

impl End {
    fn of(model: Model, series: &Series) -> Self {
        let solution = model.fit(series);
        let jackknife = Jackknife {
            model,
            series,
            solution: &solution,
        };
        let errors = jackknife.standard_errors();
        Self { solution, errors }
    }

    /// How far from these bytes the truth may be, if this is the end that is true.
    fn reach(&self, route: usize, bytes: f64) -> Option<f64> {
        let error = self.errors[route]?;
        Some((self.solution.coefficients[route] - bytes).abs() + 2.0 * error)
    }
}

/// The route that leaves nothing as soon as there is enough background, of those whose requests take the time.
fn first_to_leave_nothing(series: &Series, most: &Solution) -> Option<usize> {
    let time = Series {
        growth: series.lengths.clone(),
        ..series.clone()
    };
    let End { solution, errors } = End::of(Model::GROWTH.without_background(), &time);
    let time_of = solution.coefficients;
    let takes_time = |it: &usize| errors[*it].is_some_and(|error| time_of[*it] > 2.0 * error);
    let for_its_time = |it: usize| most.coefficients[it] / time_of[it];
    let routes = (0..time_of.len()).filter(takes_time);
    routes.min_by(|a, b| for_its_time(*a).total_cmp(&for_its_time(*b)))
}
