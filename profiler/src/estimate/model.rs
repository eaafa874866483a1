//! Three ways to put the same question to least squares.

use super::linear::{Design, Solution};

/// What is regressed on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// Growth on the requests of each interval. Right whatever the noise is.
    Growth,
    /// How much memory there is on how many requests there were until then. Far better where noise only comes and
    /// goes; see [`levels`](super::levels).
    Levels,
    /// Growth on requests where there is no background; see [`load`](super::load).
    Load,
}

impl Model {
    /// The columns, one a route and perhaps more behind them, and the values.
    pub(super) fn of(self, columns: &[Vec<f64>], growth: &[f64]) -> (Design, Vec<f64>) {
        match self {
            Self::Growth => (Design::new(columns.to_vec()), growth.to_vec()),
            Self::Levels => {
                let time = (0..=growth.len()).map(|it| it as f64).collect();
                let levels = columns.iter().map(|column| summed(column));
                (Design::new(levels.chain([time]).collect()), summed(growth))
            }
            Self::Load => {
                let columns = columns.iter().map(|it| mirrored(it)).collect();
                (Design::new(columns), mirrored(growth))
            }
        }
    }

    /// What a request of each route leaves, and growth by itself.
    pub(super) fn fit(self, columns: &[Vec<f64>], growth: &[f64]) -> Solution {
        let (design, values) = self.of(columns, growth);
        let mut solution = design.solve(&values);
        if let Some(time) = solution.coefficients.get(columns.len()) {
            solution.intercept = *time;
        }
        solution.coefficients.truncate(columns.len());
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

/// Of a series and its mirror image, all means are zero, and so is the intercept.
fn mirrored(values: &[f64]) -> Vec<f64> {
    let image = values.iter().map(|it| -it);
    values.iter().copied().chain(image).collect()
}
