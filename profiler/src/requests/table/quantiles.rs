//! Percentiles of any number of values in bounded space.

use std::collections::BTreeMap;

/// How many bits of a value are kept. The bits that follow are lost, so the middle of a bucket is
/// off by at most 1 part in 256.
const BITS: u32 = 8;

/// A histogram whose buckets grow with the values. There are at most 128 buckets in an octave, and
/// only those that hold something.
#[derive(Debug, Default)]
pub(super) struct Quantiles {
    /// How many values are in a bucket, by the middle of the bucket.
    buckets: BTreeMap<i64, u64>,
    count: u64,
    least: Option<i64>,
    most: Option<i64>,
}

impl Quantiles {
    pub(super) fn add(&mut self, value: i64) {
        *self.buckets.entry(middle(value)).or_default() += 1;
        self.count += 1;
        self.least = self.least.min(Some(value)).or(Some(value));
        self.most = self.most.max(Some(value));
    }

    pub(super) const fn max(&self) -> Option<i64> {
        self.most
    }

    /// Finds the smallest value that at least `percent` of all values do not exceed.
    pub(super) fn at(&self, percent: u64) -> Option<i64> {
        let rank = (self.count.saturating_mul(percent)).div_ceil(100).max(1);
        let mut below = 0;
        let mut buckets = self.buckets.iter();
        let found = buckets.find(|(_, count)| {
            below += **count;
            below >= rank
        });
        // The middle of a bucket may lie beyond all values in the bucket.
        found
            .map(|(middle, _)| (*middle).max(self.least.unwrap_or(*middle)))
            .map(|value| value.min(self.most.unwrap_or(value)))
    }
}

/// Returns the middle of the bucket that holds `value`. A small value has a bucket of its own.
fn middle(value: i64) -> i64 {
    let size = value.unsigned_abs();
    let shift = (u64::BITS - size.leading_zeros()).saturating_sub(BITS);
    let low = size >> shift << shift;
    let middle = low + ((1 << shift) >> 1);
    let middle = i64::try_from(middle).unwrap_or(i64::MAX);
    if value < 0 { -middle } else { middle }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[i64]) -> Quantiles {
        let mut quantiles = Quantiles::default();
        values.iter().for_each(|value| quantiles.add(*value));
        quantiles
    }

    #[test]
    fn nothing_has_no_percentile_and_one_value_is_every_one() {
        assert_eq!(of(&[]).at(50), None);
        for value in [0, 1_234_567, -1_234_567, i64::MAX, i64::MIN + 1, i64::MIN] {
            assert_eq!(of(&[value]).at(95), Some(value));
            assert_eq!(of(&[value]).max(), Some(value));
        }
    }

    #[test]
    fn small_values_are_exact() {
        let quantiles = of(&(1..=100).collect::<Vec<_>>());
        assert_eq!(
            [1, 50, 95, 100].map(|percent| quantiles.at(percent)),
            [1, 50, 95, 100].map(Some)
        );
    }

    #[test]
    fn a_million_values_take_some_hundred_buckets() {
        let quantiles = of(&(0..1_000_000).collect::<Vec<_>>());
        assert!(
            quantiles.buckets.len() < 2000,
            "{}",
            quantiles.buckets.len()
        );
    }

    proptest! {
        #[test]
        fn percentiles_are_as_near_as_promised(mut values in vec(any::<i64>(), 1..200), scale in 0..63u32, percent in 1..=100u64) {
            values.iter_mut().for_each(|value| *value >>= scale);
            let told = of(&values).at(percent).expect("there are values");
            values.sort_unstable();
            let rank = (values.len() as u64 * percent).div_ceil(100) as usize;
            let exact = i128::from(values[rank - 1]);
            prop_assert!((i128::from(told) - exact).abs() * 256 <= exact.abs());
        }
    }
}
