//! The cluster: takes what happens (reports, orders, time), decides, and leaves records and commands in an outbox.
//!
//! It neither reads a clock nor opens a socket. Whoever calls it writes the outbox's records to the journal *before* it
//! hands the outbox's commands to [`Cluster::release`].

mod administration;
mod admission;
mod answers;
mod monitor;
mod moves;
mod pool;
mod snapshot;
mod units;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use control::{
    Action, Answer, ApplicationId, ClusterId, Command, CommandResult, CommandsRequest, Counters, Epoch,
    HookAction, HostName, MoveId, Outcome, PartitionReport, PartitionState, Peer, PlannedMove,
    PolicyValueError, Rank, Report, SpecificationError, Start, StreamPosition, fabric_address,
};
use thiserror::Error;

use crate::executor::Flight;
use crate::metrics::Planned;
use crate::model::Model;
use crate::output::Log;
use crate::placement::PlacementError;
use crate::reconcile::{Finding, examine};
use crate::record::{Entry, Record};
use crate::state::{Phase, State};
use crate::view::{Process, View};

/// Exit status of an application that a user stopped, as a shell shows SIGTERM.
const STATUS_STOPPED: u8 = 143;
/// Time that passes in one step when the coordinator was held up.
const HELD_UP_MS: u64 = 1_000;
/// Applications whose output is kept after their end.
const LOGS_MAX: usize = 16;
/// A command to an orphan is repeated after this long.
const REPEAT_MS: u64 = 3_000;

/// What the coordinator is told on its command line.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Thresholds of the planner.
    pub planner: planner::Settings,
    /// How often it plans, in milliseconds.
    pub period_ms: u64,
    /// A host is lost when it has been silent for this long, in milliseconds.
    pub host_timeout_ms: u64,
    /// May standby hosts be activated?
    pub activate: bool,
    /// Count time without a processor as load.
    pub count_steal: bool,
    /// Seconds that a message between two hosts costs; `None`: as measured.
    pub latency_s: Option<f64>,
}

/// An order or a report that was refused.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The agent has partitions of another cluster.
    #[error(
        "the agent has partitions of cluster {theirs}, this is {ours}; start the coordinator with that cluster's --state, or restart the agent"
    )]
    OtherCluster {
        /// The agent's.
        theirs: ClusterId,
        /// Ours.
        ours: ClusterId,
    },
    /// The agent has to report first.
    #[error("host {0} has to report before it asks for commands")]
    Unreported(HostName),
    /// It cannot run anywhere.
    #[error("the application is refused: {0}")]
    Specification(#[from] SpecificationError),
    /// It can never be placed.
    #[error("the application cannot be placed: {0}")]
    Placement(#[from] PlacementError),
    /// More than its quota.
    #[error("the application is refused: its quota is {limit} of {what}, it asks for {asked}")]
    Quota {
        /// Of what.
        what: &'static str,
        /// How much.
        limit: u64,
        /// What it wants.
        asked: u64,
    },
    /// The policy cannot be followed.
    #[error("the policy is refused: {0}")]
    Policy(#[from] PolicyValueError),
    /// There is no such host.
    #[error("there is no host {0}; `coordinator hosts` lists them")]
    NoHost(HostName),
    /// The host cannot change so.
    #[error("host {host} cannot {action}: {reason}")]
    Host {
        /// The host.
        host: HostName,
        /// What was asked for.
        action: &'static str,
        /// Why not.
        reason: String,
    },
    /// There is no such application.
    #[error("there is no application {0}; `coordinator apps` lists them")]
    NoApplication(ApplicationId),
    /// Nothing of it runs.
    #[error("there is no application {0} that runs; `coordinator apps` lists them")]
    NotLive(ApplicationId),
    /// The move cannot be made.
    #[error("rank {rank} of {application} cannot move to {to}: {reason}")]
    Move {
        /// Application.
        application: ApplicationId,
        /// Rank.
        rank: Rank,
        /// Destination.
        to: HostName,
        /// Why.
        reason: String,
    },
}

/// A hook to be run; its end is told to [`Cluster::hook_ended`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookOrder {
    /// First argument.
    pub host: HostName,
    /// Second argument.
    pub action: HookAction,
    /// The script.
    pub command: String,
    /// It is killed after this long, in milliseconds.
    pub timeout_ms: u64,
}

/// What a call leaves to be done, in this order: records to the journal, then commands to agents.
#[derive(Debug, Default)]
pub struct Outbox {
    /// For the journal.
    pub entries: Vec<Entry>,
    /// For [`Cluster::release`], afterwards.
    pub commands: Vec<(HostName, Command)>,
}

/// The end of an application, as told to one host.
#[derive(Clone, Copy, Debug)]
struct Farewell {
    command: u64,
    confirmed: bool,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    name: ClusterId,
    state: State,
    view: View,
    model: Model,
    logs: BTreeMap<ApplicationId, Log>,
    flights: BTreeMap<MoveId, Flight>,
    queues: BTreeMap<HostName, VecDeque<Command>>,
    outbox: Outbox,
    started_ms: u64,
    last_command: u64,
    /// Start commands without an outcome.
    starting: BTreeMap<Process, u64>,
    farewells: BTreeMap<(ApplicationId, HostName), Farewell>,
    /// What each process was told about its peers.
    told: BTreeMap<Process, BTreeMap<Rank, Peer>>,
    /// Orphans that were told to end, and when.
    orphans: BTreeMap<(HostName, Process), u64>,
    planned: VecDeque<PlannedMove>,
    planned_ms: u64,
    /// Waves of the planned moves that are under way.
    under_way: BTreeMap<MoveId, u32>,
    hooks: Vec<HookOrder>,
    pending: Option<pool::Pending>,
    noted_ms: u64,
    imbalanced_since_ms: Option<u64>,
    /// Loss from imbalance since the last plan that moved something, in application-seconds, and up to when.
    suffered_s: f64,
    suffered_at_ms: Option<u64>,
    overloaded_since_ms: Option<u64>,
    overload_told: bool,
    /// When time passed last, and when it went on after the coordinator had been held up (Unix milliseconds).
    ticked_ms: u64,
    awake_ms: u64,
    /// Applications that count their work in units.
    sharing: BTreeMap<ApplicationId, units::Sharing>,
    /// How the last round of planning went, for the metrics.
    noted: Option<Planned>,
}

impl Cluster {
    /// Replays the journal and goes on. `name` is the cluster's if the journal does not say (it always does).
    pub fn resume(settings: Settings, name: ClusterId, entries: &[Entry], now_ms: u64) -> Self {
        let mut state = State::default();
        entries.iter().for_each(|entry| state.apply(entry));
        let incarnation = state.incarnation + 1;
        let flights = state.open_moves().map(|(id, _)| (id, Flight::recover(now_ms))).collect();
        let live = state.applications.iter().filter(|(_, it)| it.phase != Phase::Ended);
        let logs = live.map(|(id, _)| (id.clone(), Log::new(true))).collect();
        let mut cluster = Self {
            settings,
            name: state.cluster.clone().unwrap_or(name),
            state,
            view: View::default(),
            model: Model::new(settings.count_steal),
            logs,
            flights,
            queues: BTreeMap::new(),
            outbox: Outbox::default(),
            started_ms: now_ms,
            // Higher than every command of earlier runs, also of those that an old copy of the journal does not know.
            last_command: (incarnation << 32).max(now_ms << 20),
            starting: BTreeMap::new(),
            farewells: BTreeMap::new(),
            told: BTreeMap::new(),
            orphans: BTreeMap::new(),
            planned: VecDeque::new(),
            planned_ms: 0,
            under_way: BTreeMap::new(),
            hooks: Vec::new(),
            pending: None,
            noted_ms: now_ms,
            imbalanced_since_ms: None,
            suffered_s: 0.0,
            suffered_at_ms: None,
            overloaded_since_ms: None,
            overload_told: false,
            ticked_ms: now_ms,
            awake_ms: now_ms,
            sharing: BTreeMap::new(),
            noted: None,
        };
        cluster.record(now_ms, Record::Started { incarnation });
        cluster.resume_hooks(now_ms);
        cluster
    }

    /// What was decided so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The cluster's name.
    pub fn name(&self) -> &ClusterId {
        &self.name
    }

    /// What is to be done now; empty afterwards.
    pub fn take_outbox(&mut self) -> Outbox {
        std::mem::take(&mut self.outbox)
    }

    /// Queues commands whose records are in the journal.
    pub fn release(&mut self, commands: Vec<(HostName, Command)>) {
        for (host, command) in commands {
            self.queues.entry(host).or_default().push_back(command);
        }
    }

    /// Takes an agent's report.
    pub fn report(&mut self, now_ms: u64, report: &Report) -> Result<Answer, ClusterError> {
        if let Some(theirs) = report.cluster.as_ref().filter(|theirs| **theirs != self.name) {
            return Err(ClusterError::OtherCluster { theirs: theirs.clone(), ours: self.name.clone() });
        }
        if self.view.observe(now_ms, report) {
            self.agent_started(now_ms, report);
        }
        if self.state.hosts.get(&report.host).is_none_or(|host| host.lost) {
            let cpus = u32::try_from(report.facts.cpus.len()).unwrap_or(u32::MAX);
            let joined =
                Record::HostJoined { host: report.host.clone(), standby: report.facts.standby, cpus };
            self.record(now_ms, joined);
        }
        self.note_ends(now_ms, report);
        for process in &report.partitions {
            let owner = self.state.ownership(&process.application, process.rank);
            let owns = owner.is_some_and(|owner| owner.epoch == process.epoch);
            if let Some(counters) = process.counters.as_ref().filter(|_| owns && process.end.is_none()) {
                self.model.observe(&process.application, process.rank, process.epoch, counters);
                self.observe_latencies(report, process, counters);
            }
        }
        let positions = report.output.iter().map(|chunk| self.take_output(now_ms, chunk)).collect();
        for result in &report.results {
            self.take_result(now_ms, result);
        }
        self.advance(now_ms);
        Ok(Answer { cluster: self.name.clone(), fence: self.state.incarnation, positions })
    }

    /// Between partitions of two hosts half a round trip is what a message takes; nothing if these hosts share memory.
    fn observe_latencies(&mut self, report: &Report, process: &PartitionReport, counters: &Counters) {
        for peer in &counters.peers {
            let owner = self.state.ownership(&process.application, peer.rank);
            let apart = owner.is_some_and(|owner| owner.host != report.host && owner.moving.is_none());
            if apart && peer.bytes_sent > 0 {
                let seconds = peer.round_trip_ns.unwrap_or(0) as f64 / 2e9;
                self.model.observe_latency(&process.application, process.rank, peer.rank, seconds);
            }
        }
    }

    /// Commands that the agent does not have yet; none if there are none now.
    pub fn commands(&mut self, request: &CommandsRequest) -> Result<Vec<Command>, ClusterError> {
        let seen = self.view.hosts.get(&request.host).is_some_and(|seen| seen.session == request.session);
        if !seen {
            return Err(ClusterError::Unreported(request.host.clone()));
        }
        let Some(queue) = self.queues.get_mut(&request.host) else { return Ok(Vec::new()) };
        if queue.is_empty() {
            // A clock that was set back: the agent ignores what it takes for old.
            self.last_command = self.last_command.max(request.received);
        }
        queue.retain(|command| command.id > request.received);
        Ok(queue.iter().take(control::PARTITIONS_MAX).cloned().collect())
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        // While the coordinator was stopped, or waited for its store, nobody could report to it.
        if now_ms.saturating_sub(self.ticked_ms) > HELD_UP_MS {
            self.awake_ms = now_ms;
        }
        self.ticked_ms = now_ms;
        self.find_lost_hosts(now_ms);
        self.advance(now_ms);
        if now_ms.saturating_sub(self.planned_ms) >= self.settings.period_ms {
            self.planned_ms = now_ms;
            self.admit_queued(now_ms);
            self.share_units(now_ms);
            self.plan_moves(now_ms);
        }
    }

    /// Ends an application.
    pub fn stop(&mut self, now_ms: u64, application: &ApplicationId) -> Result<(), ClusterError> {
        let known = self.state.applications.get(application);
        let live = known.ok_or_else(|| ClusterError::NoApplication(application.clone()))?.is_wanted();
        if live {
            self.end_application(now_ms, application, STATUS_STOPPED, Some("stopped by a user".into()));
            self.advance(now_ms);
        }
        Ok(())
    }

    fn record(&mut self, time_ms: u64, record: Record) {
        let entry = Entry { time_ms, record };
        self.state.apply(&entry);
        self.outbox.entries.push(entry);
    }

    fn command(&mut self, host: &HostName, process: &Process, action: Action) -> u64 {
        self.last_command += 1;
        let (application, rank, epoch) = process.clone();
        let command = Command {
            id: self.last_command,
            fence: self.state.incarnation,
            application,
            rank,
            epoch,
            action,
        };
        self.outbox.commands.push((host.clone(), command));
        self.last_command
    }

    /// The agent is new to this run of the coordinator, or was started again: commands on their way are lost.
    fn agent_started(&mut self, now_ms: u64, report: &Report) {
        let host = &report.host;
        self.queues.insert(host.clone(), VecDeque::new());
        let state = &self.state;
        let here = |(application, rank, _): &Process| {
            state.ownership(application, *rank).is_some_and(|owner| owner.host == *host)
        };
        self.starting.retain(|process, _| !here(process));
        self.told.retain(|process, _| !here(process));
        self.farewells.retain(|(_, at), _| at != host);
        self.orphans.retain(|(at, _), _| at != host);
        self.flights_lose_agent(now_ms, host);
    }

    fn find_lost_hosts(&mut self, now_ms: u64) {
        let mut lost = Vec::new();
        for (name, host) in self.state.hosts.iter().filter(|(_, host)| !host.lost) {
            // After a start of the coordinator agents come back within their back-off.
            let since = self
                .view
                .hosts
                .get(name)
                .map_or(self.started_ms + self.settings.host_timeout_ms, |seen| seen.at_ms);
            let silent_ms = now_ms.saturating_sub(since.max(self.awake_ms));
            if silent_ms > self.settings.host_timeout_ms && !host.lost {
                lost.push((name.clone(), silent_ms));
            }
        }
        for (host, silent_ms) in lost {
            self.queues.remove(&host);
            self.view.hosts.remove(&host);
            let involved = self.planned.iter().any(|it| it.from == host || it.to == host);
            let reason = format!("host {host} was lost");
            self.record(now_ms, Record::HostLost { host, silent_ms });
            if involved {
                self.abort_plan(now_ms, self.planned.len(), reason);
            }
        }
    }

    fn note_ends(&mut self, now_ms: u64, report: &Report) {
        for process in &report.partitions {
            let Some(end) = process.end else { continue };
            let Some(application) = self.state.applications.get(&process.application) else { continue };
            let Some(owner) = application.partitions.get(process.rank as usize) else { continue };
            if owner.ends.contains_key(&process.epoch) || !application.is_live() {
                continue;
            }
            let owner = owner.epoch == process.epoch;
            let record = Record::PartitionEnded {
                application: process.application.clone(),
                rank: process.rank,
                epoch: process.epoch,
                host: report.host.clone(),
                end,
                detail: process.detail.clone(),
                owner,
            };
            self.record(now_ms, record);
        }
    }

    fn take_output(&mut self, now_ms: u64, chunk: &control::OutputChunk) -> StreamPosition {
        let next = match self.logs.get_mut(&chunk.application) {
            Some(log) => log.accept(now_ms, chunk),
            // Nobody will ask for it.
            None => chunk.offset.saturating_add(chunk.data.0.len() as u64),
        };
        StreamPosition {
            application: chunk.application.clone(),
            rank: chunk.rank,
            epoch: chunk.epoch,
            stream: chunk.stream,
            next,
        }
    }

    fn take_result(&mut self, now_ms: u64, result: &CommandResult) {
        let process = (result.application.clone(), result.rank, result.epoch);
        if self.starting.get(&process) == Some(&result.id) {
            self.starting.remove(&process);
            let reason = match &result.outcome {
                Outcome::Failed { reason } => Some(reason.clone()),
                Outcome::StaleEpoch { highest } => Some(format!("its host has seen epoch {highest} already")),
                _ => None,
            };
            // A program that has failed already says so with its own status.
            let ended = self
                .state
                .ownership(&result.application, result.rank)
                .is_some_and(|owner| owner.end().is_some());
            if let Some(reason) = reason.filter(|_| !ended) {
                let reason = format!("rank {} could not be started: {reason}", result.rank);
                self.end_application(now_ms, &result.application, 1, Some(reason));
            }
        }
        let confirms = self.farewells.values_mut().find(|farewell| farewell.command == result.id);
        if let Some(farewell) = confirms {
            farewell.confirmed = true;
        }
        if matches!(result.outcome, Outcome::Failed { .. }) {
            // In case it was about peers: they are told again.
            self.told.remove(&process);
        }
        self.step_flights(now_ms, Some(result));
    }

    /// Brings what is nearer to what was decided.
    fn advance(&mut self, now_ms: u64) {
        self.step_flights(now_ms, None);
        self.reconcile(now_ms);
        self.end_orphans(now_ms);
        self.tell_peers();
        self.note_empty(now_ms);
        self.roll_back_drains(now_ms);
        self.start_planned(now_ms);
    }

    fn reconcile(&mut self, now_ms: u64) {
        let live = self.state.applications.iter().filter(|(_, it)| it.phase != Phase::Ended);
        let ids: Vec<ApplicationId> = live.map(|(id, _)| id.clone()).collect();
        for id in ids {
            let Some(application) = self.state.applications.get(&id) else { continue };
            let starting = |rank: Rank, epoch: Epoch| self.starting.contains_key(&(id.clone(), rank, epoch));
            let confirmed = self.is_farewell_complete(&id);
            for finding in examine(&self.state, &self.view, &id, application, starting, confirmed) {
                match finding {
                    Finding::Start(rank) => self.start_partition(&id, rank),
                    Finding::AllRunning => {
                        self.record(now_ms, Record::ApplicationRunning { application: id.clone() })
                    }
                    Finding::Over { status, reason } => self.end_application(now_ms, &id, status, reason),
                    Finding::Gone => self.forget_application(now_ms, &id),
                }
            }
            self.say_farewell(&id);
        }
    }

    fn start_partition(&mut self, id: &ApplicationId, rank: Rank) {
        let Some(application) = self.state.applications.get(id) else { return };
        let Some(owner) = application.partitions.get(rank as usize).cloned() else { return };
        let Some(component) = application.specification.component(rank).cloned() else { return };
        let mut peers = BTreeMap::new();
        for (peer, owner) in (0..).zip(&application.partitions) {
            // The ports of others are known when they run; whoever needs one waits until it is told.
            let seen = self.view.hosts.get(&owner.host).filter(|seen| seen.facts.fabric_address.is_none());
            if let Some(seen) = seen {
                let address = fabric_address(&seen.facts.state_directory, id, peer, owner.epoch);
                peers.insert(peer, Peer { epoch: owner.epoch, address });
            }
        }
        let paths = || component.files.iter().map(|file| &file.host).chain([&component.executable]);
        let digest =
            |path: &PathBuf| Some((path.clone(), application.specification.digests.get(path)?.clone()));
        let start = Start {
            digests: paths().filter_map(digest).collect(),
            ranks: application.specification.ranks(),
            executable: component.executable,
            args: component.args,
            env: component.env,
            memory_bytes: component.memory_bytes,
            files: component.files,
            peers: peers.clone(),
            report: moves::report_file(&application.specification, rank, owner.epoch),
        };
        let process = (id.clone(), rank, owner.epoch);
        let command = self.command(&owner.host, &process, Action::Start(Box::new(start)));
        self.starting.insert(process.clone(), command);
        self.told.insert(process, peers);
    }

    fn end_application(&mut self, now_ms: u64, id: &ApplicationId, status: u8, reason: Option<String>) {
        if self.state.applications.get(id).is_some_and(|application| application.is_wanted()) {
            self.record(now_ms, Record::ApplicationEnding { application: id.clone(), status, reason });
            self.step_flights(now_ms, None);
        }
    }

    /// Tells every host that may have something of an ending application to end it.
    fn say_farewell(&mut self, id: &ApplicationId) {
        let Some(application) = self.state.applications.get(id).filter(|it| it.phase == Phase::Ending) else {
            return;
        };
        let mut hosts: BTreeSet<HostName> = self.view.hosts_of(id).cloned().collect();
        hosts.extend(application.partitions.iter().map(|owner| owner.host.clone()));
        let moves = self.state.moves.values().filter(|it| it.application == *id);
        hosts.extend(moves.map(|it| it.to.clone()));
        for host in hosts {
            let key = (id.clone(), host.clone());
            if self.view.hosts.contains_key(&host) && !self.farewells.contains_key(&key) {
                let command = self.command(&host, &(id.clone(), 0, 0), Action::EndApplication);
                self.farewells.insert(key, Farewell { command, confirmed: false });
            }
        }
    }

    fn is_farewell_complete(&self, id: &ApplicationId) -> bool {
        let Some(application) = self.state.applications.get(id) else { return true };
        let told = |host: &HostName| {
            let lost = self.state.hosts.get(host).is_none_or(|host| host.lost);
            lost || self.farewells.get(&(id.clone(), host.clone())).is_some_and(|farewell| farewell.confirmed)
        };
        let moves = self.state.moves.values().filter(|it| it.application == *id);
        application.partitions.iter().map(|owner| &owner.host).chain(moves.map(|it| &it.to)).all(told)
    }

    fn forget_application(&mut self, now_ms: u64, id: &ApplicationId) {
        self.record(now_ms, Record::ApplicationEnded { application: id.clone() });
        self.model.remove(id);
        self.farewells.retain(|(application, _), _| application != id);
        self.told.retain(|(application, _, _), _| application != id);
        self.starting.retain(|(application, _, _), _| application != id);
        let ended = |id: &&ApplicationId| {
            self.state.applications.get(*id).is_none_or(|application| application.phase == Phase::Ended)
        };
        let mut old: Vec<(u64, ApplicationId)> =
            self.logs.keys().filter(ended).map(|id| (self.ended_ms(id), id.clone())).collect();
        old.sort();
        let surplus = old.len().saturating_sub(LOGS_MAX);
        for (_, id) in old.into_iter().take(surplus) {
            self.logs.remove(&id);
        }
    }

    fn ended_ms(&self, id: &ApplicationId) -> u64 {
        self.state.applications.get(id).and_then(|application| application.ended_ms).unwrap_or(0)
    }

    /// Ends processes that nothing accounts for: of applications that have ended, and of epochs that are over.
    fn end_orphans(&mut self, now_ms: u64) {
        let mut found = Vec::new();
        for (host, seen) in &self.view.hosts {
            for (process, report) in seen.processes.iter().filter(|(_, report)| report.end.is_none()) {
                let (id, rank, epoch) = process;
                let application = self.state.applications.get(id);
                let action = match application.map(|application| application.phase) {
                    None | Some(Phase::Ended) => Action::EndApplication,
                    Some(Phase::Ending) => continue,
                    Some(_) if self.is_accounted_for(host, id, *rank, *epoch) => continue,
                    // It tells its peers where it went and ends by itself.
                    Some(_) if report.state == PartitionState::Moved => continue,
                    Some(_) => Action::Kill,
                };
                let told = self.orphans.get(&(host.clone(), process.clone()));
                if told.is_none_or(|told| now_ms.saturating_sub(*told) > REPEAT_MS) {
                    found.push((host.clone(), process.clone(), action));
                }
            }
        }
        for (host, process, action) in found {
            if action == Action::Kill && !self.orphans.contains_key(&(host.clone(), process.clone())) {
                let (application, rank, epoch) = process.clone();
                self.record(now_ms, Record::Stray { application, rank, epoch, host: host.clone() });
            }
            self.command(&host, &process, action);
            self.orphans.insert((host, process), now_ms);
        }
        self.orphans.retain(|_, told| now_ms.saturating_sub(*told) <= 2 * REPEAT_MS);
    }

    fn is_accounted_for(&self, host: &HostName, id: &ApplicationId, rank: Rank, epoch: Epoch) -> bool {
        let Some(owner) = self.state.ownership(id, rank) else { return false };
        let owns = owner.epoch == epoch && owner.host == *host;
        let order = owner.moving.and_then(|id| self.state.moves.get(&id));
        owns || order.is_some_and(|order| order.epoch == epoch && order.to == *host)
    }

    /// Tells every running partition what it does not know yet about where its peers are.
    fn tell_peers(&mut self) {
        let mut news = Vec::new();
        for (id, application) in self.state.applications.iter().filter(|(_, it)| it.is_live()) {
            let mut peers = BTreeMap::new();
            for (rank, owner) in
                (0..).zip(&application.partitions).filter(|(_, owner)| owner.moving.is_none())
            {
                let report = self.view.process(&owner.host, &(id.clone(), rank, owner.epoch));
                if let Some(address) = report.filter(|it| it.end.is_none()).and_then(|it| it.fabric.clone()) {
                    peers.insert(rank, Peer { epoch: owner.epoch, address });
                }
            }
            for (rank, owner) in
                (0..).zip(&application.partitions).filter(|(_, owner)| owner.moving.is_none())
            {
                let process = (id.clone(), rank, owner.epoch);
                let report = self.view.process(&owner.host, &process);
                if report.is_none_or(|it| it.state != PartitionState::Running) {
                    continue;
                }
                let told = self.told.get(&process);
                let is_news = |peer: &Rank, it: &Peer| {
                    *peer != rank && told.and_then(|told| told.get(peer)) != Some(it)
                };
                let changed: BTreeMap<Rank, Peer> = peers
                    .iter()
                    .filter(|(peer, it)| is_news(peer, it))
                    .map(|(peer, it)| (*peer, it.clone()))
                    .collect();
                if !changed.is_empty() {
                    news.push((owner.host.clone(), process, changed));
                }
            }
        }
        for (host, process, changed) in news {
            self.told.entry(process.clone()).or_default().extend(changed.clone());
            self.command(&host, &process, Action::SetPeers(changed));
        }
    }

    /// Partitions of a host and the memory they take, in bytes; those on their way to it included.
    fn usage(&self, host: &HostName) -> (u32, u64) {
        let (mut count, mut bytes) = (0, 0_u64);
        for application in self.state.applications.values().filter(|it| it.phase != Phase::Ended) {
            for (rank, owner) in (0..).zip(&application.partitions).filter(|(_, owner)| owner.end().is_none())
            {
                let order = owner.moving.and_then(|id| self.state.moves.get(&id));
                if owner.host == *host || order.is_some_and(|order| order.to == *host) {
                    let component = application.specification.component(rank);
                    count += 1;
                    bytes = bytes.saturating_add(component.map_or(0, |component| component.memory_bytes));
                }
            }
        }
        (count, bytes)
    }
}
