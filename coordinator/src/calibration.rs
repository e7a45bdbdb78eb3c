//! How well moves are predicted: predictions from the record of measured moves, and what to multiply their cost with.
//!
//! A partition that has moved before is expected to take as long as the median of its latest moves; another one as long as its
//! memory takes at the median speed of past moves. Costs are the prediction times the 90th percentile of actual / predicted.

use std::collections::BTreeMap;

use control::{ApplicationId, CalibrationMove, CalibrationView, MoveReport, Percentiles, Prediction, Rank};

use crate::state::{MovePhase, State};

/// Moves that are looked at, the newest.
const MOVES_MAX: usize = 256;
/// Moves of one partition that say what its next one takes, the newest: one of them that was disturbed changes little.
const MOVES_OF_ONE_MAX: usize = 9;
/// Moves before which nothing is concluded from them.
const MOVES_MIN: usize = 5;
/// Assumed speed of a copy until one was measured, in bytes per second.
const COPY_BYTES_PER_S: f64 = 500e6;
/// Assumed blackout until one was measured.
const BLACKOUT_MS: f64 = 300.0;
/// A cost is never multiplied by more than this, or less than its inverse.
const FACTOR_MAX: f64 = 20.0;

/// What past moves say about the next.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    bytes_per_s: Option<f64>,
    blackout_ms: Option<f64>,
    of_partition: BTreeMap<(ApplicationId, Rank), Prediction>,
    factor: Option<(f64, f64)>,
}

/// The value that a share of the sorted values does not exceed (nearest rank).
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// What the next move of each partition takes, as far as its own ones say.
fn of_partitions(state: &State) -> BTreeMap<(ApplicationId, Rank), Prediction> {
    let mut measured: BTreeMap<(&ApplicationId, Rank), Vec<&MoveReport>> = BTreeMap::new();
    for it in state.moves.values().rev().filter(|it| it.phase == MovePhase::Done) {
        let Some(report) = &it.measured else { continue };
        let latest = measured.entry((&it.application, it.rank)).or_default();
        if latest.len() < MOVES_OF_ONE_MAX {
            latest.push(report);
        }
    }
    let median = |latest: &[&MoveReport], of: fn(&MoveReport) -> f64| {
        percentile(&sorted(latest.iter().map(|report| of(report))), 0.5)
    };
    let predict = |latest: &[&MoveReport]| {
        let total_s = median(latest, |report| report.total_s)?;
        Some(Prediction { total_s, blackout_ms: median(latest, |report| report.blackout_ms)? })
    };
    let named = |((application, rank), latest): (_, Vec<_>)| {
        Some(((ApplicationId::clone(application), rank), predict(&latest)?))
    };
    measured.into_iter().filter_map(named).collect()
}

fn ratio(actual: f64, predicted: f64) -> f64 {
    actual / predicted.max(f64::MIN_POSITIVE)
}

impl Calibration {
    /// From the moves of the state.
    pub fn of(state: &State) -> Self {
        let done = || {
            let moves = state.moves.values().rev().filter(|it| it.phase == MovePhase::Done);
            moves.filter_map(|it| Some((it.measured.as_ref()?, it.predicted))).take(MOVES_MAX)
        };
        let speeds = done().filter(|(it, _)| it.total_s > 0.0 && it.bytes > 0);
        let speeds = sorted(speeds.map(|(it, _)| it.bytes as f64 / it.total_s));
        let blackouts = sorted(done().map(|(it, _)| it.blackout_ms));
        let both = || done().filter_map(|(actual, predicted)| Some((actual, predicted?)));
        let totals = sorted(both().map(|(actual, it)| ratio(actual.total_s, it.total_s)));
        let dark = sorted(both().map(|(actual, it)| ratio(actual.blackout_ms, it.blackout_ms)));
        let enough = totals.len() >= MOVES_MIN;
        Self {
            bytes_per_s: percentile(&speeds, 0.5),
            blackout_ms: percentile(&blackouts, 0.5),
            of_partition: of_partitions(state),
            factor: percentile(&totals, 0.9).zip(percentile(&dark, 0.9)).filter(|_| enough),
        }
    }

    /// What a move of a partition of so many bytes takes.
    pub fn predict(&self, application: &ApplicationId, rank: Rank, bytes: u64) -> Prediction {
        self.of_partition.get(&(application.clone(), rank)).copied().unwrap_or(Prediction {
            total_s: bytes as f64 / self.bytes_per_s.unwrap_or(COPY_BYTES_PER_S),
            blackout_ms: self.blackout_ms.unwrap_or(BLACKOUT_MS),
        })
    }

    /// The prediction as the planner counts it.
    pub fn cost(&self, it: Prediction) -> Prediction {
        let (total, blackout) = self.factor.unwrap_or((1.0, 1.0));
        let within = |factor: f64| factor.clamp(1.0 / FACTOR_MAX, FACTOR_MAX);
        Prediction { total_s: it.total_s * within(total), blackout_ms: it.blackout_ms * within(blackout) }
    }
}

/// Did the move take more than twice as long as predicted (and not only by a moment)?
pub fn is_far_off(predicted: &Prediction, actual: &MoveReport) -> bool {
    const MOMENT_S: f64 = 0.5;
    actual.total_s > 2.0 * predicted.total_s + MOMENT_S
        || actual.blackout_ms > 2.0 * predicted.blackout_ms + 1000.0 * MOMENT_S
}

/// The table of all moves with a prediction, and how far off they were.
pub fn table(state: &State) -> CalibrationView {
    let row = |(id, it): (&u64, &crate::state::Move)| {
        let (predicted, actual) = (it.predicted?, it.measured.clone()?);
        Some(CalibrationMove {
            id: *id,
            application: it.application.clone(),
            rank: it.rank,
            predicted,
            actual_total_s: actual.total_s,
            actual_blackout_ms: actual.blackout_ms,
            duration_ratio: ratio(actual.total_s, predicted.total_s),
            blackout_ratio: ratio(actual.blackout_ms, predicted.blackout_ms),
        })
    };
    let done = state.moves.iter().filter(|(_, it)| it.phase == MovePhase::Done);
    let moves: Vec<CalibrationMove> = done.filter_map(row).collect();
    let newest = || moves.iter().rev().take(MOVES_MAX);
    let percentiles = |values: Vec<f64>| {
        let errors = sorted(values.iter().map(|ratio| (ratio - 1.0).abs()));
        let values = sorted(values.into_iter());
        let of = |share| percentile(&values, share).unwrap_or(1.0);
        Percentiles {
            p50: of(0.5),
            p90: of(0.9),
            p99: of(0.99),
            error_p50: percentile(&errors, 0.5).unwrap_or(0.0),
            error_p90: percentile(&errors, 0.9).unwrap_or(0.0),
        }
    };
    let factor = Calibration::of(state).factor.unwrap_or((1.0, 1.0));
    CalibrationView {
        duration: percentiles(newest().map(|it| it.duration_ratio).collect()),
        blackout: percentiles(newest().map(|it| it.blackout_ratio).collect()),
        cost_factor: factor,
        moves,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!((percentile(&values, 0.5), percentile(&values, 0.9)), (Some(5.0), Some(9.0)));
        assert_eq!((percentile(&values[..1], 0.9), percentile(&[], 0.9)), (Some(1.0), None));
    }

    #[test]
    fn a_cost_is_what_nine_of_ten_moves_keep_to() {
        let calibration = Calibration {
            bytes_per_s: Some(1e6),
            blackout_ms: Some(10.0),
            factor: Some((1.5, 1e9)),
            ..Calibration::default()
        };
        let predicted = calibration.predict(&"heat-1".parse().unwrap(), 0, 2_000_000);
        assert_eq!(predicted, Prediction { total_s: 2.0, blackout_ms: 10.0 });
        assert_eq!(calibration.cost(predicted), Prediction { total_s: 3.0, blackout_ms: 200.0 });
        let slow = MoveReport { total_s: 4.6, blackout_ms: 10.0, ..MoveReport::default() };
        assert!(is_far_off(&predicted, &slow));
        assert!(!is_far_off(&predicted, &MoveReport { total_s: 4.4, ..slow }));
    }

    #[test]
    fn a_partition_is_expected_to_take_the_median_of_its_latest_moves() {
        let mut state = State::default();
        let heat: ApplicationId = "heat-1".parse().unwrap();
        // The oldest two no longer count; one of the others was disturbed.
        let blackouts = [90.0, 90.0, 4.0, 5.0, 3.0, 500.0, 4.0, 6.0, 5.0, 4.0, 5.0];
        for (id, blackout_ms) in (1..).zip(blackouts) {
            let measured = MoveReport { total_s: blackout_ms / 10.0, blackout_ms, ..MoveReport::default() };
            let it = crate::state::Move {
                application: heat.clone(),
                rank: 1,
                from: "a".parse().unwrap(),
                from_epoch: id,
                to: "b".parse().unwrap(),
                epoch: id + 1,
                reason: String::new(),
                explanation: None,
                phase: MovePhase::Done,
                failure: None,
                time_ms: id,
                measured: Some(measured),
                predicted: None,
            };
            state.moves.insert(id, it);
        }
        let calibration = Calibration::of(&state);
        assert_eq!(calibration.predict(&heat, 1, 1 << 20), Prediction { total_s: 0.5, blackout_ms: 5.0 });
        // Another one has no moves of its own.
        assert_eq!(calibration.predict(&heat, 0, 1 << 20).blackout_ms, 5.0);
    }
}
