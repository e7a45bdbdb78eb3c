//! What was measured over time, and who talks to whom, as the coordinator tells it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ApplicationId, HostName, Rank};

/// Values of one host or partition at regular times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesView {
    /// The host, if it is one's.
    pub host: Option<HostName>,
    /// The application, if it is a partition's.
    pub application: Option<ApplicationId>,
    /// The rank, if it is a partition's.
    pub rank: Option<Rank>,
    /// Beginning of the first interval, Unix milliseconds; each interval is `period_ms` long.
    pub first_ms: u64,
    /// One list per name, in the order of the answer's `names`: the mean of each interval, null where nothing was measured.
    pub values: Vec<Vec<Option<f32>>>,
}

/// Answer to `/v1/series`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesAnswer {
    /// Length of an interval, milliseconds.
    pub period_ms: u64,
    /// Intervals that are kept.
    pub kept: usize,
    /// Names, with units last.
    pub names: Vec<String>,
    /// The series.
    pub series: Vec<SeriesView>,
}

/// What one partition sends to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrafficPair {
    /// Sender.
    pub from: Rank,
    /// Receiver.
    pub to: Rank,
    /// Are they on different hosts now?
    pub remote: bool,
    /// Bytes per second, smoothed.
    pub bytes_per_s: f64,
    /// Bytes since the start.
    pub bytes: u64,
    /// Messages since the start.
    pub messages: u64,
    /// Median of the recent times from a frame to its acknowledgement, in nanoseconds; null between partitions of one host.
    pub round_trip_ns: Option<u64>,
}

/// Communication matrix of an application: pairs that have exchanged something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrafficView {
    /// The application.
    pub application: ApplicationId,
    /// Its ranks.
    pub ranks: u32,
    /// Bytes per second between different hosts.
    pub remote_bytes_per_s: f64,
    /// Bytes per second within hosts.
    pub local_bytes_per_s: f64,
    /// By sender, then receiver.
    pub pairs: Vec<TrafficPair>,
}
