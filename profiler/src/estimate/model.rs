//! Several ways to put the same question to least squares.

use super::linear::{Design, Solution, picked};

/// What was counted of the routes that were requested.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// Requests by interval, one column a route.
    pub columns: Vec<Vec<f64>>,
    /// Bytes by interval.
    pub growth: Vec<f64>,
    /// How long each interval was, in mean lengths.
    pub lengths: Vec<f64>,
}

impl Series {
    /// These intervals alone, as if they had followed one another.
    pub(super) fn only(&self, intervals: &[usize]) -> Self {
        Self {
            columns: picked_each(&self.columns, intervals),
            growth: picked(&self.growth, intervals),
            lengths: picked(&self.lengths, intervals),
        }
    }

    /// These routes alone, in this order.
    pub(super) fn of_routes(&self, routes: &[usize]) -> Self {
        Self {
            columns: routes.iter().map(|it| self.columns[*it].clone()).collect(),
            ..self.clone()
        }
    }
}

fn picked_each(columns: &[Vec<f64>], intervals: &[usize]) -> Vec<Vec<f64>> {
    columns.iter().map(|it| picked(it, intervals)).collect()
}

/// What is regressed on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Growth on the requests of each interval, and on its length. Right whatever the noise is.
    Growth,
    /// How much memory there is on how many requests there were until then, and how much time. Far better where noise
    /// only comes and goes; see [`levels`](super::levels).
    Levels,
}

/// What is put to least squares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub kind: Kind,
    /// Whether memory may grow by itself, in proportion to time. See [`load`](super::load) for where it may not.
    pub has_background: bool,
}

impl Model {
    pub(super) const GROWTH: Self = Self {
        kind: Kind::Growth,
        has_background: true,
    };
    pub(super) const LEVELS: Self = Self {
        kind: Kind::Levels,
        has_background: true,
    };

    pub(super) const fn without_background(self) -> Self {
        Self {
            has_background: false,
            ..self
        }
    }

    /// The columns, one a route and perhaps more behind them, and the values.
    pub(super) fn of(self, series: &Series) -> (Design, Vec<f64>) {
        let (columns, growth) = (&series.columns, &series.growth);
        match self.kind {
            Kind::Growth => {
                let baseline = match self.has_background {
                    true => series.lengths.clone(),
                    false => vec![0.0; growth.len()],
                };
                (Design::new(columns.clone(), baseline), growth.clone())
            }
            Kind::Levels => {
                let time = self.has_background.then(|| summed(&series.lengths));
                let levels = columns.iter().map(|column| summed(column));
                // Nobody knows how much there was before.
                let baseline = vec![1.0; growth.len() + 1];
                let design = Design::new(levels.chain(time).collect(), baseline);
                (design, summed(growth))
            }
        }
    }

    /// What a request of each route leaves, and growth by itself.
    pub(super) fn fit(self, series: &Series) -> Solution {
        let (design, values) = self.of(series);
        let mut solution = design.solve(&values);
        if self.kind == Kind::Levels {
            let time = solution.coefficients.get(series.columns.len());
            solution.background = time.copied().unwrap_or_default();
        }
        solution.coefficients.truncate(series.columns.len());
        solution
    }
}

fn summed(changes: &[f64]) -> Vec<f64> {
    let mut level = 0.0;
    let levels = changes.iter().map(|change| {
        level += change;
        level
    });
    [0.0].into_iter().chain(levels).collect()
}
