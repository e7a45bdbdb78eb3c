//! What was decided, as the sum of all records: applications, who owns which epoch, moves, roles of hosts.
//!
//! [`State::apply`] is the only way to change it, for new records and for replayed ones alike.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use control::{
    ApplicationId, CandidateView, ClusterId, End, Epoch, EventView, HookAction, HostName, HostState, MoveId,
    MoveReport, PolicyView, Prediction, Rank, Specification,
};

use crate::record::{Entry, MoveIdentity, Record};

/// Why a host has the role that its agent asked for.
const JOINED: &str = "its agent reported";
/// Events kept in memory; the journal has all.
const EVENTS_MAX: usize = 20_000;
/// Applications that are over and remembered, with their moves, the latest; the journal has all.
const ENDED_MAX: usize = 1000;

/// Where an application is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for room; no partition has a host.
    Queued,
    /// Placed; not every partition has been seen running.
    Placed,
    /// Every partition has been seen running.
    Running,
    /// Over; what is left is being ended.
    Ending,
    /// Nothing is left.
    Ended,
}

/// Who owns a partition.
#[derive(Clone, Debug)]
pub struct Ownership {
    /// The owner's host.
    pub host: HostName,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The highest epoch ever granted.
    pub granted: Epoch,
    /// How processes of it ended, by epoch.
    pub ends: BTreeMap<Epoch, End>,
    /// The move under way.
    pub moving: Option<MoveId>,
    /// Moves done.
    pub moves: u32,
    /// When the last move was over, Unix milliseconds.
    pub moved_ms: Option<u64>,
    /// Blackout of the last move.
    pub last_blackout_ms: Option<f64>,
    /// Duration of the last move.
    pub last_total_s: Option<f64>,
}

impl Ownership {
    /// How it ended, if its owner did.
    pub fn end(&self) -> Option<End> {
        self.ends.get(&self.epoch).copied().filter(|_| self.moving.is_none())
    }
}

/// An application.
#[derive(Clone, Debug)]
pub struct Application {
    /// What was asked.
    pub specification: Specification,
    /// Unix milliseconds.
    pub submitted_ms: u64,
    /// Since when it is over, Unix milliseconds.
    pub ended_ms: Option<u64>,
    /// Where it is.
    pub phase: Phase,
    /// Once it is over.
    pub exit_status: Option<u8>,
    /// Why it is over.
    pub reason: Option<String>,
    /// By rank.
    pub partitions: Vec<Ownership>,
    /// How its units of work were shared out last.
    pub shared: Option<Shared>,
}

/// A sharing-out of units of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Rises by 1.
    pub generation: u64,
    /// Units of every rank.
    pub targets: Vec<u64>,
    /// Speed of every rank's host relative to their mean, in parts per million.
    pub speeds_ppm: Vec<u64>,
    /// Unix milliseconds.
    pub time_ms: u64,
}

impl Application {
    /// Is it not over, whether it has begun or not?
    pub fn is_wanted(&self) -> bool {
        self.is_live() || self.phase == Phase::Queued
    }

    /// Has it begun, and is it still to go on?
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Placed | Phase::Running)
    }
}

/// How a move stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovePhase {
    /// Under way.
    Open,
    /// Under way, and nobody knows yet which side has it.
    InDoubt,
    /// Over: the destination has it.
    Done,
    /// Over: the source has it.
    Failed,
}

/// A move.
#[derive(Clone, Debug)]
pub struct Move {
    /// The application.
    pub application: ApplicationId,
    /// The rank.
    pub rank: Rank,
    /// Source.
    pub from: HostName,
    /// The source's epoch.
    pub from_epoch: Epoch,
    /// Destination.
    pub to: HostName,
    /// The epoch granted to it.
    pub epoch: Epoch,
    /// Why.
    pub reason: String,
    /// The planner's numbers.
    pub explanation: Option<CandidateView>,
    /// How it stands.
    pub phase: MovePhase,
    /// Why it failed.
    pub failure: Option<String>,
    /// When it was decided.
    pub time_ms: u64,
    /// What the source measured.
    pub measured: Option<MoveReport>,
    /// What was predicted.
    pub predicted: Option<Prediction>,
}

/// A host and its role in the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its role.
    pub state: HostState,
    /// Silent for too long.
    pub lost: bool,
    /// Whose it is.
    pub lease: Option<ApplicationId>,
    /// The application that it was leased to first, as long as that one is not over.
    pub home: Option<ApplicationId>,
    /// Who is to get it once it is empty.
    pub next: Option<ApplicationId>,
    /// What it was before it was cordoned or drained, and whose.
    pub before: (HostState, Option<ApplicationId>),
    /// Since when it has its role, Unix milliseconds.
    pub since_ms: u64,
    /// How often it has gone from one application to another.
    pub handovers: u32,
    /// Why it has its role.
    pub reason: String,
    /// The hook that runs for it.
    pub hook: Option<(HookAction, String)>,
    /// When its hook failed last, Unix milliseconds.
    pub hook_failed_ms: Option<u64>,
}

impl Host {
    fn new(state: HostState, now_ms: u64) -> Self {
        Self {
            state,
            lost: false,
            lease: None,
            home: None,
            next: None,
            before: (state, None),
            since_ms: now_ms,
            handovers: 0,
            reason: JOINED.to_owned(),
            hook: None,
            hook_failed_ms: None,
        }
    }

    /// Is it in reserve?
    pub fn is_standby(&self) -> bool {
        self.state == HostState::Standby
    }

    /// May partitions be on it, though perhaps no new ones?
    pub fn is_in_use(&self) -> bool {
        !self.lost && !matches!(self.state, HostState::Standby)
    }

    /// Why no partition may come, if so.
    pub fn closed(&self) -> Option<String> {
        match self.state {
            HostState::Active | HostState::Leased | HostState::Standby => None,
            state => Some(format!("it is {} ({})", state.name(), self.reason)),
        }
    }
}

/// The sum of all records.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Set by the first record.
    pub cluster: Option<ClusterId>,
    /// How often the coordinator was started.
    pub incarnation: u64,
    /// All applications that are not over, and the latest ones that are.
    pub applications: BTreeMap<ApplicationId, Application>,
    /// How many there ever were.
    submitted: usize,
    /// All moves of these applications.
    pub moves: BTreeMap<MoveId, Move>,
    /// The highest number that a move ever had.
    last_move: MoveId,
    /// All hosts ever.
    pub hosts: BTreeMap<HostName, Host>,
    /// The administrator's policy.
    pub policy: PolicyView,
    /// The newest events.
    pub events: VecDeque<EventView>,
    /// Number of records.
    pub records: u64,
}

impl State {
    /// The partition's owner.
    pub fn ownership(&self, application: &ApplicationId, rank: Rank) -> Option<&Ownership> {
        self.applications.get(application)?.partitions.get(rank as usize)
    }

    /// Moves that are under way.
    pub fn open_moves(&self) -> impl Iterator<Item = (MoveId, &Move)> {
        let open = |phase| matches!(phase, MovePhase::Open | MovePhase::InDoubt);
        self.moves.iter().filter(move |(_, it)| open(it.phase)).map(|(id, it)| (*id, it))
    }

    /// The number of the next move.
    pub fn next_move(&self) -> MoveId {
        self.last_move + 1
    }

    /// The number of the next application.
    pub fn next_application(&self) -> usize {
        self.submitted + 1
    }

    /// Adds a record. What a record names that does not exist is ignored: the journal's chain has been checked, so only a
    /// bug could have written it, and the rest of the journal is worth more than a refusal.
    pub fn apply(&mut self, entry: &Entry) {
        match &entry.record {
            Record::Genesis { cluster, .. } => self.cluster = Some(cluster.clone()),
            Record::Started { incarnation } => self.incarnation = *incarnation,
            Record::HostJoined { host, standby, .. } => {
                let state = if *standby { HostState::Standby } else { HostState::Active };
                let made = || Host::new(state, entry.time_ms);
                // A host keeps the role that it was given when its agent is started again.
                let known = self.hosts.entry(host.clone()).or_insert_with(made);
                known.lost = false;
                if known.reason == JOINED && !(known.state == HostState::Active && *standby) {
                    *known = made();
                }
            }
            Record::HostLost { host, .. } => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.lost = true;
                }
            }
            Record::HostActivated { host, reason } => {
                self.change_host(host, entry, (HostState::Active, None, None), reason);
            }
            Record::Overloaded { .. } => {}
            Record::PolicySet { version, policy } => {
                self.policy = PolicyView { version: *version, policy: policy.as_ref().clone() };
            }
            _ => self.apply_to_pool(entry),
        }
        self.records += 1;
        let moves = &self.moves;
        let find = |id| moves.get(&id).map(identity);
        if let Some(event) = entry.event(self.records, find) {
            self.events.push_back(event);
            if self.events.len() > EVENTS_MAX {
                self.events.pop_front();
            }
        }
    }

    fn apply_to_pool(&mut self, entry: &Entry) {
        match &entry.record {
            Record::HostChanged { host, state, lease, next, reason } => {
                self.change_host(host, entry, (*state, lease.clone(), next.clone()), reason);
            }
            Record::HookStarted { host, action, reason } => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.hook = Some((*action, reason.clone()));
                }
            }
            Record::HookEnded { host, failure, .. } => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.hook = None;
                    host.hook_failed_ms = failure.as_ref().map(|_| entry.time_ms);
                }
            }
            _ => self.apply_to_application(entry),
        }
    }

    fn change_host(
        &mut self,
        host: &HostName,
        entry: &Entry,
        (state, lease, next): (HostState, Option<ApplicationId>, Option<ApplicationId>),
        reason: &str,
    ) {
        let Some(it) = self.hosts.get_mut(host) else { return };
        if matches!(it.state, HostState::Active | HostState::Leased) {
            it.before = (it.state, it.lease.clone());
        }
        if let Some(new) = lease.as_ref().filter(|_| state == HostState::Leased) {
            it.handovers += u32::from(it.home.as_ref().is_some_and(|home| home != new) || it.handovers > 0);
            it.home.get_or_insert_with(|| new.clone());
        }
        it.since_ms = entry.time_ms;
        (it.state, it.lease, it.next) = (state, lease, next);
        it.reason = reason.to_owned();
    }

    fn apply_to_application(&mut self, entry: &Entry) {
        match &entry.record {
            Record::Queued { application, specification, .. } => {
                let made = queued(specification, entry.time_ms);
                self.add_application(application, made);
            }
            Record::Submitted { application, specification, hosts } => {
                let waited = self.applications.get(application).map(|it| it.submitted_ms);
                let made = Application {
                    specification: specification.as_ref().clone(),
                    submitted_ms: waited.unwrap_or(entry.time_ms),
                    ended_ms: None,
                    phase: Phase::Placed,
                    exit_status: None,
                    reason: None,
                    partitions: hosts.iter().map(first_owner).collect(),
                    shared: None,
                };
                self.add_application(application, made);
            }
            Record::UnitsShared { application, generation, targets, speeds_ppm, .. } => {
                if let Some(it) = self.applications.get_mut(application) {
                    it.shared = Some(Shared {
                        generation: *generation,
                        targets: targets.clone(),
                        speeds_ppm: speeds_ppm.clone(),
                        time_ms: entry.time_ms,
                    });
                }
            }
            Record::ApplicationRunning { application } => {
                if let Some(application) = self.applications.get_mut(application) {
                    application.phase = Phase::Running;
                }
            }
            Record::ApplicationEnding { application, status, reason } => {
                if let Some(application) = self.applications.get_mut(application) {
                    application.phase = Phase::Ending;
                    application.exit_status = Some(*status);
                    application.reason.clone_from(reason);
                    application.ended_ms = Some(entry.time_ms);
                }
            }
            Record::ApplicationEnded { application } => {
                if let Some(application) = self.applications.get_mut(application) {
                    application.phase = Phase::Ended;
                }
                for host in self.hosts.values_mut() {
                    // Nobody waits for it, and nobody misses it.
                    host.next = host.next.take().filter(|it| it != application);
                    host.home = host.home.take().filter(|it| it != application);
                    host.handovers = if host.home.is_none() { 0 } else { host.handovers };
                }
                self.forget_ended();
            }
            Record::PartitionEnded { application, rank, epoch, end, .. } => {
                if let Some(owner) = self.owner_mut(application, *rank) {
                    owner.ends.insert(*epoch, *end);
                }
            }
            _ => self.apply_to_move(entry),
        }
    }

    fn apply_to_move(&mut self, entry: &Entry) {
        match &entry.record {
            Record::MoveStarted {
                id,
                application,
                rank,
                from,
                to,
                epoch,
                reason,
                explanation,
                predicted,
            } => {
                let Some(owner) = self.owner_mut(application, *rank) else { return };
                owner.granted = *epoch;
                owner.moving = Some(*id);
                let made = Move {
                    application: application.clone(),
                    rank: *rank,
                    from: from.clone(),
                    from_epoch: owner.epoch,
                    to: to.clone(),
                    epoch: *epoch,
                    reason: reason.clone(),
                    explanation: explanation.as_deref().cloned(),
                    phase: MovePhase::Open,
                    failure: None,
                    time_ms: entry.time_ms,
                    measured: None,
                    predicted: *predicted,
                };
                self.moves.insert(*id, made);
                self.last_move = self.last_move.max(*id);
            }
            Record::MoveInDoubt { id, .. } => {
                if let Some(it) = self.moves.get_mut(id) {
                    it.phase = MovePhase::InDoubt;
                }
            }
            Record::MoveDone { id, measured } => self.close_move(*id, entry.time_ms, Ok(measured.as_ref())),
            Record::MoveFailed { id, reason, .. } => self.close_move(*id, entry.time_ms, Err(reason)),
            _ => {}
        }
    }

    fn close_move(&mut self, id: MoveId, time_ms: u64, result: Result<Option<&MoveReport>, &String>) {
        let Some(it) = self.moves.get_mut(&id) else { return };
        let owner = self.applications.get_mut(&it.application);
        let Some(owner) = owner.and_then(|application| application.partitions.get_mut(it.rank as usize))
        else {
            return;
        };
        owner.moving = None;
        owner.moved_ms = Some(time_ms);
        match result {
            Ok(measured) => {
                it.phase = MovePhase::Done;
                it.measured = measured.cloned();
                owner.host = it.to.clone();
                owner.epoch = it.epoch;
                owner.moves += 1;
                owner.last_blackout_ms = measured.map(|report| report.blackout_ms);
                owner.last_total_s = measured.map(|report| report.total_s);
            }
            Err(reason) => {
                it.phase = MovePhase::Failed;
                it.failure = Some(reason.clone());
            }
        }
    }

    fn add_application(&mut self, id: &ApplicationId, made: Application) {
        let queued_before = self.applications.insert(id.clone(), made).is_some();
        self.submitted += usize::from(!queued_before);
    }

    /// A coordinator that runs for years holds no more for that.
    fn forget_ended(&mut self) {
        let ended = self.applications.iter().filter(|(_, it)| it.phase == Phase::Ended);
        let mut ended: Vec<_> = ended.map(|(id, it)| (it.ended_ms, id.clone())).collect();
        let Some(surplus) = ended.len().checked_sub(ENDED_MAX).filter(|surplus| *surplus > 0) else { return };
        ended.sort();
        let forgotten: BTreeSet<ApplicationId> = ended.drain(..surplus).map(|(_, id)| id).collect();
        self.applications.retain(|id, _| !forgotten.contains(id));
        self.moves.retain(|_, it| !forgotten.contains(&it.application));
    }

    fn owner_mut(&mut self, application: &ApplicationId, rank: Rank) -> Option<&mut Ownership> {
        self.applications.get_mut(application)?.partitions.get_mut(rank as usize)
    }
}

fn queued(specification: &Specification, now_ms: u64) -> Application {
    Application {
        specification: specification.clone(),
        submitted_ms: now_ms,
        ended_ms: None,
        phase: Phase::Queued,
        exit_status: None,
        reason: None,
        partitions: Vec::new(),
        shared: None,
    }
}

fn first_owner(host: &HostName) -> Ownership {
    Ownership {
        host: host.clone(),
        epoch: 1,
        granted: 1,
        ends: BTreeMap::new(),
        moving: None,
        moves: 0,
        moved_ms: None,
        last_blackout_ms: None,
        last_total_s: None,
    }
}

fn identity(it: &Move) -> MoveIdentity<'_> {
    MoveIdentity { application: &it.application, rank: it.rank, from: &it.from, to: &it.to, epoch: it.epoch }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(state: &mut State, record: Record) {
        let time_ms = state.records;
        state.apply(&Entry { time_ms, record });
    }

    /// Queues one, has it run on `a`, and moves it to `b`.
    fn run(state: &mut State) -> ApplicationId {
        let application: ApplicationId = format!("heat-{}", state.next_application()).parse().unwrap();
        let (specification, hosts) = (Box::<Specification>::default(), vec!["a".parse().unwrap()]);
        let queued = Record::Queued {
            application: application.clone(),
            specification: specification.clone(),
            reason: "it waits".into(),
        };
        apply(state, queued);
        apply(state, Record::Submitted { application: application.clone(), specification, hosts });
        let id = state.next_move();
        let started = Record::MoveStarted {
            id,
            application: application.clone(),
            rank: 0,
            from: "a".parse().unwrap(),
            to: "b".parse().unwrap(),
            epoch: 2,
            reason: "it was asked for".into(),
            explanation: None,
            predicted: None,
        };
        apply(state, started);
        apply(state, Record::MoveDone { id, measured: None });
        application
    }

    fn end(state: &mut State, application: &ApplicationId) {
        let ending = Record::ApplicationEnding { application: application.clone(), status: 0, reason: None };
        apply(state, ending);
        apply(state, Record::ApplicationEnded { application: application.clone() });
    }

    #[test]
    fn of_the_applications_that_are_over_the_latest_are_remembered_with_their_moves() {
        let mut state = State::default();
        let lasting = run(&mut state);
        for _ in 0..ENDED_MAX + 10 {
            let over = run(&mut state);
            end(&mut state, &over);
        }
        assert_eq!((state.applications.len(), state.moves.len()), (ENDED_MAX + 1, ENDED_MAX + 1));
        assert!(state.ownership(&lasting, 0).is_some_and(|owner| owner.moves == 1));
        let oldest =
            state.applications.keys().filter(|id| **id != lasting).map(|id| state.applications[id].ended_ms);
        assert!(oldest.min() > Some(Some(60)), "the first ten are gone");
        // Numbers are not given twice.
        assert_eq!((state.next_application(), state.next_move()), (ENDED_MAX + 12, (ENDED_MAX + 12) as u64));
    }
}
