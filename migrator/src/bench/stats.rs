//! What is said about many runs: percentiles, and ratios of runs that belong together.

use serde::Serialize;

/// One quantity over all runs, percentiles by nearest rank: each is a value that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many values.
    pub count: usize,
    /// Median.
    pub p50: f64,
    /// Nine of ten are not above.
    pub p90: f64,
    /// 99 of 100 are not above; the largest of fewer than 100.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of `values`; `None` without any. Values that are no numbers are left out.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let max = *values.last()?;
        let rank = |part: f64| {
            let index = (part * values.len() as f64).ceil() as usize;
            values.get(index.saturating_sub(1)).copied().unwrap_or(max)
        };
        Some(Self { count: values.len(), p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), max })
    }
}

/// How one system compares with another that was measured right after it, run by run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Pairs of which both were measured.
    pub pairs: usize,
    /// Median of the one by median of the other.
    pub of_medians: f64,
    /// Median of the ratios of the pairs.
    pub median_of_ratios: f64,
    /// Pairs in which the first was smaller.
    pub smaller: usize,
}

impl Ratio {
    /// Of pairs (ours, theirs); `None` without any, or where theirs is 0.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let ours = Summary::of(pairs.iter().map(|pair| pair.0))?.p50;
        let theirs = Summary::of(pairs.iter().map(|pair| pair.1))?.p50;
        let ratios = pairs.iter().filter(|pair| pair.1 > 0.0).map(|pair| pair.0 / pair.1);
        Some(Self {
            pairs: pairs.len(),
            of_medians: if theirs > 0.0 { ours / theirs } else { return None },
            median_of_ratios: Summary::of(ratios)?.p50,
            smaller: pairs.iter().filter(|pair| pair.0 < pair.1).count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let column = Summary::of((1..=10).rev().map(f64::from)).unwrap();
        assert_eq!((column.p50, column.p90, column.p99, column.max), (5.0, 9.0, 10.0, 10.0));
        let column = Summary::of((1..=200).map(f64::from)).unwrap();
        assert_eq!((column.p50, column.p90, column.p99, column.max), (100.0, 180.0, 198.0, 200.0));
        assert_eq!(Summary::of([7.0]).unwrap().p90, 7.0);
        assert_eq!(Summary::of([f64::NAN, 3.0]).unwrap().count, 1);
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn a_ratio_of_medians_is_not_the_median_of_ratios() {
        let ratio = Ratio::of(&[(1.0, 2.0), (4.0, 2.0), (3.0, 10.0)]).unwrap();
        assert_eq!((ratio.pairs, ratio.of_medians, ratio.median_of_ratios, ratio.smaller), (3, 1.5, 0.5, 2));
        assert_eq!(Ratio::of(&[]), None);
        assert_eq!(Ratio::of(&[(1.0, 0.0)]), None);
    }
}
