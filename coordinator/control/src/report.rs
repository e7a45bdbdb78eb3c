//! What an agent says about its host, every half second and whenever something happened.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::message::{Message, MessageError, require};
use crate::{
    ApplicationId, Bytes, ClusterId, CommandResult, Epoch, HostName, OUTPUT_BYTES_MAX, PARTITIONS_MAX,
    PROTOCOL, RANKS_MAX, Rank,
};

/// What a host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostFacts {
    /// Processors given to partitions.
    pub cpus: Vec<u32>,
    /// Memory given to partitions, in bytes.
    pub memory_bytes: u64,
    /// Kept in reserve until the others are overloaded.
    pub standby: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The host part of the addresses where it takes migrations.
    pub migrate_address: String,
    /// The address at which its partitions take messages, if that is not a Unix socket in the state directory.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub fabric_address: Option<std::net::IpAddr>,
    /// The agent's state directory.
    #[schema(value_type = String)]
    pub state_directory: PathBuf,
    /// Version of the agent.
    pub version: String,
}

/// State of a partition's process on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionState {
    /// Its process does not answer yet.
    Starting,
    /// It waits for a migration to come.
    Waiting,
    /// A migration is coming in.
    Receiving,
    /// It runs.
    Running,
    /// A user paused it.
    Paused,
    /// It runs while it is sent away.
    Migrating,
    /// It is paused: the other side of an unanswered commit may run it.
    InDoubt,
    /// It runs elsewhere now.
    Moved,
    /// Its process has ended, see `end`.
    Ended,
}

/// How a partition's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum End {
    /// The program (or the VMM) ended with this status.
    Exited(u8),
    /// The process was killed by this signal.
    Killed(i32),
    /// The partition had moved away.
    Moved,
}

impl End {
    /// The exit status that a shell would show.
    pub fn status(self) -> u8 {
        match self {
            End::Exited(status) => status,
            End::Killed(signal) => 128_u8.wrapping_add(u8::try_from(signal & 0x7f).unwrap_or(0)),
            End::Moved => 0,
        }
    }
}

/// Bytes and messages exchanged with one peer since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerTraffic {
    /// The peer.
    pub rank: Rank,
    /// Bytes to it.
    pub bytes_sent: u64,
    /// Bytes from it.
    pub bytes_received: u64,
    /// Messages to it.
    #[serde(default)]
    pub messages_sent: u64,
    /// Messages from it.
    #[serde(default)]
    pub messages_received: u64,
    /// Time waited until something came from it, in nanoseconds.
    #[serde(default)]
    pub wait_ns: u64,
    /// Median of the last times from a send to its acknowledgement, in nanoseconds; nothing between partitions that share memory.
    #[serde(default)]
    pub round_trip_ns: Option<u64>,
    /// The 99th percentile of them.
    #[serde(default)]
    pub round_trip_p99_ns: Option<u64>,
}

/// What a program says of its units of work (`partita.h`); numbers of a guest, of which nothing is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Units {
    /// Units of the whole application.
    pub total: u64,
    /// First one of this rank.
    pub first: u64,
    /// Number of them.
    pub count: u64,
    /// Computed since the start.
    pub done: u64,
    /// Elapsed time of that without waiting, in nanoseconds.
    pub cost_ns: u64,
    /// How often it said that a move would suit it.
    pub safe_points: u64,
    /// Time of the partition (see `elapsed_ns`) before which none does, in nanoseconds.
    pub not_before_ns: u64,
    /// Newest sharing-out that it was given.
    pub generation: u64,
}

/// Counters of a partition since its start (they move with it), except `resident_kib`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// vCPU thread on a processor.
    pub run_ns: u64,
    /// vCPU thread asleep in WAIT or in a sleeping system call.
    pub wait_ns: u64,
    /// Part of `run_ns` that was spent waiting in the MPI library: polling, going to sleep, waking up.
    pub poll_ns: u64,
    /// Since the start.
    pub elapsed_ns: u64,
    /// Pages written per second, as last sampled.
    pub dirty_pages_per_s: Option<f64>,
    /// Memory the partition has.
    pub memory_bytes: u64,
    /// Memory the process occupies.
    pub resident_kib: u64,
    /// Units of work that the program reported.
    pub progress: u64,
    /// What it says of its units of work, if it has any.
    #[serde(default)]
    pub units: Option<Units>,
    /// Moves that it has made.
    pub migrations: u64,
    /// Blackouts of all its moves together.
    pub blackout_ns: u64,
    /// Per peer.
    pub peers: Vec<PeerTraffic>,
}

/// A partition's process on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionReport {
    /// Application.
    pub application: ApplicationId,
    /// Rank.
    pub rank: Rank,
    /// Epoch that this process owns or is to own.
    pub epoch: Epoch,
    /// State.
    pub state: PartitionState,
    /// A `Migrate` command is being carried out.
    pub sending: bool,
    /// Everything of the move but the switch-over is done, which waits for `Switch`.
    pub awaits_switch: bool,
    /// Why, for in-doubt; the VMM's last line, for ended.
    pub detail: Option<String>,
    /// Its process.
    pub pid: Option<u32>,
    /// Where its fabric listens.
    pub fabric: Option<String>,
    /// How it ended.
    pub end: Option<End>,
    /// Counters, once it has run.
    pub counters: Option<Counters>,
}

/// A stream of bytes from a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output of the program.
    Stdout,
    /// Standard error of the program.
    Stderr,
    /// What the VMM process itself says; offsets count from the start of each process.
    Vmm,
}

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputChunk {
    /// Application.
    pub application: ApplicationId,
    /// Rank.
    pub rank: Rank,
    /// Epoch of the process that wrote it.
    pub epoch: Epoch,
    /// Which stream.
    pub stream: Stream,
    /// Position of the first byte since the start of the partition.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
}

/// Up to where the coordinator has a stream; the agent keeps everything from there on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamPosition {
    /// Application.
    pub application: ApplicationId,
    /// Rank.
    pub rank: Rank,
    /// Epoch of the process.
    pub epoch: Epoch,
    /// Which stream.
    pub stream: Stream,
    /// Next byte that the coordinator wants.
    pub next: u64,
}

/// Everything an agent knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Who reports.
    pub host: HostName,
    /// The run of the agent: no partition outlives it.
    pub session: u64,
    /// Cluster whose partitions it has.
    pub cluster: Option<ClusterId>,
    /// The host.
    pub facts: HostFacts,
    /// Every partition process, also those that have ended until a report that says so was answered.
    pub partitions: Vec<PartitionReport>,
    /// Outcomes not yet acknowledged.
    pub results: Vec<CommandResult>,
    /// Output not yet acknowledged.
    pub output: Vec<OutputChunk>,
}

/// The coordinator's answer: the report is in its journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Whose agent this is now.
    pub cluster: ClusterId,
    /// Fencing token of the coordinator that says so: a later one has a higher one.
    pub fence: u64,
    /// One for every stream in the report.
    pub positions: Vec<StreamPosition>,
}

impl Message for Report {
    fn validate(&self) -> Result<(), MessageError> {
        require(
            self.protocol == PROTOCOL,
            "agent and coordinator are of different versions; install the same",
        )?;
        require(
            !self.facts.cpus.is_empty() && self.facts.cpus.len() <= 65_536,
            "a host has 1 to 65536 processors",
        )?;
        require(self.partitions.len() <= PARTITIONS_MAX, "too many partitions")?;
        require(self.results.len() <= 4 * PARTITIONS_MAX, "too many results")?;
        let output: usize = self.output.iter().map(|chunk| chunk.data.0.len()).sum();
        require(output <= OUTPUT_BYTES_MAX, "too much output")?;
        let ranks =
            self.partitions.iter().map(|partition| partition.rank).chain(self.output.iter().map(|o| o.rank));
        require(ranks.into_iter().all(|rank| rank < RANKS_MAX), "a rank is out of range")?;
        let far = self.output.iter().any(|chunk| chunk.offset > u64::MAX / 2);
        require(!far, "an output offset is out of range")
    }
}

impl Message for Answer {
    fn validate(&self) -> Result<(), MessageError> {
        require(self.positions.len() <= 4 * PARTITIONS_MAX, "too many positions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MessageError, decode};

    const REPORT: &str = r#"{"protocol":2,"host":"a","session":1,"cluster":null,
        "facts":{"cpus":[0],"memory_bytes":1,"standby":false,"labels":{},"migrate_address":"127.0.0.1",
        "state_directory":"/x","version":"0"},"partitions":[],"results":[],"output":[]}"#;

    #[test]
    fn unknown_fields_other_versions_and_oversized_messages_are_refused() {
        assert!(decode::<Report>(REPORT.as_bytes()).is_ok());
        let unknown = REPORT.replace("\"session\":1", "\"session\":1,\"more\":2");
        assert!(matches!(decode::<Report>(unknown.as_bytes()), Err(MessageError::Json(_))));
        let newer = REPORT.replace("\"protocol\":2", "\"protocol\":3");
        assert!(matches!(decode::<Report>(newer.as_bytes()), Err(MessageError::Refused(_))));
        let idle = REPORT.replace("[0]", "[]");
        assert!(decode::<Report>(idle.as_bytes()).is_err());
        let long = vec![b' '; crate::MESSAGE_BYTES_MAX + 1];
        assert!(matches!(decode::<Report>(&long), Err(MessageError::TooLong { .. })));
    }
}
