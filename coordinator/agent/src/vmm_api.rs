//! The control API of a `vmm` process as an agent uses it (`docs/vmm-api.md`).
//!
//! Fields that an agent does not need are ignored, so that a VMM may say more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::{Counters, MESSAGE_BYTES_MAX, MoveReport, PartitionState, Peer, PeerTraffic, Rank, one_line};
use partita_http::{Answer, HttpError, Method, Request, Server, StatusCode, ask};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

const QUICK: Duration = Duration::from_secs(2);
/// A migration ends by itself (its own `timeout_s`); this only bounds a VMM that hangs.
const MIGRATE: Duration = Duration::from_secs(900);

/// `transport` of `POST /v1/migrate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// Over the connections.
    #[default]
    Tcp,
    /// By one-sided writes.
    Rdma,
}

/// A VMM that did not do what it was asked.
#[derive(Debug, Error)]
pub(crate) enum VmmError {
    #[error("vmm at {}: {source}", socket.display())]
    Http { socket: PathBuf, source: HttpError },
    #[error("{0}")]
    Refused(String),
}

/// `Status` of the API.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub state: State,
    pub detail: Option<String>,
    #[serde(default)]
    pub awaits_switch: bool,
    pub listen: Option<String>,
    pub fabric: Option<String>,
    #[serde(default)]
    pub stdout_base: u64,
    #[serde(default)]
    pub stderr_base: u64,
}

/// `state` of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Waiting,
    Receiving,
    Running,
    Paused,
    Migrating,
    InDoubt,
    Moved,
    Exited,
}

impl State {
    /// Is the whole partition here, so that its output positions are known?
    pub(crate) fn has_arrived(self) -> bool {
        !matches!(self, State::Waiting | State::Receiving)
    }

    /// Has this process run the partition, as far as the state says?
    pub(crate) fn has_run(self) -> bool {
        !matches!(self, State::Waiting | State::Receiving | State::InDoubt)
    }

    /// The same in the words of a report.
    pub(crate) fn reported(self) -> PartitionState {
        match self {
            State::Waiting => PartitionState::Waiting,
            State::Receiving => PartitionState::Receiving,
            // An exited partition's process is about to end; the agent reports the end when it sees it.
            State::Running | State::Exited => PartitionState::Running,
            State::Paused => PartitionState::Paused,
            State::Migrating => PartitionState::Migrating,
            State::InDoubt => PartitionState::InDoubt,
            State::Moved => PartitionState::Moved,
        }
    }
}

#[derive(Debug, Deserialize)]
struct VmmCounters {
    #[serde(default)]
    run_ns: u64,
    #[serde(default)]
    wait_ns: u64,
    #[serde(default)]
    poll_ns: u64,
    #[serde(default)]
    elapsed_ns: u64,
    dirty_pages_per_s: Option<f64>,
    #[serde(default)]
    memory_bytes: u64,
    #[serde(default)]
    resident_kib: u64,
    #[serde(default)]
    progress: u64,
    units: Option<control::Units>,
    #[serde(default)]
    migrations: u64,
    #[serde(default)]
    blackout_ns: u64,
    #[serde(default)]
    peers: Vec<VmmPeer>,
}

#[derive(Debug, Deserialize)]
struct VmmPeer {
    rank: Rank,
    #[serde(default)]
    bytes_sent: u64,
    #[serde(default)]
    bytes_received: u64,
    #[serde(default)]
    messages_sent: u64,
    #[serde(default)]
    messages_received: u64,
    #[serde(default)]
    wait_ns: u64,
    #[serde(default)]
    shared: bool,
    round_trip: Option<VmmRoundTrip>,
}

#[derive(Debug, Deserialize)]
struct VmmRoundTrip {
    median_ns: u64,
    p99_ns: u64,
}

#[derive(Debug, Deserialize)]
struct VmmMoveReport {
    #[serde(default)]
    total_s: f64,
    #[serde(default)]
    awaited_s: f64,
    #[serde(default)]
    blackout_ms: f64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    rounds: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    stop_reason: String,
}

/// How a migration request ended.
#[derive(Debug)]
pub(crate) enum Migrated {
    Moved(MoveReport),
    NotMoved(String),
    /// The program ended before it could move; its process is about to end as well.
    Ended(String),
    InDoubt(String),
}

async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<Answer, VmmError> {
    let within = Some(timeout);
    let answer_bytes_max = MESSAGE_BYTES_MAX;
    let request = Request { body, within, answer_bytes_max, ..Request::new(method, path) };
    ask(&Server::Unix(socket.to_owned()), request)
        .await
        .map_err(|source| VmmError::Http { socket: socket.to_owned(), source })
}

fn error_text(answer: &Answer) -> String {
    match answer.refusal() {
        Some(text) => text.chars().take(1000).collect(),
        None => format!("the vmm answered {}", answer.status),
    }
}

fn read<T: DeserializeOwned>(socket: &Path, answer: &Answer) -> Result<T, VmmError> {
    if !answer.status.is_success() {
        return Err(VmmError::Refused(error_text(answer)));
    }
    answer.json().map_err(|source| VmmError::Http { socket: socket.to_owned(), source })
}

/// `GET /v1/status`.
pub(crate) async fn status(socket: &Path) -> Result<Status, VmmError> {
    let answer = call(socket, Method::GET, "/v1/status", Vec::new(), QUICK).await?;
    read(socket, &answer)
}

/// `GET /v1/counters`.
pub(crate) async fn counters(socket: &Path) -> Result<Counters, VmmError> {
    let answer = call(socket, Method::GET, "/v1/counters", Vec::new(), QUICK).await?;
    let from: VmmCounters = read(socket, &answer)?;
    let traffic = |peer: &VmmPeer| {
        // What was measured before the rings were shared says nothing about them.
        let round_trip = peer.round_trip.as_ref().filter(|_| !peer.shared);
        PeerTraffic {
            rank: peer.rank,
            bytes_sent: peer.bytes_sent,
            bytes_received: peer.bytes_received,
            messages_sent: peer.messages_sent,
            messages_received: peer.messages_received,
            wait_ns: peer.wait_ns,
            round_trip_ns: round_trip.map(|it| it.median_ns),
            round_trip_p99_ns: round_trip.map(|it| it.p99_ns),
        }
    };
    Ok(Counters {
        run_ns: from.run_ns,
        wait_ns: from.wait_ns,
        poll_ns: from.poll_ns,
        elapsed_ns: from.elapsed_ns,
        dirty_pages_per_s: from.dirty_pages_per_s.filter(|rate| rate.is_finite()),
        memory_bytes: from.memory_bytes,
        resident_kib: from.resident_kib,
        progress: from.progress,
        units: from.units,
        migrations: from.migrations,
        blackout_ns: from.blackout_ns,
        peers: from.peers.iter().take(control::RANKS_MAX as usize).map(traffic).collect(),
    })
}

/// `POST /v1/resume` for a partition in doubt.
pub(crate) async fn resume_in_doubt(socket: &Path) -> Result<(), VmmError> {
    let body = br#"{"in_doubt":true}"#.to_vec();
    let answer = call(socket, Method::POST, "/v1/resume", body, QUICK).await?;
    read::<serde::de::IgnoredAny>(socket, &answer).map(|_| ())
}

/// `PUT /v1/peers/{rank}` for each.
pub(crate) async fn set_peers(socket: &Path, peers: &BTreeMap<Rank, Peer>) -> Result<(), VmmError> {
    for (rank, peer) in peers {
        let path = format!("/v1/peers/{rank}");
        let answer = call(socket, Method::PUT, &path, control::encode(peer), QUICK).await?;
        read::<serde::de::IgnoredAny>(socket, &answer)?;
    }
    Ok(())
}

/// `PUT /v1/units`.
pub(crate) async fn give_share(socket: &Path, share: serde_json::Value) -> Result<(), VmmError> {
    let answer = call(socket, Method::PUT, "/v1/units", share.to_string().into_bytes(), QUICK).await?;
    read::<serde::de::IgnoredAny>(socket, &answer).map(|_| ())
}

/// `POST /v1/migrate/switch`.
pub(crate) async fn switch(socket: &Path) -> Result<(), VmmError> {
    let answer = call(socket, Method::POST, "/v1/migrate/switch", Vec::new(), QUICK).await?;
    read::<serde::de::IgnoredAny>(socket, &answer).map(|_| ())
}

/// `POST /v1/migrate` with `request`; returns when the migration is over.
pub(crate) async fn migrate(socket: &Path, request: serde_json::Value) -> Migrated {
    let request = request.to_string().into_bytes();
    let answer = match call(socket, Method::POST, "/v1/migrate", request, MIGRATE).await {
        Ok(answer) => answer,
        Err(error) => return Migrated::InDoubt(one_line(&error)),
    };
    match answer.status {
        StatusCode::OK => {
            let report = answer.json::<VmmMoveReport>().ok();
            Migrated::Moved(report.map(move_report).unwrap_or_default())
        }
        StatusCode::GONE => Migrated::Ended(error_text(&answer)),
        // Refused or failed: the partition goes on here.
        StatusCode::BAD_GATEWAY => Migrated::NotMoved(error_text(&answer)),
        status if status.is_client_error() => Migrated::NotMoved(error_text(&answer)),
        _ => Migrated::InDoubt(error_text(&answer)),
    }
}

fn move_report(from: VmmMoveReport) -> MoveReport {
    let finite = |value: f64| if value.is_finite() { value } else { 0.0 };
    MoveReport {
        total_s: finite(from.total_s - from.awaited_s),
        blackout_ms: finite(from.blackout_ms),
        bytes: from.bytes,
        rounds: u32::try_from(from.rounds.len()).unwrap_or(u32::MAX),
        stop_reason: from.stop_reason.chars().take(200).collect(),
    }
}
