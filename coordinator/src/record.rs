//! What is decided and must not be forgotten: the contents of the journal, and the events users see.

use control::{
    ApplicationId, Bytes, CandidateView, ClusterId, End, Epoch, EventView, HookAction, HostName, HostState,
    MoveId, MoveReport, Policy, Prediction, Rank, Specification,
};
use serde::{Deserialize, Serialize};

/// Version of the records; a journal of another one is refused.
pub const VERSION: u32 = 1;

/// One decision or established fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Record {
    /// The first record.
    Genesis {
        /// [`VERSION`].
        version: u32,
        /// The new cluster.
        cluster: ClusterId,
    },
    /// The coordinator was started for the `incarnation`th time.
    Started {
        /// From 1.
        incarnation: u64,
    },
    /// A host reported for the first time, or again after it was lost.
    HostJoined {
        /// The host.
        host: HostName,
        /// It is to be kept in reserve.
        standby: bool,
        /// Its processors.
        cpus: u32,
    },
    /// A host has been silent for too long.
    HostLost {
        /// The host.
        host: HostName,
        /// For how long, in milliseconds.
        silent_ms: u64,
    },
    /// A standby host takes partitions from now on.
    HostActivated {
        /// The host.
        host: HostName,
        /// Why.
        reason: String,
    },
    /// A host's role in the pool changes.
    HostChanged {
        /// The host.
        host: HostName,
        /// Its role from now on.
        state: HostState,
        /// Whose it is, if it is leased.
        lease: Option<ApplicationId>,
        /// Who is to get it once it is empty.
        next: Option<ApplicationId>,
        /// Why.
        reason: String,
    },
    /// The hook of a host is to be run. Written before it is.
    HookStarted {
        /// The host.
        host: HostName,
        /// What for.
        action: HookAction,
        /// Why.
        reason: String,
    },
    /// It has ended.
    HookEnded {
        /// The host.
        host: HostName,
        /// What for.
        action: HookAction,
        /// Why it failed, if it did.
        failure: Option<String>,
    },
    /// The administrator's policy from now on.
    PolicySet {
        /// Rises by 1.
        version: u64,
        /// All of it.
        policy: Box<Policy>,
    },
    /// The active hosts are overloaded and no standby host may be activated.
    Overloaded {
        /// What would be done.
        reason: String,
    },
    /// An application was taken and waits for room.
    Queued {
        /// Its identity.
        application: ApplicationId,
        /// What was asked.
        specification: Box<Specification>,
        /// Why it does not fit now.
        reason: String,
    },
    /// An application was taken, perhaps from the queue; each rank has epoch 1 on its host.
    Submitted {
        /// Its identity.
        application: ApplicationId,
        /// What was asked.
        specification: Box<Specification>,
        /// Host of every rank.
        hosts: Vec<HostName>,
    },
    /// Every partition has started.
    ApplicationRunning {
        /// The application.
        application: ApplicationId,
    },
    /// The process of one epoch of a partition has ended.
    PartitionEnded {
        /// The application.
        application: ApplicationId,
        /// The rank.
        rank: Rank,
        /// The epoch of the process.
        epoch: Epoch,
        /// Where.
        host: HostName,
        /// How.
        end: End,
        /// What the VMM said.
        detail: Option<String>,
        /// It was the partition's owner at that time.
        owner: bool,
    },
    /// The application is over; what is left of it is ended.
    ApplicationEnding {
        /// The application.
        application: ApplicationId,
        /// Its exit status.
        status: u8,
        /// Why, unless every rank ended with 0.
        reason: Option<String>,
    },
    /// Nothing of the application is left.
    ApplicationEnded {
        /// The application.
        application: ApplicationId,
    },
    /// A move is to be made: `epoch` is granted to `to`. Written before any command of it is sent.
    MoveStarted {
        /// Its number.
        id: MoveId,
        /// The application.
        application: ApplicationId,
        /// The rank.
        rank: Rank,
        /// Source.
        from: HostName,
        /// Destination.
        to: HostName,
        /// The granted epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
        /// The planner's numbers.
        explanation: Option<Box<CandidateView>>,
        /// What it is expected to take.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        predicted: Option<Prediction>,
    },
    /// What the planner was given when it planned moves, or now and then when it did not; for what-if.
    Planned {
        /// See `history`.
        inputs: Bytes,
        /// The hash of the snapshot.
        inputs_hash: String,
        /// Moves that were planned: application, rank, destination.
        moves: Vec<(ApplicationId, Rank, HostName)>,
        /// Why these, or none.
        explanation: String,
    },
    /// The units of work of a program are shared out anew.
    UnitsShared {
        /// The application.
        application: ApplicationId,
        /// Rises by 1.
        generation: u64,
        /// Units of every rank.
        targets: Vec<u64>,
        /// Speed of every rank's host relative to their mean, in parts per million.
        speeds_ppm: Vec<u64>,
        /// Why.
        reason: String,
    },
    /// The rest of a plan is not carried out.
    PlanAborted {
        /// Moves that are left out.
        left: usize,
        /// What has changed.
        reason: String,
    },
    /// A process runs that nothing accounts for; it is ended.
    Stray {
        /// The application.
        application: ApplicationId,
        /// The rank.
        rank: Rank,
        /// The epoch of the process.
        epoch: Epoch,
        /// Where it was found.
        host: HostName,
    },
    /// The source does not know whether the destination has it.
    MoveInDoubt {
        /// The move.
        id: MoveId,
        /// What the source said.
        reason: String,
    },
    /// The destination has it.
    MoveDone {
        /// The move.
        id: MoveId,
        /// As measured by the source; unknown if it was in doubt.
        measured: Option<MoveReport>,
    },
    /// The destination provably does not have it; the grant is revoked.
    MoveFailed {
        /// The move.
        id: MoveId,
        /// Why.
        reason: String,
        /// The partition, or its application, has ended meanwhile: it goes on nowhere.
        #[serde(default)]
        ended: bool,
    },
}

/// A record with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Unix milliseconds.
    pub time_ms: u64,
    /// What.
    pub record: Record,
}

/// What users are told of a record before the state fills in what it knows about a move.
#[derive(Debug, Default)]
struct Told<'a> {
    kind: &'static str,
    application: Option<&'a ApplicationId>,
    rank: Option<Rank>,
    host: Option<&'a HostName>,
    text: String,
    reason: Option<&'a str>,
}

/// The parts of a move that its later records do not repeat.
#[derive(Clone, Copy, Debug)]
pub struct MoveIdentity<'a> {
    /// The application.
    pub application: &'a ApplicationId,
    /// The rank.
    pub rank: Rank,
    /// Source.
    pub from: &'a HostName,
    /// Destination.
    pub to: &'a HostName,
    /// The granted epoch.
    pub epoch: Epoch,
}

impl Entry {
    /// The event that users see, if this is one. `find` knows the moves.
    pub fn event<'a>(
        &'a self,
        sequence: u64,
        find: impl Fn(MoveId) -> Option<MoveIdentity<'a>>,
    ) -> Option<EventView> {
        let told = tell(&self.record).or_else(|| tell_of_move(&self.record, find))?;
        Some(EventView {
            sequence,
            time_ms: self.time_ms,
            kind: told.kind.to_owned(),
            application: told.application.cloned(),
            rank: told.rank,
            host: told.host.cloned(),
            text: told.text,
            reason: told.reason.map(str::to_owned),
        })
    }
}

fn tell(record: &Record) -> Option<Told<'_>> {
    let told = match record {
        Record::Genesis { cluster, .. } => {
            Told { kind: "cluster-made", text: format!("cluster {cluster} made"), ..Told::default() }
        }
        Record::Started { incarnation } => Told {
            kind: "coordinator-started",
            text: format!("the coordinator was started (for the {incarnation}. time)"),
            ..Told::default()
        },
        Record::Overloaded { reason } => Told {
            kind: "overloaded",
            text: "the active hosts are overloaded".into(),
            reason: Some(reason),
            ..Told::default()
        },
        Record::HostJoined { host, standby, cpus } => {
            let role = if *standby { ", standby" } else { "" };
            Told {
                kind: "host-joined",
                host: Some(host),
                text: format!("host {host} joined ({cpus} processors{role})"),
                ..Told::default()
            }
        }
        Record::HostLost { host, silent_ms } => Told {
            kind: "host-lost",
            host: Some(host),
            text: format!("host {host} lost: no report for {:.1} s", *silent_ms as f64 / 1000.0),
            ..Told::default()
        },
        Record::HostActivated { host, reason } => Told {
            kind: "host-activated",
            host: Some(host),
            text: format!("standby host {host} activated"),
            reason: Some(reason),
            ..Told::default()
        },
        _ => return tell_of_pool(record),
    };
    Some(told)
}

fn tell_of_pool(record: &Record) -> Option<Told<'_>> {
    let (kind, host, text, reason) = match record {
        Record::HostChanged { host, state, lease, next, reason } => {
            let lease = lease.as_ref().map(|it| format!(" to {it}")).unwrap_or_default();
            let next = next.as_ref().map(|it| format!(", for {it}")).unwrap_or_default();
            let text = format!("host {host} is {}{lease}{next}", state.name());
            ("host-changed", host, text, Some(reason.as_str()))
        }
        Record::HookStarted { host, action, reason } => {
            ("hook-started", host, format!("hook: {host} {}", action.name()), Some(reason.as_str()))
        }
        Record::HookEnded { host, action, failure: None } => {
            ("hook-done", host, format!("hook: {host} {} done", action.name()), None)
        }
        Record::HookEnded { host, action, failure } => {
            ("hook-failed", host, format!("hook: {host} {} failed", action.name()), failure.as_deref())
        }
        Record::PlanAborted { left, reason } => {
            let text = format!("{left} planned moves are left out");
            return Some(Told { kind: "plan-aborted", text, reason: Some(reason), ..Told::default() });
        }
        Record::Stray { application, rank, epoch, host } => {
            return Some(Told {
                kind: "stray",
                application: Some(application),
                rank: Some(*rank),
                host: Some(host),
                text: format!("a process with epoch {epoch} was found on {host} and is ended"),
                reason: None,
            });
        }
        Record::PolicySet { version, policy } => {
            let text = format!("policy {version} holds ({} rules)", policy.rules.len());
            return Some(Told { kind: "policy-set", text, ..Told::default() });
        }
        _ => return tell_of_application(record),
    };
    Some(Told { kind, host: Some(host), text, reason, ..Told::default() })
}

fn tell_of_application(record: &Record) -> Option<Told<'_>> {
    let (kind, application, text, reason) = match record {
        Record::Submitted { application, specification, hosts } => {
            let placed: Vec<String> =
                hosts.iter().enumerate().map(|(rank, host)| format!("{rank}:{host}")).collect();
            let mut text =
                format!("submitted with {} ranks, placed {}", specification.ranks(), placed.join(" "));
            if text.len() > 300 {
                text.truncate(300);
                text.push('…');
            }
            ("submitted", application, text, None)
        }
        Record::Queued { application, specification, reason } => {
            let text = format!("queued with {} ranks", specification.ranks());
            ("queued", application, text, Some(reason.as_str()))
        }
        Record::UnitsShared { application, generation, targets, reason, .. } => {
            let shown: Vec<String> = targets.iter().take(32).map(u64::to_string).collect();
            let more = if targets.len() > 32 { " …" } else { "" };
            let text = format!("units shared out ({generation}): {}{more}", shown.join(" "));
            ("units-shared", application, text, Some(reason.as_str()))
        }
        Record::ApplicationRunning { application } => {
            ("running", application, "every partition runs".to_owned(), None)
        }
        Record::ApplicationEnding { application, status: 0, .. } => {
            ("finished", application, "every rank ended with status 0".to_owned(), None)
        }
        Record::ApplicationEnding { application, status, reason } => {
            ("failed", application, format!("ended with status {status}"), reason.as_deref())
        }
        Record::ApplicationEnded { application } => {
            ("ended", application, "nothing of it is left".to_owned(), None)
        }
        Record::PartitionEnded { application, rank, host, end, detail, owner: true, .. }
            if *end != End::Moved =>
        {
            let text = match end {
                End::Exited(status) => format!("ended with status {status} on {host}"),
                End::Killed(signal) => format!("its vmm was killed by signal {signal} on {host}"),
                End::Moved => return None,
            };
            let told = Told {
                kind: "partition-ended",
                application: Some(application),
                rank: Some(*rank),
                host: Some(host),
                text,
                reason: detail.as_deref(),
            };
            return Some(told);
        }
        _ => return None,
    };
    Some(Told { kind, application: Some(application), text, reason, ..Told::default() })
}

fn tell_of_move<'a>(
    record: &'a Record,
    find: impl Fn(MoveId) -> Option<MoveIdentity<'a>>,
) -> Option<Told<'a>> {
    let (kind, id, text, reason) = match record {
        Record::MoveStarted { id, from, to, epoch, reason, .. } => (
            "move-started",
            *id,
            format!("move {id} from {from} to {to} (epoch {epoch})"),
            Some(reason.as_str()),
        ),
        Record::MoveInDoubt { id, reason } => {
            ("move-in-doubt", *id, format!("move {id} is in doubt"), Some(reason.as_str()))
        }
        Record::MoveDone { id, measured } => {
            let numbers = measured.as_ref().map(|report| {
                format!(", blackout {:.1} ms, {:.2} s in all", report.blackout_ms, report.total_s)
            });
            ("move-done", *id, format!("move {id} done{}", numbers.unwrap_or_default()), None)
        }
        Record::MoveFailed { id, reason, ended } => {
            let then = if *ended { "the partition has ended" } else { "it goes on where it was" };
            ("move-failed", *id, format!("move {id} failed; {then}"), Some(reason.as_str()))
        }
        _ => return None,
    };
    let identity = find(id)?;
    let host = if kind == "move-done" { identity.to } else { identity.from };
    Some(Told {
        kind,
        application: Some(identity.application),
        rank: Some(identity.rank),
        host: Some(host),
        text,
        reason,
    })
}
