//! How predictions of moves compare with what was measured.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ApplicationId, MoveId, Prediction, Rank};

/// One move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CalibrationMove {
    /// Its number.
    pub id: MoveId,
    /// Application.
    pub application: ApplicationId,
    /// Rank.
    pub rank: Rank,
    /// What was predicted.
    pub predicted: Prediction,
    /// Seconds that it took.
    pub actual_total_s: f64,
    /// Milliseconds in which the partition did not run.
    pub actual_blackout_ms: f64,
    /// Actual / predicted duration.
    pub duration_ratio: f64,
    /// Actual / predicted blackout.
    pub blackout_ratio: f64,
}

/// Percentiles of actual / predicted, and of its distance from 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 90th.
    pub p90: f64,
    /// 99th.
    pub p99: f64,
    /// Median of |ratio - 1|.
    pub error_p50: f64,
    /// 90th of |ratio - 1|.
    pub error_p90: f64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CalibrationView {
    /// Moves with a prediction, in order.
    pub moves: Vec<CalibrationMove>,
    /// Of the newest of them.
    pub duration: Percentiles,
    /// Of the newest of them.
    pub blackout: Percentiles,
    /// What the planner multiplies predicted durations and blackouts with.
    pub cost_factor: (f64, f64),
}
