//! Least squares with weights, coefficients that are not negative, and an intercept that may be.

/// Sweeps over all coefficients, at most. Without near ties some dozen do.
const MAX_SWEEPS: usize = 2000;
/// A sweep that changes no fitted value by more than this part of the spread is the last.
const TOLERANCE: f64 = 1e-10;
/// Variance, relative to the mean's square, below which a column is constant but for rounding.
const CONSTANT: f64 = 1e-18;
/// Added to the diagonal of a correlation matrix, so that ties give it a large inverse and not none.
pub(super) const RIDGE: f64 = 1e-9;

/// Columns of equal length: what is known of each interval.
#[derive(Debug)]
pub(super) struct Design {
    pub columns: Vec<Vec<f64>>,
}

/// Coefficients, one a column, and the intercept.
#[derive(Clone, Debug)]
pub(super) struct Solution {
    pub coefficients: Vec<f64>,
    pub intercept: f64,
}

impl Design {
    pub(super) fn new(columns: Vec<Vec<f64>>) -> Self {
        Self { columns }
    }

    /// The solution with the least weighted squares.
    pub(super) fn solve(&self, values: &[f64], weights: &[f64]) -> Solution {
        let moments = Moments::of(&self.columns, weights);
        let value_mean = mean(values, weights);
        let with_values: Vec<_> = moments
            .centred(&self.columns)
            .map(|column| {
                let deviations = values.iter().map(|value| value - value_mean);
                let products = column.zip(deviations).zip(weights);
                products.map(|((x, y), weight)| weight * x * y).sum::<f64>()
            })
            .collect();
        let coefficients = not_negative(&moments, &with_values);
        let explained = coefficients.iter().zip(&moments.means);
        let explained: f64 = explained.map(|(it, mean)| it * mean).sum();
        Solution {
            coefficients,
            intercept: value_mean - explained,
        }
    }

    /// What `solution` leaves of the values.
    pub(super) fn residuals(&self, values: &[f64], solution: &Solution) -> Vec<f64> {
        let mut residuals: Vec<_> = values.iter().map(|it| it - solution.intercept).collect();
        for (column, coefficient) in self.columns.iter().zip(&solution.coefficients) {
            for (residual, x) in residuals.iter_mut().zip(column) {
                *residual -= coefficient * x;
            }
        }
        residuals
    }
}

/// Means and central second moments of columns.
#[derive(Debug)]
pub(super) struct Moments {
    pub means: Vec<f64>,
    /// Symmetric: sums of weighted products of deviations.
    pub products: Vec<Vec<f64>>,
}

impl Moments {
    pub(super) fn of(columns: &[Vec<f64>], weights: &[f64]) -> Self {
        let means: Vec<_> = columns.iter().map(|column| mean(column, weights)).collect();
        let products = columns.iter().zip(&means).map(|(a, a_mean)| {
            let row = columns.iter().zip(&means).map(|(b, b_mean)| {
                let terms = a.iter().zip(b).zip(weights);
                terms
                    .map(|((x, y), weight)| weight * (x - a_mean) * (y - b_mean))
                    .sum()
            });
            row.collect()
        });
        let products = products.collect();
        Self { means, products }
    }

    /// Whether a column says nothing that the intercept does not.
    pub(super) fn is_constant(&self, column: usize, weight: f64) -> bool {
        self.products[column][column] <= CONSTANT * weight * self.means[column].powi(2)
    }

    /// The inverse of the correlation matrix, `None` for constant columns' rows: its diagonal is by how
    /// much ties among the columns inflate each coefficient's variance.
    pub(super) fn inverse_correlations(&self, weight: f64) -> Vec<Option<Vec<f64>>> {
        let count = self.means.len();
        let varied: Vec<usize> = (0..count)
            .filter(|it| !self.is_constant(*it, weight))
            .collect();
        let scale = |it: usize| self.products[it][it].sqrt();
        let correlations = varied.iter().map(|a| {
            let row = varied.iter().map(|b| match a == b {
                true => 1.0 + RIDGE,
                false => self.products[*a][*b] / scale(*a) / scale(*b),
            });
            row.collect()
        });
        let inverse = inverted(correlations.collect());
        let mut rows = vec![None; count];
        for (row, column) in inverse.into_iter().zip(&varied) {
            let mut whole = vec![0.0; count];
            varied
                .iter()
                .zip(row)
                .for_each(|(other, it)| whole[*other] = it);
            rows[*column] = Some(whole);
        }
        rows
    }

    fn centred<'a>(
        &'a self,
        columns: &'a [Vec<f64>],
    ) -> impl Iterator<Item = impl Iterator<Item = f64> + 'a> + 'a {
        let columns = columns.iter().zip(&self.means);
        columns.map(|(column, mean)| column.iter().map(move |it| it - mean))
    }
}

pub(super) fn mean(values: &[f64], weights: &[f64]) -> f64 {
    let sum: f64 = values
        .iter()
        .zip(weights)
        .map(|(value, weight)| value * weight)
        .sum();
    sum / weights.iter().sum::<f64>()
}

/// One coefficient after the other is set to what is best given the others, until none moves. This
/// minimizes a convex function, and zero is a bound like any other.
fn not_negative(moments: &Moments, with_values: &[f64]) -> Vec<f64> {
    let products = &moments.products;
    let mut coefficients = vec![0.0; with_values.len()];
    for _ in 0..MAX_SWEEPS {
        let mut moved: f64 = 0.0;
        let mut spread: f64 = 0.0;
        for (index, row) in products.iter().enumerate() {
            let own = row[index];
            if own <= 0.0 {
                continue;
            }
            let others: f64 = row.iter().zip(&coefficients).map(|(it, by)| it * by).sum();
            let old: f64 = coefficients[index];
            let new = (old + (with_values[index] - others) / own).max(0.0);
            coefficients[index] = new;
            moved = moved.max((new - old).abs() * own.sqrt());
            spread = spread.max(new * own.sqrt());
        }
        if moved <= TOLERANCE * spread {
            break;
        }
    }
    coefficients
}

/// By Gauss and Jordan. The matrix has to be symmetric and positive definite, so that no pivoting is
/// needed.
fn inverted(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let count = matrix.len();
    for (index, row) in matrix.iter_mut().enumerate() {
        row.extend((0..count).map(|column| f64::from(u8::from(column == index))));
    }
    for pivot in 0..count {
        let by = matrix[pivot][pivot].max(f64::MIN_POSITIVE);
        matrix[pivot].iter_mut().for_each(|it| *it /= by);
        let pivot_row = matrix[pivot].clone();
        for row in (0..count).filter(|row| *row != pivot) {
            let factor = matrix[row][pivot];
            let cells = matrix[row].iter_mut().zip(&pivot_row);
            cells.for_each(|(it, of_pivot)| *it -= factor * of_pivot);
        }
    }
    matrix
        .into_iter()
        .map(|mut row| row.split_off(count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inverse_undoes_its_matrix() {
        let matrix = vec![
            vec![2.0, 0.5, 0.1],
            vec![0.5, 1.0, 0.3],
            vec![0.1, 0.3, 3.0],
        ];
        let inverse = inverted(matrix.clone());
        let identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        for (row, expected) in matrix.iter().zip(identity) {
            let mut product = [0.0; 3];
            for (factor, of_inverse) in row.iter().zip(&inverse) {
                let cells = product.iter_mut().zip(of_inverse);
                cells.for_each(|(cell, it)| *cell += factor * it);
            }
            let cells = product.iter().zip(expected);
            assert!(
                cells
                    .into_iter()
                    .all(|(cell, it)| (cell - it).abs() < 1e-12)
            );
        }
    }

    #[test]
    fn a_coefficient_that_would_be_negative_is_zero_and_the_others_make_up_for_it() {
        let columns = vec![vec![0.0, 1.0, 2.0, 3.0], vec![1.0, 0.0, 0.0, 1.0]];
        let values = [5.0, 7.0, 9.0, 11.0];
        let solution = Design::new(columns.clone()).solve(&values, &[1.0; 4]);
        assert!((solution.coefficients[0] - 2.0).abs() < 1e-9 && solution.coefficients[1] < 1e-9);
        assert!((solution.intercept - 5.0).abs() < 1e-9);
        let falling = Design::new(columns).solve(&values.map(|it| -it), &[1.0; 4]);
        assert_eq!(falling.coefficients, [0.0, 0.0]);
        assert!((falling.intercept + 8.0).abs() < 1e-9);
    }
}
