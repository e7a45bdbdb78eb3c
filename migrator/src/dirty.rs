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

/// A part of the memory that was cleared at one time in a round, and looked at twice after that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// From its clearing to the first look, seconds.
    pub first_s: f64,
    /// Its pages that were dirty then.
    pub first_pages: u64,
    /// From its clearing to the second look, seconds.
    pub second_s: f64,
    /// Its pages that were dirty then.
    pub second_pages: u64,
}

/// Two windows for [`DirtyModel::fit`] from one round: how `parts` grew, scaled to all `pages` that were dirty at the second look.
/// The windows are as long as those parts had, on average, in which pages became dirty; `None` if that was in none.
pub fn windows_within(parts: &[Part], pages: u64) -> Option<[(f64, f64); 2]> {
    let sum = |of: fn(&Part) -> f64| parts.iter().map(of).sum::<f64>();
    let (first, second) = (sum(|part| part.first_pages as f64), sum(|part| part.second_pages as f64));
    if first <= 0.0 || second <= 0.0 {
        return None;
    }
    let scale = pages as f64 / second;
    let first_s = sum(|part| part.first_s * part.second_pages as f64) / second;
    let second_s = sum(|part| part.second_s * part.second_pages as f64) / second;
    Some([(first_s, first * scale), (second_s, second * scale)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of one second over `PARTS` equal parts, looked at in its middle and at its end; `model` says what becomes dirty
    /// in `written` of them.
    fn round(model: &DirtyModel, written: std::ops::Range<usize>) -> Option<DirtyModel> {
        const PARTS: usize = 100;
        let share = |seconds: f64| (model.after(seconds) / written.len() as f64).round() as u64;
        let cleared = |at: usize| at as f64 / PARTS as f64;
        let pages = written.clone().map(|at| share(1.0 - cleared(at))).sum();
        let part = |at: usize| {
            let (first_s, second_s) = (0.5 - cleared(at), 1.0 - cleared(at));
            let pages = |seconds| if written.contains(&at) { share(seconds) } else { 0 };
            Part { first_s, first_pages: pages(first_s), second_s, second_pages: pages(second_s) }
        };
        let parts: Vec<_> = (0..PARTS / 2).map(part).collect();
        windows_within(&parts, pages).map(|windows| DirtyModel::fit(&windows))
    }

    #[test]
    fn one_round_tells_a_working_set_that_is_written_through_from_growth() {
        let saturated = DirtyModel { pages_per_s: 1e6, working_set_pages: 16_384.0 };
        for written in [0..100, 10..20, 40..49, 0..50] {
            let model = round(&saturated, written.clone()).unwrap();
            assert!(model.after(0.2) > 0.9 * 16_384.0, "{written:?} {model:?}");
            assert!(model.after(10.0) < 1.1 * 16_384.0, "{written:?} {model:?}");
        }
        let growing = DirtyModel::linear(100_000.0);
        for written in [10..20, 40..49, 0..50] {
            let model = round(&growing, written.clone()).unwrap();
            assert!((model.after(0.5) / 50_000.0 - 1.0).abs() < 0.05, "{written:?} {model:?}");
            assert!((model.after(2.0) / 200_000.0 - 1.0).abs() < 0.1, "{written:?} {model:?}");
        }
        // Behind what was cleared at the first look: nothing is known.
        assert_eq!(round(&saturated, 60..90), None);
        assert_eq!(windows_within(&[], 5), None);
    }

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
