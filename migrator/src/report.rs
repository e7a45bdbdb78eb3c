//! What callers send and get: the JSON of `docs/vmm-api.md`, and the checked request made from it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::codec::{Codec, Compression};
use crate::partition::{Moment, PAGE_SIZE, Share};
use crate::policy::{Next, OnTimeout, StopReason};
use crate::transport::{Address, Security, Timeouts, Transport};
use crate::wire::STREAMS_MAX;

/// Body of `POST /v1/migrate`; everything but `to` is optional.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrateRequest {
    /// Where a destination listens.
    pub to: Address,
    /// Epoch the destination will own; the source's plus one by default.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// Page streams, 1 to 16.
    #[serde(default = "one")]
    pub streams: u8,
    /// Cap over all streams, bytes per second; lifted in the blackout.
    #[serde(default)]
    pub bandwidth_bytes_per_s: Option<u64>,
    /// Ceiling of the predicted blackout.
    #[serde(default = "default_downtime_limit_ms")]
    pub downtime_limit_ms: u64,
    /// Time after which `on_timeout` applies.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u64,
    /// What to do when it does not converge in time.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// Do not switch over before `POST /v1/migrate/switch` or the time-out: others have to come as far first.
    #[serde(default)]
    pub await_switch: bool,
    /// How long the pause may wait for a good moment: the program sleeps for messages, or says that a move would suit it.
    #[serde(default = "default_patience_ms")]
    pub patience_ms: u64,
    /// Whether pages are packed on the wire.
    #[serde(default)]
    pub compression: Compression,
    /// How pages get into the destination's memory.
    #[serde(default)]
    pub transport: Transport,
    /// Allow a destination that is not on this machine although the connection is plain, or pages go by RDMA.
    #[serde(default)]
    pub insecure: bool,
    /// Certificate, key and CA for this migration, in place of those of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<partita_tls::Options>,
}

fn one() -> u8 {
    1
}

fn default_downtime_limit_ms() -> u64 {
    300
}

fn default_timeout_s() -> u64 {
    60
}

fn default_patience_ms() -> u64 {
    10
}

/// Why a request cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Number of streams out of range.
    #[error("streams is {0}: use 1 to {STREAMS_MAX}")]
    Streams(u8),
    /// Pages that are written one-sided cannot be packed.
    #[error("compression is not for transport rdma: leave it out, or use transport tcp")]
    Compression,
    /// A cap of zero bytes per second.
    #[error("bandwidth_bytes_per_s is 0: leave it out for no cap")]
    Bandwidth,
    /// The epoch does not grow.
    #[error(
        "epoch {requested} is not higher than the partition's epoch {current}: ask for {current} + 1 or more"
    )]
    Epoch {
        /// What the request asked for.
        requested: u64,
        /// What the source owns.
        current: u64,
    },
    /// A time-out of zero or beyond a week.
    #[error("timeout_s is {0}: use 1 to {TIMEOUT_S_MAX}")]
    Timeout(u64),
    /// The switch-over would wait too long.
    #[error("patience_ms is {0}: use 0 to {PATIENCE_MS_MAX}")]
    Patience(u64),
    /// The switch-over would wait for others too long.
    #[error("timeout_s is {0}: with await_switch use {AWAIT_SWITCH_S_MAX} at most")]
    AwaitSwitch(u64),
}

/// Longest `timeout_s` with `await_switch`.
pub const AWAIT_SWITCH_S_MAX: u64 = 600;

/// Longest `patience_ms`.
pub const PATIENCE_MS_MAX: u64 = 1000;

/// Longest `timeout_s`: a week.
pub const TIMEOUT_S_MAX: u64 = 7 * 24 * 3600;

impl MigrateRequest {
    /// A request to `to` with the defaults.
    pub fn new(to: Address) -> Self {
        Self {
            to,
            epoch: None,
            streams: one(),
            bandwidth_bytes_per_s: None,
            downtime_limit_ms: default_downtime_limit_ms(),
            timeout_s: default_timeout_s(),
            on_timeout: OnTimeout::Abort,
            await_switch: false,
            patience_ms: default_patience_ms(),
            compression: Compression::default(),
            transport: Transport::default(),
            insecure: false,
            tls: None,
        }
    }

    /// Checks the request of a partition that owns `current_epoch`.
    ///
    /// # Errors
    /// The first field that cannot be carried out.
    pub fn check(&self, current_epoch: u64) -> Result<Request, RequestError> {
        let epoch = self.epoch.unwrap_or(current_epoch.saturating_add(1));
        if epoch <= current_epoch {
            return Err(RequestError::Epoch { requested: epoch, current: current_epoch });
        }
        if !(1..=STREAMS_MAX).contains(&self.streams) {
            return Err(RequestError::Streams(self.streams));
        }
        if self.transport == Transport::Rdma
            && matches!(self.compression, Compression::Lz4 | Compression::Zstd)
        {
            return Err(RequestError::Compression);
        }
        if self.bandwidth_bytes_per_s == Some(0) {
            return Err(RequestError::Bandwidth);
        }
        if !(1..=TIMEOUT_S_MAX).contains(&self.timeout_s) {
            return Err(RequestError::Timeout(self.timeout_s));
        }
        if self.await_switch && self.timeout_s > AWAIT_SWITCH_S_MAX {
            return Err(RequestError::AwaitSwitch(self.timeout_s));
        }
        if self.patience_ms > PATIENCE_MS_MAX {
            return Err(RequestError::Patience(self.patience_ms));
        }
        Ok(Request {
            to: self.to.clone(),
            security: Security { insecure: self.insecure, identity: None },
            epoch,
            streams: self.streams,
            compression: self.compression,
            transport: self.transport,
            bandwidth_bytes_per_s: self.bandwidth_bytes_per_s,
            downtime_limit: Duration::from_millis(self.downtime_limit_ms),
            timeout: Duration::from_secs(self.timeout_s),
            on_timeout: self.on_timeout,
            await_switch: self.await_switch,
            patience: Duration::from_millis(self.patience_ms),
            timeouts: Timeouts::default(),
        })
    }
}

/// A checked request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the destination listens.
    pub to: Address,
    /// What connections may do without, and who this side is.
    pub security: Security,
    /// Epoch the destination will own.
    pub epoch: u64,
    /// Page streams, 1 to 16.
    pub streams: u8,
    /// Whether pages are packed on the wire.
    pub compression: Compression,
    /// How pages get into the destination's memory.
    pub transport: Transport,
    /// Cap over all streams, lifted in the blackout.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// Ceiling of the predicted blackout.
    pub downtime_limit: Duration,
    /// When to stop trying to converge.
    pub timeout: Duration,
    /// What to do at the time-out.
    pub on_timeout: OnTimeout,
    /// Do not switch over before [`Control::switch`](crate::control::Control::switch) or the time-out.
    pub await_switch: bool,
    /// How long the pause may wait for a good moment.
    pub patience: Duration,
    /// How long to wait for the other side, step by step.
    pub timeouts: Timeouts,
}

/// One round as it was.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RoundReport {
    /// Pages handled, zero pages included.
    pub pages: u64,
    /// Pages of zeros, sent as a mark only.
    pub zero_pages: u64,
    /// Pages that went packed.
    #[serde(default)]
    pub packed_pages: u64,
    /// How pages were packed at the end of the round; null: not at all.
    #[serde(default)]
    pub codec: Option<Codec>,
    /// Bytes on the wire, headers included.
    pub bytes: u64,
    /// From the first page to the last acknowledgement (the blackout round: to the last byte handed to the kernel).
    pub seconds: f64,
    /// Pages dirty when the round was over; 0 after the blackout round.
    pub dirty_pages_after: u64,
    /// The part of the time that the partition might run in this round; less than all is a brown-out. Absent: all.
    #[serde(default)]
    pub share: Option<Share>,
    /// What was decided after it; absent after the blackout round.
    #[serde(default)]
    pub next: Option<Next>,
    /// The blackout if the switch-over had come then, milliseconds.
    #[serde(default)]
    pub predicted_blackout_ms: Option<f64>,
}

/// Adds a round. Of those after which the partition only waited for others the first and the last tell enough.
pub(crate) fn note_round(rounds: &mut Vec<RoundReport>, round: RoundReport) {
    if let [.., before, last] = &rounds[..]
        && before.awaits_switch()
        && last.awaits_switch()
    {
        rounds.pop();
    }
    rounds.push(round);
}

/// What RDMA cost before the first page.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RdmaReport {
    /// libfabric's name of the provider.
    pub provider: String,
    /// Whether writes completed with FI_DELIVERY_COMPLETE; else a read behind them proved that they are visible.
    pub delivery_complete: bool,
    /// The destination registered its memory, before ACCEPT.
    pub registered_ms: f64,
    /// The source registered its buffers and reached the destination on every stream, before round 0.
    pub connected_ms: f64,
}

/// What was predicted, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Prediction {
    /// Made after round 0.
    pub predicted_total_s: f64,
    /// From the request to RUNNING, without the time it waited for others.
    pub actual_total_s: f64,
    /// Made when the switch-over was decided.
    pub predicted_blackout_ms: f64,
    /// From asking for the pause to RUNNING.
    pub actual_blackout_ms: f64,
}

/// The partition ran slower before the blackout.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Brownout {
    /// The smallest part of the time that it might run, in thousandths.
    pub least_share: Share,
    /// For how long it ran less than it wanted to, seconds.
    pub seconds: f64,
}

impl RoundReport {
    /// Whether the partition could switch over when it was over, and waited for others.
    pub fn awaits_switch(&self) -> bool {
        self.next == Some(Next::AwaitSwitch)
    }

    /// Bytes of memory that the round carried: more than went over the wire if they were packed, without pages of zeros.
    pub fn memory_bytes(&self) -> u64 {
        (self.pages - self.zero_pages.min(self.pages)) * PAGE_SIZE as u64
    }

    /// Pages dirtied per second while the round ran.
    pub fn dirty_pages_per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.dirty_pages_after as f64 / self.seconds } else { 0.0 }
    }
}

/// Where the blackout went, milliseconds each; the parts overlap only where they say so.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Breakdown {
    /// Stopping the vCPU and the fabric.
    pub pause_ms: f64,
    /// Reading the last dirty bitmap.
    pub harvest_ms: f64,
    /// Saving the state, while the last pages go out.
    pub save_ms: f64,
    /// Sending the last pages (contains `save_ms` when the pages take longer).
    pub pages_ms: f64,
    /// From sending the state until READY: transfer, checks and restore at the destination.
    pub ready_ms: f64,
    /// From COMMIT until RUNNING.
    pub commit_ms: f64,
}

/// Answer of `POST /v1/migrate`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MigrateReport {
    /// Epoch the destination owns, or would have owned.
    pub epoch: u64,
    /// From the request to RUNNING (or to the failure).
    pub total_s: f64,
    /// From asking for the pause to RUNNING, or to the resume at the source; 0 when it never paused.
    pub blackout_ms: f64,
    /// Bytes on the wire, both memory and state.
    pub bytes: u64,
    /// How often the connections broke and the move went on with what the destination had.
    #[serde(default)]
    pub resumed: u32,
    /// For transport rdma; null for tcp.
    #[serde(default)]
    pub rdma: Option<RdmaReport>,
    /// Why the rounds ended; null when they did not.
    pub stop_reason: Option<StopReason>,
    /// Every round; the last one is the blackout's.
    pub rounds: Vec<RoundReport>,
    /// Waited for others before the switch-over, seconds; part of `total_s`.
    #[serde(default)]
    pub awaited_s: f64,
    /// How long the pause waited for a good moment, milliseconds; not part of the blackout.
    #[serde(default)]
    pub patience_ms: f64,
    /// The good moment that came; null: it was paused anywhere.
    #[serde(default)]
    pub moment: Option<Moment>,
    /// Where the blackout went.
    #[serde(default)]
    pub breakdown: Breakdown,
    /// What was predicted; null for a partition that did not move.
    #[serde(default)]
    pub prediction: Option<Prediction>,
    /// By throttling; null when there was none.
    #[serde(default)]
    pub brownout: Option<Brownout>,
}

/// An error with its sources in one line, for the other side, the API and terminals. A source that ends what was said
/// already is not said again.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let next = inner.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_only_the_address_gets_the_documented_defaults() {
        let request: MigrateRequest = serde_json::from_str(r#"{"to": "tcp:127.0.0.1:40123"}"#).unwrap();
        assert_eq!(request, MigrateRequest::new("tcp:127.0.0.1:40123".parse().unwrap()));
        let checked = request.check(4).unwrap();
        assert_eq!((checked.epoch, checked.streams), (5, 1));
        assert_eq!((checked.downtime_limit.as_millis(), checked.timeout.as_secs()), (300, 60));
    }

    #[test]
    fn impossible_requests_are_refused_with_what_to_do() {
        let good = MigrateRequest::new("tcp:127.0.0.1:1".parse().unwrap());
        let cases = [
            (MigrateRequest { streams: 0, ..good.clone() }, RequestError::Streams(0)),
            (MigrateRequest { streams: 17, ..good.clone() }, RequestError::Streams(17)),
            (MigrateRequest { timeout_s: 0, ..good.clone() }, RequestError::Timeout(0)),
            (MigrateRequest { bandwidth_bytes_per_s: Some(0), ..good.clone() }, RequestError::Bandwidth),
            (
                MigrateRequest { transport: Transport::Rdma, compression: Compression::Lz4, ..good.clone() },
                RequestError::Compression,
            ),
            (MigrateRequest { epoch: Some(3), ..good }, RequestError::Epoch { requested: 3, current: 3 }),
        ];
        for (request, error) in cases {
            assert_eq!(request.check(3).unwrap_err(), error);
        }
        let error =
            serde_json::from_str::<MigrateRequest>(r#"{"to": "tcp:nowhere"}"#).unwrap_err().to_string();
        assert!(error.contains("tcp:HOST:PORT"), "{error}");
    }
}
