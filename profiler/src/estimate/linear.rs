//! Least squares, with coefficients that are not negative or may be, beside a rate that may be.

/// Rounds for each coefficient, at most; one is typical.
const ROUNDS_EACH: usize = 3;
/// What a further coefficient would explain is nothing below this part of what the best one does.
const TOLERANCE: f64 = 1e-10;
/// Variance, relative to the mean's square, below which a column is constant but for rounding.
const CONSTANT: f64 = 1e-18;
/// Added to the diagonal of a correlation matrix, so that ties give it a large inverse and not none.
const RIDGE: f64 = 1e-9;

/// Columns of equal length: what is known of each interval.
#[derive(Debug)]
pub(super) struct Design {
    pub columns: Vec<Vec<f64>>,
    /// What the background is in proportion to. Ones make an ordinary intercept of it; zeros say that there is no
    /// background.
    pub baseline: Vec<f64>,
}

/// Coefficients, one a column, and the background's, which may be negative.
#[derive(Clone, Debug)]
pub(super) struct Solution {
    pub coefficients: Vec<f64>,
    pub background: f64,
}

impl Design {
    pub(super) const fn new(columns: Vec<Vec<f64>>, baseline: Vec<f64>) -> Self {
        Self { columns, baseline }
    }

    /// Of these intervals alone.
    pub(super) fn only(&self, intervals: &[usize]) -> Self {
        let columns = self.columns.iter().map(|it| picked(it, intervals));
        Self::new(columns.collect(), picked(&self.baseline, intervals))
    }

    /// The solution with the least squares of those without a negative coefficient.
    pub(super) fn solve(&self, values: &[f64]) -> Solution {
        let moments = Moments::of(&self.columns, &self.baseline);
        let coefficients = not_negative(&moments, &self.products_with(values, &moments));
        let explained = coefficients.iter().zip(&moments.rates);
        let explained: f64 = explained.map(|(it, rate)| it * rate).sum();
        Solution {
            coefficients,
            background: rate(values, &self.baseline) - explained,
        }
    }

    /// The coefficients with the least squares, whatever their sign; zero of a column that is constant.
    pub(super) fn solve_freely(&self, values: &[f64]) -> Vec<f64> {
        let moments = Moments::of(&self.columns, &self.baseline);
        let products = self.products_with(values, &moments);
        let scale = |it: usize| moments.products[it][it].sqrt();
        let coefficient = |(column, row): (usize, Option<Vec<f64>>)| {
            let row = row.into_iter().flatten().enumerate();
            let terms = row
                .filter(|(_, it)| *it != 0.0)
                .map(|(other, it)| it * products[other] / scale(other) / scale(column));
            terms.sum()
        };
        let inverse = moments.inverse_correlations();
        inverse.into_iter().enumerate().map(coefficient).collect()
    }

    /// What of a column the others and the background do not explain, but for a factor.
    pub(super) fn unexplained(&self, column: usize) -> Vec<f64> {
        let moments = Moments::of(&self.columns, &self.baseline);
        let row = moments.inverse_correlations().swap_remove(column);
        let mut unexplained = vec![0.0; self.baseline.len()];
        for (other, factor) in row.into_iter().flatten().enumerate() {
            let factor = factor / moments.products[other][other].sqrt();
            let deviations = deviations(&self.columns[other], &self.baseline);
            for (it, deviation) in unexplained.iter_mut().zip(deviations) {
                *it += if factor.is_finite() {
                    factor * deviation
                } else {
                    0.0
                };
            }
        }
        unexplained
    }

    fn products_with(&self, values: &[f64], moments: &Moments) -> Vec<f64> {
        let values: Vec<_> = deviations(values, &self.baseline).collect();
        let product = |column: &Vec<f64>| product(column, &values);
        moments.deviations.iter().map(product).collect()
    }

    /// What `solution` leaves of the values.
    pub(super) fn residuals(&self, values: &[f64], solution: &Solution) -> Vec<f64> {
        let background = self.baseline.iter().map(|it| it * solution.background);
        let mut residuals: Vec<_> = values.iter().zip(background).map(|(y, b)| y - b).collect();
        for (column, coefficient) in self.columns.iter().zip(&solution.coefficients) {
            for (residual, x) in residuals.iter_mut().zip(column) {
                *residual -= coefficient * x;
            }
        }
        residuals
    }
}

/// Second moments of what in columns is not in proportion to the baseline.
#[derive(Debug)]
pub(super) struct Moments {
    /// How much there is of each column for each of the baseline.
    pub rates: Vec<f64>,
    /// How far each value is from that.
    deviations: Vec<Vec<f64>>,
    /// Symmetric: sums of products of deviations.
    pub products: Vec<Vec<f64>>,
    /// The sum of the baseline's squares.
    baseline: f64,
}

impl Moments {
    pub(super) fn of(columns: &[Vec<f64>], baseline: &[f64]) -> Self {
        let rates = columns.iter().map(|column| rate(column, baseline));
        let of_column = |column: &Vec<f64>| deviations(column, baseline).collect::<Vec<f64>>();
        let deviations: Vec<_> = columns.iter().map(of_column).collect();
        let products = deviations.iter().map(|a| {
            let row = deviations.iter().map(|b| product(a, b));
            row.collect()
        });
        Self {
            rates: rates.collect(),
            products: products.collect(),
            deviations,
            baseline: product(baseline, baseline),
        }
    }

    /// Whether a column says nothing that the baseline does not.
    fn is_constant(&self, column: usize) -> bool {
        self.products[column][column] <= CONSTANT * self.baseline * self.rates[column].powi(2)
    }

    /// The inverse of the correlation matrix, `None` for constant columns' rows: its diagonal is by how
    /// much ties among the columns inflate each coefficient's variance.
    pub(super) fn inverse_correlations(&self) -> Vec<Option<Vec<f64>>> {
        let count = self.rates.len();
        let varied: Vec<usize> = (0..count).filter(|it| !self.is_constant(*it)).collect();
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
}

/// The values of these intervals.
pub(super) fn picked(values: &[f64], intervals: &[usize]) -> Vec<f64> {
    intervals.iter().map(|it| values[*it]).collect()
}

/// How much there is of these values for each of the baseline, by least squares: their mean, if it is all ones.
fn rate(values: &[f64], baseline: &[f64]) -> f64 {
    let squares = product(baseline, baseline);
    if squares > 0.0 {
        product(values, baseline) / squares
    } else {
        0.0
    }
}

/// How far values are from being in proportion to the baseline.
fn deviations(values: &[f64], baseline: &[f64]) -> impl Iterator<Item = f64> {
    let rate = rate(values, baseline);
    values
        .iter()
        .zip(baseline)
        .map(move |(it, by)| it - rate * by)
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The coefficients with the least squares of all that are not negative, by Lawson and Hanson ("Solving Least
/// Squares Problems", chapter 23): exact even where columns are nearly tied, where descents take for ever.
fn not_negative(moments: &Moments, with_values: &[f64]) -> Vec<f64> {
    let scales: Vec<f64> = (0..with_values.len())
        .map(|it| moments.products[it][it].max(0.0).sqrt())
        .collect();
    let scaled = |it: usize, by: f64| {
        if scales[it] > 0.0 {
            by / scales[it]
        } else {
            0.0
        }
    };
    let target: Vec<f64> = (0..with_values.len())
        .map(|it| scaled(it, with_values[it]))
        .collect();
    let correlation = |a: usize, b: usize| match a == b {
        true => 1.0,
        false => scaled(a, scaled(b, moments.products[a][b])),
    };
    let largest = target.iter().fold(0.0, |most: f64, it| most.max(it.abs()));
    let mut free: Vec<usize> = Vec::new();
    let mut found = vec![0.0; target.len()];
    for _ in 0..ROUNDS_EACH * target.len() {
        let gain = |it: usize| {
            let explained: f64 = free
                .iter()
                .map(|by| correlation(it, *by) * found[*by])
                .sum();
            target[it] - explained
        };
        let held = (0..target.len()).filter(|it| scales[*it] > 0.0 && !free.contains(it));
        let best = held
            .map(|it| (gain(it), it))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, next)) = best.filter(|(gain, _)| *gain > TOLERANCE * largest) else {
            break;
        };
        free.push(next);
        settle(&mut free, &mut found, &correlation, &target);
    }
    (0..found.len()).map(|it| scaled(it, found[it])).collect()
}

/// Solves for the free coefficients, without those that would become negative.
fn settle(
    free: &mut Vec<usize>,
    found: &mut [f64],
    correlation: &impl Fn(usize, usize) -> f64,
    target: &[f64],
) {
    while !free.is_empty() {
        let row = |a: &usize| free.iter().map(|b| correlation(*a, *b)).collect();
        let inverse = inverted(free.iter().map(row).collect());
        let wanted: Vec<f64> = inverse
            .iter()
            .map(|row| {
                row.iter()
                    .zip(&*free)
                    .map(|(it, by)| it * target[*by])
                    .sum()
            })
            .collect();
        let steps = free.iter().zip(&wanted);
        let step = steps
            .filter(|(_, wanted)| **wanted <= 0.0)
            .map(|(it, wanted)| found[*it] / (found[*it] - wanted).max(f64::MIN_POSITIVE))
            .fold(1.0, f64::min);
        for (it, wanted) in free.iter().zip(&wanted) {
            found[*it] += step * (wanted - found[*it]);
        }
        if step == 1.0 && wanted.iter().all(|it| *it > 0.0) {
            return;
        }
        let at_bound: Vec<usize> = free
            .iter()
            .zip(&wanted)
            .filter(|(it, wanted)| {
                **wanted <= 0.0 && found[**it] <= f64::EPSILON * target[**it].abs()
            })
            .map(|(it, _)| *it)
            .collect();
        at_bound.iter().for_each(|it| found[*it] = 0.0);
        free.retain(|it| !at_bound.contains(it));
        if at_bound.is_empty() {
            return;
        }
    }
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

    fn with_intercept(columns: Vec<Vec<f64>>) -> Design {
        Design::new(columns, vec![1.0; 4])
    }

    #[test]
    fn a_background_in_proportion_to_the_baseline_is_told_from_what_varies() {
        let columns = vec![vec![4.0, 1.0, 2.0, 3.0]];
        let baseline = vec![2.0, 1.0, 1.0, 3.0];
        let values = [2.0, -1.0, 1.0, -3.0];
        let solution = Design::new(columns.clone(), baseline).solve(&values);
        assert!(
            (solution.coefficients[0] - 2.0).abs() < 1e-9,
            "{solution:?}"
        );
        assert!((solution.background + 3.0).abs() < 1e-9, "{solution:?}");
        let values = [8.0, 2.0, 4.0, 6.0];
        let solution = Design::new(columns, vec![0.0; 4]).solve(&values);
        assert!(
            (solution.coefficients[0] - 2.0).abs() < 1e-9,
            "{solution:?}"
        );
        assert_eq!(solution.background, 0.0);
    }

    #[test]
    fn what_is_solved_freely_may_be_negative() {
        let columns = vec![
            vec![0.0, 1.0, 2.0, 3.0],
            vec![1.0, 0.0, 0.0, 1.0],
            vec![7.0; 4],
        ];
        let values = [3.0, 4.0, 6.0, 9.0];
        let [rises, falls, constant] = with_intercept(columns).solve_freely(&values)[..] else {
            panic!("one a column");
        };
        assert!((rises - 2.0).abs() < 1e-6 && (falls - 1.0).abs() < 1e-6 && constant == 0.0);
        let columns = vec![vec![0.0, 1.0, 2.0, 3.0]];
        let falling = with_intercept(columns).solve_freely(&values.map(|it| -it));
        assert!((falling[0] + 2.0).abs() < 1e-6, "{falling:?}");
    }

    #[test]
    fn a_coefficient_that_would_be_negative_is_zero_and_the_others_make_up_for_it() {
        let columns = vec![vec![0.0, 1.0, 2.0, 3.0], vec![1.0, 0.0, 0.0, 1.0]];
        let values = [5.0, 7.0, 9.0, 11.0];
        let solution = with_intercept(columns.clone()).solve(&values);
        assert!((solution.coefficients[0] - 2.0).abs() < 1e-9 && solution.coefficients[1] < 1e-9);
        assert!((solution.background - 5.0).abs() < 1e-9);
        let falling = with_intercept(columns).solve(&values.map(|it| -it));
        assert_eq!(falling.coefficients, [0.0, 0.0]);
        assert!((falling.background + 8.0).abs() < 1e-9);
    }
}
