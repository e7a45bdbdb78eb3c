//! What the coordinator tells an agent to do, and what came of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::measurement::MoveReport;
use crate::message::{Message, MessageError, require};
use crate::{ApplicationId, ClusterId, Epoch, FileMapping, HostName, PARTITIONS_MAX, PROTOCOL, Rank};

/// Where a peer's fabric is, and since which epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Epoch of the peer at that address.
    pub epoch: Epoch,
    /// Its fabric, `unix:PATH` or `tcp:HOST:PORT`.
    pub address: String,
}

/// How to start a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Ranks of the application.
    pub ranks: u32,
    /// Static ELF file.
    #[schema(value_type = String)]
    pub executable: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Memory in bytes, whole MiB.
    pub memory_bytes: u64,
    /// Files.
    pub files: Vec<FileMapping>,
    /// Every rank's fabric.
    pub peers: BTreeMap<Rank, Peer>,
    /// File for the partition's report, if wanted.
    #[schema(value_type = Option<String>)]
    pub report: Option<PathBuf>,
    /// SHA-256 (hexadecimal) that executable and files must have, by path.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub digests: BTreeMap<PathBuf, String>,
}

/// What is to be done with the partition (application, rank, epoch) of the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// Start it. The epoch must be higher than every one seen for this rank.
    Start(Box<Start>),
    /// Start a process that takes it in with the command's epoch; the outcome has its address.
    PrepareReceive {
        /// File for the partition's report, if wanted.
        #[schema(value_type = Option<String>)]
        report: Option<PathBuf>,
    },
    /// Send it, which runs here with the command's epoch, to `to`, to run there with `epoch`.
    Migrate {
        /// Address from `PrepareReceive`.
        to: String,
        /// The epoch granted to the destination.
        epoch: Epoch,
        /// Not to switch over before `Switch`: others of its application move as well.
        await_switch: bool,
    },
    /// Its `Migrate` may switch over.
    Switch,
    /// Tell it where its peers are now.
    SetPeers(BTreeMap<Rank, Peer>),
    /// Tell it how many of its program's units of work it should have.
    Share {
        /// Number of the sharing-out; the same for all ranks, above every earlier one.
        generation: u64,
        /// Units of this rank.
        target: u64,
        /// Speed of its host relative to the mean of the application's hosts, in parts per million.
        speed_ppm: u64,
    },
    /// End its process at once.
    Kill,
    /// It is in doubt here and provably runs nowhere else: go on.
    Resume,
    /// Give it up here unless it runs: afterwards the command's epoch can never run on this host.
    Discard {
        /// Leave it alone if it is complete but in doubt.
        keep_in_doubt: bool,
    },
    /// End every partition of the application and refuse it from now on.
    EndApplication,
}

/// A command to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Rises with every command of one coordinator.
    pub id: u64,
    /// Fencing token of the coordinator that gives it: agents refuse those of one that was replaced.
    pub fence: u64,
    /// The application.
    pub application: ApplicationId,
    /// The rank (0 for `EndApplication`).
    pub rank: Rank,
    /// The epoch (0 for `EndApplication`).
    pub epoch: Epoch,
    /// What to do.
    pub action: Action,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    /// Done.
    Done,
    /// `PrepareReceive`: it listens here.
    Listening {
        /// Where migrations are taken, `tcp:HOST:PORT`.
        address: String,
    },
    /// `Migrate`: it runs there now.
    Moved(MoveReport),
    /// `Migrate`: it does not run there and goes on here.
    NotMoved {
        /// What the VMM said.
        reason: String,
    },
    /// `Migrate`: nobody knows; it is paused here or gone.
    InDoubt {
        /// What the VMM said.
        reason: String,
    },
    /// `Discard`: the epoch cannot run here any more.
    Discarded,
    /// `Discard`: it runs here.
    Running,
    /// `Discard { keep_in_doubt }`: it is here, complete and paused.
    HeldInDoubt,
    /// Refused: this epoch is not above the highest one seen here.
    StaleEpoch {
        /// The highest one seen here.
        highest: Epoch,
    },
    /// It could not be done.
    Failed {
        /// What, where and what to do.
        reason: String,
    },
}

/// The outcome of one command; repeated in every report until one is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandResult {
    /// The command.
    pub id: u64,
    /// Its application.
    pub application: ApplicationId,
    /// Its rank.
    pub rank: Rank,
    /// Its epoch.
    pub epoch: Epoch,
    /// What came of it.
    pub outcome: Outcome,
}

/// An agent asks for commands; answered when there are any, or after some seconds with none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandsRequest {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Who asks.
    pub host: HostName,
    /// The run of the agent, as in its reports.
    pub session: u64,
    /// The highest command that it has.
    pub received: u64,
}

/// Commands in order; those an agent already has may be among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Whose commands these are.
    pub cluster: ClusterId,
    /// Fencing token of the coordinator.
    pub fence: u64,
    /// The commands.
    pub commands: Vec<Command>,
}

impl Message for CommandsRequest {
    fn validate(&self) -> Result<(), MessageError> {
        require(self.received <= u64::MAX / 4, "a command number is out of range")?;
        require(
            self.protocol == PROTOCOL,
            "agent and coordinator are of different versions; install the same",
        )
    }
}

impl Message for Commands {
    fn validate(&self) -> Result<(), MessageError> {
        require(self.commands.len() <= 4 * PARTITIONS_MAX, "too many commands")
    }
}
