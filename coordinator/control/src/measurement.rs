//! What was measured of one migration.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a migration is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// Seconds from the request to the end, without the time it waited for others to switch over with.
    pub total_s: f64,
    /// Milliseconds in which the partition does not run.
    pub blackout_ms: f64,
}

/// One migration, as the source measured it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveReport {
    /// Seconds from the request to the end.
    pub total_s: f64,
    /// Milliseconds in which the partition did not run.
    pub blackout_ms: f64,
    /// Bytes sent.
    pub bytes: u64,
    /// Pre-copy rounds.
    pub rounds: u32,
    /// Why pre-copy stopped.
    pub stop_reason: String,
}
