//! Repeated measurements of one thing on a noisy machine.

/// One figure a round, in the order of the rounds. Never empty.
#[derive(Clone, Debug)]
pub struct Sample {
    rounds: Vec<f64>,
}

impl Sample {
    /// Of one figure a round.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn of(rounds: Vec<f64>) -> Self {
        assert!(!rounds.is_empty(), "a sample has at least one round");
        Self { rounds }
    }

    /// The middle one; of two in the middle, the mean.
    pub fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        }
    }

    pub fn min(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn max(&self) -> f64 {
        self.rounds
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max)
    }

    /// Round by round: what slows a whole round down is in both, and drops out.
    pub fn ratio_to(&self, base: &Self) -> Self {
        self.paired(base, |own, base| own / base)
    }

    /// Round by round.
    pub fn minus(&self, base: &Self) -> Self {
        self.paired(base, |own, base| own - base)
    }

    /// Round by round.
    pub fn plus(&self, other: &Self) -> Self {
        self.paired(other, |own, other| own + other)
    }

    fn paired(&self, base: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        let pairs = self.rounds.iter().zip(&base.rounds);
        Self::of(pairs.map(|(&own, &base)| combine(own, base)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(Sample::of(vec![9.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Sample::of(vec![9.0, 1.0, 2.0, 4.0]).median(), 3.0);
    }

    #[test]
    fn a_round_that_is_slow_for_both_leaves_their_ratio_as_it_is() {
        let base = Sample::of(vec![10.0, 50.0, 10.0]);
        let own = Sample::of(vec![20.0, 100.0, 20.0]);
        let ratio = own.ratio_to(&base);
        assert_eq!((ratio.min(), ratio.max()), (2.0, 2.0));
    }
}
