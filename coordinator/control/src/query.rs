//! What the coordinator tells a user: the JSON of its `--json` commands.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::message::{Message, MessageError, require};
use crate::{
    ApplicationId, Bytes, Epoch, HostName, MoveId, MoveReport, PartitionState, Prediction, Rank, Stream,
};

/// State of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ApplicationState {
    /// Waits for room.
    Queued,
    /// Placed; not every partition runs yet.
    Starting,
    /// Every partition runs or has ended with 0.
    Running,
    /// Over or to be ended; partitions are being cleaned up.
    Stopping,
    /// Every partition ended with 0.
    Done,
    /// Ended otherwise, see `exit_status` and `reason`.
    Failed,
}

/// A move, past or present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MoveView {
    /// Its number.
    pub id: MoveId,
    /// Application.
    pub application: ApplicationId,
    /// Which partition.
    pub rank: Rank,
    /// Source.
    pub from: HostName,
    /// Destination.
    pub to: HostName,
    /// Epoch granted to the destination.
    pub epoch: Epoch,
    /// Why.
    pub reason: String,
    /// `preparing`, `sending`, `in-doubt`, `done` or `failed`.
    pub state: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// When it was decided, Unix milliseconds.
    pub time_ms: u64,
    /// Blackout as the source measured it; null until done.
    pub blackout_ms: Option<f64>,
    /// Seconds in all as the source measured them; null until done.
    pub total_s: Option<f64>,
    /// All that was measured.
    pub measured: Option<MoveReport>,
    /// The planner's explanation; null for a move that a user asked for.
    pub explanation: Option<CandidateView>,
    /// What was predicted.
    #[serde(default)]
    pub predicted: Option<Prediction>,
}

/// An application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApplicationView {
    /// Identity.
    pub id: ApplicationId,
    /// Name in the manifest.
    pub name: String,
    /// Ranks.
    pub ranks: u32,
    /// State.
    pub state: ApplicationState,
    /// Once it is known.
    pub exit_status: Option<u8>,
    /// Why it ended, unless all is well.
    pub reason: Option<String>,
    /// When it was submitted, Unix milliseconds.
    pub submitted_ms: u64,
    /// Seconds from submission to the end, or until now.
    pub seconds: f64,
    /// Done moves, in order.
    pub moves: Vec<MoveView>,
    /// Moves that failed or are under way.
    pub other_moves: Vec<MoveView>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// Name.
    pub name: HostName,
    /// `standby`, `active`, `cordoned`, `draining`, `empty`, `leased`, or `lost`.
    pub state: String,
    /// The application that has it, if it is leased.
    #[serde(default)]
    pub lease: Option<ApplicationId>,
    /// Why it has its state.
    #[serde(default)]
    pub reason: String,
    /// Processors.
    pub cpus: Vec<u32>,
    /// Memory for partitions.
    pub memory_bytes: u64,
    /// Memory of the partitions placed here.
    pub memory_used_bytes: u64,
    /// Partitions placed here that have not ended.
    pub partitions: u32,
    /// Busy processors: sum of the partitions' loads.
    pub load: f64,
    /// `load` per processor.
    pub utilisation: f64,
    /// Seconds since its last report; null if none since the coordinator started.
    pub silent_s: Option<f64>,
    /// Labels, `K=V`.
    pub labels: Vec<String>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PartitionView {
    /// Application.
    pub application: ApplicationId,
    /// Rank.
    pub rank: Rank,
    /// Where it is.
    pub host: HostName,
    /// Its owner's epoch.
    pub epoch: Epoch,
    /// What its agent last said; null when there is no word yet.
    pub state: Option<PartitionState>,
    /// Its process.
    pub pid: Option<u32>,
    /// Once it has ended.
    pub exit_status: Option<u8>,
    /// Busy share of a processor (run time without polling), smoothed.
    pub load: f64,
    /// Standard error of `load` as an estimate.
    #[serde(default)]
    pub noise: f64,
    /// Share of time that it was ready to run but did not.
    pub steal: f64,
    /// Units of work the program reported.
    pub progress: u64,
    /// Resident memory of its process.
    pub resident_kib: u64,
    /// Pages written per second, if sampled.
    pub dirty_pages_per_s: Option<f64>,
    /// Moves done.
    pub moves: u32,
    /// Blackout of the last one.
    pub last_blackout_ms: Option<f64>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Position in the journal.
    pub sequence: u64,
    /// Unix milliseconds.
    pub time_ms: u64,
    /// Kind, for scripts: `submitted`, `move-done`, …
    pub kind: String,
    /// Application, if it is about one.
    pub application: Option<ApplicationId>,
    /// Rank, if it is about one.
    pub rank: Option<Rank>,
    /// Host, if it is about one.
    pub host: Option<HostName>,
    /// What happened.
    pub text: String,
    /// Why.
    pub reason: Option<String>,
}

/// Events after a position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventsAnswer {
    /// The events.
    pub events: Vec<EventView>,
    /// Ask for what follows this.
    pub next: u64,
}

/// A condition that a move has to meet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GateView {
    /// Its name.
    pub name: String,
    /// What was found.
    pub value: f64,
    /// What is asked for.
    pub threshold: f64,
    /// `>=` or `<=`.
    pub relation: String,
    /// Is it met?
    pub pass: bool,
}

/// A move that was considered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CandidateView {
    /// Application.
    pub application: ApplicationId,
    /// Partition.
    pub rank: Rank,
    /// Source.
    pub from: HostName,
    /// Destination.
    pub to: HostName,
    /// Partition that goes the other way.
    pub swap_with: Option<(ApplicationId, Rank)>,
    /// Load that leaves the source.
    pub load: f64,
    /// Utilisation of the source before and after.
    pub source_utilisation: (f64, f64),
    /// Utilisation of the destination before and after.
    pub destination_utilisation: (f64, f64),
    /// Fall of the potential sum(load^2 / capacity).
    pub gain: f64,
    /// Standard error of `gain` from the loads' noise.
    pub gain_error: f64,
    /// Predicted cost in application-seconds.
    pub cost_s: f64,
    /// Seconds after which the move has paid for itself.
    pub payback_s: Option<f64>,
    /// The conditions.
    pub gates: Vec<GateView>,
    /// `accepted`, or the first condition that failed.
    pub verdict: String,
    /// Moves that are made together with this one, itself included; gain, cost and conditions are of all of them.
    #[serde(default)]
    pub together: usize,
    /// Predicted time of the application's hottest host, before and after the plan (busy seconds per second).
    #[serde(default)]
    pub application_time: (f64, f64),
    /// Where the gain of this move by itself comes from.
    #[serde(default)]
    pub terms: GainTerms,
    /// Other destinations, and why not.
    #[serde(default)]
    pub alternatives: Vec<AlternativeView>,
    /// Version of the administrator's policy under which it was considered; 0 if none was set.
    #[serde(default)]
    pub policy: u64,
}

/// Where the gain of a move comes from, in the unit of the potential.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GainTerms {
    /// Relief of the source.
    pub load_source: f64,
    /// Burden of the destination (negative).
    pub load_destination: f64,
    /// Traffic and soft rules.
    pub traffic_and_rules: f64,
    /// Seconds per second saved (or lost, negative) with the peers that matter most.
    pub traffic_by_peer: Vec<(ApplicationId, Rank, f64)>,
}

/// A destination that was not chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlternativeView {
    /// The host.
    pub host: HostName,
    /// Fall of the potential.
    pub gain: f64,
    /// Why not.
    pub reason: String,
}

/// Why an application runs where it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApplicationExplanation {
    /// The application.
    pub application: ApplicationId,
    /// Work of its hottest host, in busy seconds per second: what its iterations wait for.
    pub time: f64,
    /// What no placement can go below.
    pub lowest_time: f64,
    /// Application-seconds lost per second.
    pub loss: f64,
    /// Conditions for planning at all.
    pub gates: Vec<GateView>,
    /// Its moves in the plan that would be made now.
    pub moves: Vec<PlannedMove>,
    /// The best moves of its partitions, with their conditions.
    pub candidates: Vec<CandidateView>,
    /// What holds, in a line.
    pub explanation: String,
    /// Version of the administrator's policy; 0 if none was set.
    #[serde(default)]
    pub policy: u64,
}

/// A plan of the past, made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReplayedPlan {
    /// Position in the journal.
    pub record: u64,
    /// Unix milliseconds.
    pub time_ms: u64,
    /// It was made of the same inputs by the same planner.
    pub same_inputs: bool,
    /// Other moves are made, or in another order.
    pub differs: bool,
    /// Work of the busiest host then.
    pub work_max: f64,
    /// And after the plan that is made now.
    pub work_max_after: f64,
    /// What the checker finds wrong with the plan that is made now.
    pub findings: Vec<String>,
    /// Moves that were planned.
    pub did: Vec<String>,
    /// And why.
    pub did_explanation: String,
    /// Moves that are planned now.
    pub would: Vec<String>,
    /// And why.
    pub would_explanation: String,
}

/// Why a host has its role, and what holds it there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostExplanation {
    /// The host.
    pub host: HostName,
    /// Its role, or `lost`.
    pub state: String,
    /// Whose it is.
    pub lease: Option<ApplicationId>,
    /// The application that it was leased to first.
    pub home: Option<ApplicationId>,
    /// For how long it has its role.
    pub since_s: f64,
    /// Why it has it.
    pub reason: String,
    /// Why nothing may come, if so.
    pub closed: Option<String>,
    /// What could become of it next, and the condition that holds it back.
    pub decisions: Vec<DecisionView>,
    /// Version of the administrator's policy; 0 if none was set.
    pub policy: u64,
}

/// Something that may be done with a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DecisionView {
    /// What: `free`, `hand over to heat-2`, …
    pub what: String,
    /// The conditions.
    pub gates: Vec<GateView>,
    /// `done next`, or the first condition that fails.
    pub verdict: String,
}

/// A move to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedMove {
    /// Application.
    pub application: ApplicationId,
    /// Partition.
    pub rank: Rank,
    /// Source.
    pub from: HostName,
    /// Destination.
    pub to: HostName,
    /// Moves of one wave may overlap; a wave begins when the one before it is over.
    #[serde(default)]
    pub wave: u32,
    /// Why, in one line.
    pub reason: String,
    /// The numbers behind it.
    pub explanation: CandidateView,
}

/// What the planner decides now, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// Load and utilisation per host.
    pub hosts: Vec<HostView>,
    /// max(utilisation) / mean - 1.
    pub imbalance: f64,
    /// The potential: sum(capacity * work^2), work as in `work_max`.
    pub potential: f64,
    /// Work of the busiest host now and after the moves: load per processor and cost of traffic with other hosts.
    pub work_max: (f64, f64),
    /// Application-seconds that imbalance costs per second.
    pub loss: f64,
    /// How the plan was found.
    pub algorithm: String,
    /// Hash of everything the plan depends on: equal inputs give an equal plan.
    pub inputs_hash: String,
    /// Version of the planner.
    pub policy_version: u32,
    /// Version of the administrator's policy; 0 if none was set.
    #[serde(default)]
    pub policy: u64,
    /// Conditions for planning at all.
    pub gates: Vec<GateView>,
    /// What it would do.
    pub moves: Vec<PlannedMove>,
    /// Why it would do this, or nothing.
    pub explanation: String,
    /// The best five candidates.
    pub candidates: Vec<CandidateView>,
}

/// A piece of output for a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputEntry {
    /// Rank.
    pub rank: Rank,
    /// Stream.
    pub stream: Stream,
    /// Epoch of the process that wrote it.
    pub epoch: Epoch,
    /// Position of its first byte in the stream.
    pub offset: u64,
    /// Bytes.
    pub data: Bytes,
}

/// Output of an application after a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputAnswer {
    /// The run of the coordinator; positions of another one mean nothing.
    pub incarnation: u64,
    /// In the order of arrival.
    pub entries: Vec<OutputEntry>,
    /// Ask for what follows this.
    pub next: u64,
    /// Older output was asked for, but is no longer kept.
    pub truncated: bool,
    /// The application is over and this is all of its output.
    pub complete: bool,
    /// Once it is known.
    pub exit_status: Option<u8>,
    /// Why it ended, unless all is well.
    pub reason: Option<String>,
}

/// A user orders a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateOrder {
    /// Application.
    pub application: ApplicationId,
    /// Rank.
    pub rank: Rank,
    /// Destination.
    pub to: HostName,
}

/// An application was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// Its identity.
    pub application: ApplicationId,
}

/// An error, with a status of 400 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What, where and what to do.
    pub error: String,
}

impl Message for MigrateOrder {
    fn validate(&self) -> Result<(), MessageError> {
        require(self.rank < crate::RANKS_MAX, "a rank is out of range")
    }
}
