//! Moves of the cluster: planning them, starting them, and driving the executor of each.

use std::collections::BTreeMap;
use std::path::PathBuf;

use control::{
    ApplicationId, CandidateView, CommandResult, Epoch, HostName, MigrateOrder, MoveId, Outcome,
    PartitionState, Rank, Specification,
};

use super::{Cluster, ClusterError};
use crate::checker;
use crate::executor::{Effect, Facts, Flight, Side, SideFacts};
use crate::planner::{self, Edge, Plan, PlanApplication, PlanHost, PlanPartition, Snapshot};
use crate::record::Record;
use crate::state::{Application, Move, Ownership, Phase};

/// Assumed speed of a copy until one was measured.
const COPY_BYTES_PER_S: f64 = 500e6;
/// Assumed blackout until one was measured.
const BLACKOUT_S: f64 = 0.3;
/// Utilisation of every active host above which a standby host is wanted.
const OVERLOAD: f64 = 0.9;
/// Rests are doubled at most this often.
const DOUBLINGS_MAX: u32 = 4;
/// Loss that was suffered is forgotten at this time constant while nothing is lost, in seconds.
const FORGET_S: f64 = 60.0;

/// Where a partition's process of this epoch puts its report, if the manifest asks for reports.
pub(super) fn report_file(specification: &Specification, rank: Rank, epoch: Epoch) -> Option<PathBuf> {
    Some(specification.report.as_ref()?.join(format!("rank-{rank}-epoch-{epoch}.json")))
}

impl Cluster {
    /// A user orders a move.
    pub fn migrate(&mut self, now_ms: u64, order: &MigrateOrder) -> Result<MoveId, ClusterError> {
        let application = self.state.applications.get(&order.application);
        let application =
            application.ok_or_else(|| ClusterError::NoApplication(order.application.clone()))?;
        if !application.specification.migrate {
            return Err(refusal(
                order,
                "its manifest says migrate = false (the default of strategy \"pinned\")",
            ));
        }
        self.start_move(now_ms, order, "asked by a user".into(), None)
    }

    pub(super) fn start_planned(&mut self, now_ms: u64) {
        if !self.flights.is_empty() {
            return;
        }
        let Some(planned) = self.planned.pop_front() else { return };
        let order = MigrateOrder { application: planned.application, rank: planned.rank, to: planned.to };
        // What has changed since it was planned is planned again.
        if self.start_move(now_ms, &order, planned.reason, Some(planned.explanation)).is_err() {
            self.planned.clear();
        }
    }

    fn start_move(
        &mut self,
        now_ms: u64,
        order: &MigrateOrder,
        reason: String,
        explanation: Option<CandidateView>,
    ) -> Result<MoveId, ClusterError> {
        let application = self.state.applications.get(&order.application);
        let application =
            application.ok_or_else(|| ClusterError::NoApplication(order.application.clone()))?;
        let owner = application
            .partitions
            .get(order.rank as usize)
            .ok_or_else(|| refusal(order, "there is no such rank"))?;
        let process = (order.application.clone(), order.rank, owner.epoch);
        let process = self.view.process(&owner.host, &process);
        if owner.moving.is_some() {
            return Err(refusal(order, "it is moving already; try again when that is over"));
        }
        if !application.is_live() || process.is_none_or(|it| it.state != PartitionState::Running) {
            return Err(refusal(order, "it is not running now"));
        }
        if owner.host == order.to {
            return Err(refusal(order, "it is there already"));
        }
        let usable = self.state.hosts.get(&order.to).is_some_and(|host| !host.lost);
        let Some(seen) = self.view.hosts.get(&order.to).filter(|_| usable) else {
            return Err(refusal(order, "that host is not there; `coordinator hosts` lists them"));
        };
        let needed =
            application.specification.component(order.rank).map_or(0, |component| component.memory_bytes);
        if self.usage(&order.to).1.saturating_add(needed) > seen.facts.memory_bytes {
            return Err(refusal(order, "that host has not enough memory left"));
        }
        let (from, epoch) = (owner.host.clone(), owner.granted + 1);
        let report = report_file(&application.specification, order.rank, epoch);
        self.activate_for(now_ms, &order.to, "a partition moves to it");
        let id = self.state.next_move();
        let record = Record::MoveStarted {
            id,
            application: order.application.clone(),
            rank: order.rank,
            from,
            to: order.to.clone(),
            epoch,
            reason,
            explanation: explanation.map(Box::new),
        };
        self.record(now_ms, record);
        let (flight, effects) = Flight::begin(now_ms, report);
        self.flights.insert(id, flight);
        self.carry_out(now_ms, id, effects);
        Ok(id)
    }

    /// Lets every move go on, with the outcome of a command if there is one.
    pub(super) fn step_flights(&mut self, now_ms: u64, result: Option<&CommandResult>) {
        let ids: Vec<MoveId> = self.flights.keys().copied().collect();
        for id in ids {
            let Some(mut flight) = self.flights.get(&id).cloned() else { continue };
            let Some(order) = self.state.moves.get(&id) else { continue };
            let live = self.state.applications.get(&order.application).is_some_and(Application::is_live);
            if !live {
                self.carry_out(now_ms, id, vec![Effect::Failed("the application ended".into())]);
                continue;
            }
            let facts = Facts {
                now_ms,
                order,
                source: self.side(order, Side::Source),
                destination: self.side(order, Side::Destination),
            };
            let concerns = |it: &&CommandResult| it.application == order.application && it.rank == order.rank;
            let effects = flight.step(&facts, result.filter(concerns));
            self.flights.insert(id, flight);
            self.carry_out(now_ms, id, effects);
        }
    }

    /// The agent of `host` was started again: commands to it have no outcome any more.
    pub(super) fn flights_lose_agent(&mut self, now_ms: u64, host: &HostName) {
        let mut lost = Vec::new();
        for (id, flight) in &self.flights {
            let Some(order) = self.state.moves.get(id) else { continue };
            let Some((command, side)) = flight.awaited else { continue };
            let (at, epoch) = match side {
                Side::Source => (&order.from, order.from_epoch),
                Side::Destination => (&order.to, order.epoch),
            };
            if at == host {
                let outcome = Outcome::Failed { reason: format!("the agent of {host} was started again") };
                let application = order.application.clone();
                lost.push(CommandResult { id: command, application, rank: order.rank, epoch, outcome });
            }
        }
        for result in lost {
            self.step_flights(now_ms, Some(&result));
        }
    }

    fn side(&self, order: &Move, side: Side) -> SideFacts<'_> {
        let (host, epoch) = match side {
            Side::Source => (&order.from, order.from_epoch),
            Side::Destination => (&order.to, order.epoch),
        };
        let owner = self.state.ownership(&order.application, order.rank);
        SideFacts {
            heard: self.view.hosts.contains_key(host),
            lost: self.state.hosts.get(host).is_none_or(|host| host.lost),
            process: self.view.process(host, &(order.application.clone(), order.rank, epoch)),
            end: owner.and_then(|owner| owner.ends.get(&epoch).copied()),
        }
    }

    fn carry_out(&mut self, now_ms: u64, id: MoveId, effects: Vec<Effect>) {
        for effect in effects {
            let Some(order) = self.state.moves.get(&id).cloned() else { return };
            match effect {
                Effect::Command(side, action) => {
                    let (host, epoch) = match side {
                        Side::Source => (&order.from, order.from_epoch),
                        Side::Destination => (&order.to, order.epoch),
                    };
                    let command = self.command(host, &(order.application.clone(), order.rank, epoch), action);
                    if let Some(flight) = self.flights.get_mut(&id) {
                        flight.awaited = Some((command, side));
                    }
                }
                Effect::InDoubt(reason) => self.record(now_ms, Record::MoveInDoubt { id, reason }),
                Effect::Done(measured) => self.close(now_ms, id, &order, Record::MoveDone { id, measured }),
                Effect::Failed(reason) => self.close(now_ms, id, &order, Record::MoveFailed { id, reason }),
                Effect::Abandon(reason) => {
                    self.close(now_ms, id, &order, Record::MoveFailed { id, reason: reason.clone() });
                    let reason = format!("move {id} of rank {}: {reason}", order.rank);
                    self.end_application(now_ms, &order.application, 1, Some(reason));
                }
            }
        }
    }

    fn close(&mut self, now_ms: u64, id: MoveId, order: &Move, record: Record) {
        if matches!(record, Record::MoveFailed { .. }) {
            self.planned.clear();
        }
        self.record(now_ms, record);
        self.flights.remove(&id);
        self.model.forget(&order.application);
        self.imbalanced_since_ms = None;
        self.overloaded_since_ms = None;
    }

    /// Plans, unless moves are under way.
    pub(super) fn plan_moves(&mut self, now_ms: u64) {
        if !self.flights.is_empty() || !self.planned.is_empty() {
            return;
        }
        let mut snapshot = self.snapshot(now_ms, None);
        let since = planner::is_imbalanced(&snapshot).then_some(now_ms);
        self.imbalanced_since_ms = since.map(|now| self.imbalanced_since_ms.unwrap_or(now));
        self.suffer(now_ms, planner::loss(&snapshot));
        (snapshot.sustained_s, snapshot.suffered_s) = (self.sustained_s(now_ms), self.suffered_s);
        let plan = planner::plan(&snapshot);
        self.note_plan(&plan);
        let findings = checker::check(&snapshot, &plan);
        if let Some(finding) = findings.first() {
            // A plan that breaks what was asked for is not run, whatever the planner thinks of it.
            tracing::error!("the plan is refused ({} findings): {finding}", findings.len());
            return;
        }
        if plan.moves.is_empty() {
            self.relieve_overload(now_ms, &snapshot);
        } else {
            self.suffered_s = 0.0;
        }
        self.planned.extend(plan.moves);
        self.start_planned(now_ms);
    }

    /// Adds up what imbalance costs; what is long past counts for nothing once nothing is lost.
    fn suffer(&mut self, now_ms: u64, loss: f64) {
        let seconds = self.suffered_at_ms.map_or(0, |at| now_ms.saturating_sub(at)) as f64 / 1000.0;
        self.suffered_at_ms = Some(now_ms);
        if loss > 0.0 {
            self.suffered_s += loss * seconds;
        } else {
            self.suffered_s *= (-seconds / FORGET_S).exp();
        }
    }

    fn sustained_s(&self, now_ms: u64) -> f64 {
        self.imbalanced_since_ms.map_or(0, |since| now_ms.saturating_sub(since)) as f64 / 1000.0
    }

    /// What the planner decides now.
    pub fn plan(&self, now_ms: u64) -> Plan {
        planner::plan(&self.snapshot(now_ms, None))
    }

    /// Activates a standby host when every active host is overloaded, no move among them helps, and one to it would.
    fn relieve_overload(&mut self, now_ms: u64, snapshot: &Snapshot) {
        let mut load = vec![0.0; snapshot.hosts.len()];
        snapshot.partitions.iter().for_each(|it| load[it.host] += it.load);
        let overloaded = !load.is_empty()
            && load.iter().zip(&snapshot.hosts).all(|(load, host)| load / host.capacity > OVERLOAD);
        let since = overloaded.then(|| self.overloaded_since_ms.unwrap_or(now_ms));
        self.overloaded_since_ms = since;
        self.overload_told &= overloaded;
        let Some(since) = since else { return };
        if (now_ms.saturating_sub(since) as f64) < self.settings.planner.sustain_s * 1000.0 {
            return;
        }
        let standby = self
            .state
            .hosts
            .iter()
            .filter(|(_, host)| host.standby && !host.lost)
            .map(|(name, _)| name.clone());
        for host in standby.collect::<Vec<_>>() {
            let mut with = self.snapshot(now_ms, Some(&host));
            with.sustained_s = self.settings.planner.sustain_s;
            // Overload has lasted; what it has cost is not counted again for the new host.
            with.suffered_s = f64::MAX;
            let Some(first) = planner::plan(&with).moves.into_iter().find(|it| it.to == host) else {
                continue;
            };
            let reason = format!(
                "every active host is above {:.0} % and no move among them helps; with {host}: {}",
                100.0 * OVERLOAD,
                first.reason
            );
            if self.settings.activate {
                self.record(now_ms, Record::HostActivated { host, reason });
                self.overloaded_since_ms = None;
            } else if !self.overload_told {
                self.overload_told = true;
                self.record(
                    now_ms,
                    Record::Overloaded { reason: format!("{reason}; --no-activate keeps it in reserve") },
                );
            }
            return;
        }
    }

    pub(super) fn snapshot(&self, now_ms: u64, extra: Option<&HostName>) -> Snapshot {
        let active = |name: &&HostName| {
            let host = self.state.hosts.get(*name);
            host.is_some_and(|host| !host.lost && (!host.standby || extra == Some(*name)))
        };
        let names: Vec<&HostName> = self.view.hosts.keys().filter(active).collect();
        let (mut applications, mut partitions, mut edges) = (Vec::new(), Vec::new(), Vec::new());
        for (id, application) in self.state.applications.iter().filter(|(_, it)| it.is_live()) {
            let mut of_rank = BTreeMap::new();
            for (rank, owner) in (0..).zip(&application.partitions).filter(|(_, owner)| owner.end().is_none())
            {
                if let Some(host) = names.iter().position(|name| **name == owner.host) {
                    of_rank.insert(rank, partitions.len());
                    let mut it = self.plan_partition(now_ms, id, application, rank, owner, host);
                    it.application = applications.len();
                    partitions.push(it);
                }
            }
            for (rank, from) in &of_rank {
                let known = |(peer, bytes): (Rank, f64)| Some((*of_rank.get(&peer)?, bytes));
                let sent = self.model.traffic(id, *rank).filter_map(known);
                edges.extend(sent.map(|(to, bytes)| Edge { from: *from, to, bytes, messages: 0.0 }));
            }
            applications.push(PlanApplication { id: id.clone(), weight: 1.0, quota: usize::MAX });
        }
        Snapshot {
            hosts: names
                .iter()
                .enumerate()
                .map(|(host, name)| self.plan_host(host, name, &partitions))
                .collect(),
            applications,
            partitions,
            edges,
            blocks: Vec::new(),
            rules: Vec::new(),
            sustained_s: self.sustained_s(now_ms),
            suffered_s: self.suffered_s,
            settings: self.settings.planner,
        }
    }

    fn plan_host(&self, host: usize, name: &HostName, partitions: &[PlanPartition]) -> PlanHost {
        let facts = self.view.hosts.get(name).map(|seen| &seen.facts);
        let known: u64 = partitions.iter().filter(|it| it.host == host).map(|it| it.memory).sum();
        PlanHost {
            name: name.clone(),
            capacity: facts.map_or(1.0, |facts| facts.cpus.len().max(1) as f64),
            alpha: 1.0,
            memory: facts.map_or(0, |facts| facts.memory_bytes),
            memory_base: self.usage(name).1.saturating_sub(known),
            reserve: 0.0,
            closed: None,
            evacuate: false,
        }
    }

    fn plan_partition(
        &self,
        now_ms: u64,
        id: &ApplicationId,
        application: &Application,
        rank: Rank,
        owner: &Ownership,
        host: usize,
    ) -> PlanPartition {
        let report = self.view.process(&owner.host, &(id.clone(), rank, owner.epoch));
        let running = report.is_some_and(|it| it.state == PartitionState::Running);
        let fixed = match () {
            () if !application.specification.migrate => Some("migrate = false in its manifest"),
            () if application.phase == Phase::Placed => Some("its application is still starting"),
            () if owner.moving.is_some() => Some("it is moving"),
            () if !running => Some("it is not running"),
            () => None,
        };
        let load = self.model.load(id, rank);
        let memory = application.specification.component(rank).map_or(0, |component| component.memory_bytes);
        let resident =
            report.and_then(|it| it.counters.as_ref()).map_or(0, |counters| counters.resident_kib << 10);
        let copied = if resident == 0 { memory } else { resident.min(memory) };
        PlanPartition {
            application: 0,
            rank,
            host,
            load: load.mean,
            variance: load.variance_of_mean,
            samples: load.samples,
            memory,
            working: 0,
            block: None,
            fixed,
            // What it does has changed: the rest after its last move was for another load.
            cooling_s: if load.changed { 0.0 } else { self.cooling_s(now_ms, owner) },
            copy_s: owner.last_total_s.unwrap_or(copied as f64 / COPY_BYTES_PER_S),
            blackout_s: owner.last_blackout_ms.map_or(BLACKOUT_S, |ms| ms / 1000.0),
        }
    }

    /// Seconds of rest that a partition still has, doubled with every move that it has made.
    fn cooling_s(&self, now_ms: u64, owner: &Ownership) -> f64 {
        let Some(moved_ms) = owner.moved_ms else { return 0.0 };
        let base = self.settings.planner.cooldown_s.max(3.0 * owner.last_total_s.unwrap_or(0.0));
        let doublings = owner.moves.saturating_sub(1).min(DOUBLINGS_MAX);
        let rested = now_ms.saturating_sub(moved_ms) as f64 / 1000.0;
        (base * f64::from(1_u32 << doublings) - rested).max(0.0)
    }
}

fn refusal(order: &MigrateOrder, reason: &str) -> ClusterError {
    ClusterError::Move {
        application: order.application.clone(),
        rank: order.rank,
        to: order.to.clone(),
        reason: reason.to_owned(),
    }
}
