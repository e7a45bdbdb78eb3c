//! How much of a partition's memory becomes dirty in a time: a saturating model fitted to what the dirty log said (pure).
//!
//! A program that writes at random in a working set of W pages, at first r pages per second, has
//! D(t) = W (1 - exp(-r t / W)) dirty pages after t seconds: r t while that is little, and never more than W.

/// Windows whose lengths differ by less than this factor do not tell growth from saturation.
const RATIO_MIN: f64 = 1.3;
/// Halvings of the interval in which the time constant is looked for.
const HALVINGS: u32 = 60;

/// Pages dirty after a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DirtyModel {
    /// Rate at the beginning.
    pub pages_per_s: f64,
    /// Pages that are ever written; infinite when the windows show no saturation.
    pub working_set_pages: f64,
}

impl DirtyModel {
    /// A program that writes other pages all the time.
    pub fn linear(pages_per_s: f64) -> Self {
        Self { pages_per_s, working_set_pages: f64::INFINITY }
    }

    /// From windows (seconds, pages dirty at their end), the latest last: the last one, and the latest before it whose length
    /// is different enough. The model goes through both if they saturate, else through the last.
    pub fn fit(windows: &[(f64, f64)]) -> Self {
        let Some((&last, before)) = windows.split_last() else { return Self::linear(0.0) };
        let (seconds, pages) = last;
        if seconds <= 0.0 || pages <= 0.0 {
            return Self::linear(0.0);
        }
        let differs = |(other, dirty): &&(f64, f64)| {
            *other > 0.0 && *dirty > 0.0 && (other / seconds).max(seconds / other) >= RATIO_MIN
        };
        let line = Self::linear(pages / seconds);
        let Some(&other) = before.iter().rev().find(differs) else { return line };
        let (short, long) = if other.0 < seconds { (other, last) } else { (last, other) };
        // A line has D(long) / D(short) = long / short; a working set that is written through and through has 1.
        let grown = long.1 / short.1;
        if grown >= long.0 / short.0 {
            return line;
        }
        let growth = |tau: f64| (1.0 - (-long.0 / tau).exp()) / (1.0 - (-short.0 / tau).exp());
        let (mut low, mut high) = (short.0 * 1e-3, long.0 * 1e3);
        for _ in 0..HALVINGS {
            let middle = (low * high).sqrt();
            if growth(middle) < grown { low = middle } else { high = middle }
        }
        // Through the last window in any case: it is what the program does now.
        let working_set_pages = pages / (1.0 - (-seconds / high).exp());
        Self { pages_per_s: working_set_pages / high, working_set_pages }
    }

    /// Pages dirty after `seconds`.
    pub fn after(&self, seconds: f64) -> f64 {
        if self.working_set_pages.is_infinite() {
            return self.pages_per_s * seconds;
        }
        let part = -(-self.pages_per_s * seconds / self.working_set_pages.max(1.0)).exp_m1();
        self.working_set_pages * part
    }

    /// The model of the same program when it runs `factor` of the time it ran.
    #[must_use]
    pub fn slowed(&self, factor: f64) -> Self {
        Self { pages_per_s: self.pages_per_s * factor, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saturating_program_is_recognised_from_two_windows() {
        let real = DirtyModel { pages_per_s: 200_000.0, working_set_pages: 65_536.0 };
        for lengths in [[1.0, 0.1], [0.1, 0.4], [0.05, 0.02], [2.0, 0.5]] {
            let windows = lengths.map(|seconds| (seconds, real.after(seconds)));
            let model = DirtyModel::fit(&windows);
            assert!(
                (model.working_set_pages / real.working_set_pages - 1.0).abs() < 0.05,
                "{lengths:?} {model:?}"
            );
            assert!((model.pages_per_s / real.pages_per_s - 1.0).abs() < 0.10, "{lengths:?} {model:?}");
        }
    }

    #[test]
    fn growth_without_an_end_and_single_windows_are_lines() {
        let line = DirtyModel::linear(1000.0);
        assert_eq!(DirtyModel::fit(&[(0.5, 500.0)]), line);
        assert_eq!(DirtyModel::fit(&[(1.0, 1000.0), (0.5, 500.0)]), line);
        assert_eq!(DirtyModel::fit(&[(0.5, 700.0), (0.51, 510.0)]).working_set_pages, f64::INFINITY);
        assert_eq!(DirtyModel::fit(&[]).after(5.0), 0.0);
        assert_eq!(DirtyModel::fit(&[(1.0, 10.0), (1.0, 0.0)]).after(5.0), 0.0);
    }

    #[test]
    fn no_windows_give_a_model_that_is_no_number_or_shrinks_with_time() {
        let mut state = 3u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % bound) as f64
        };
        for _ in 0..5_000 {
            let windows: Vec<_> = (0..4).map(|_| (random(1000) / 100.0, random(1 << 20))).collect();
            let model = DirtyModel::fit(&windows);
            let (soon, later) = (model.after(0.1), model.after(1.0));
            assert!(soon.is_finite() && soon >= 0.0 && later >= soon, "{windows:?} {model:?}");
            let (seconds, pages) = windows[3];
            if seconds > 0.0 {
                assert!((model.after(seconds) - pages).abs() <= 1e-6 * pages + 1e-6, "{windows:?} {model:?}");
            }
        }
    }
}
