//! Moves of the cluster: planning them, starting them, and driving the executor of each.

use std::path::PathBuf;

use control::{
    Action, ApplicationId, CandidateView, CommandResult, Epoch, HostName, MigrateOrder, MoveId, Outcome,
    PartitionState, Rank, Specification,
};

use super::{Cluster, ClusterError};
use crate::calibration::{self, Calibration};
use crate::executor::{Effect, Facts, Flight, Side, SideFacts};
use crate::record::Record;
use crate::state::{Application, Move};
use planner::checker;
use planner::{self, Plan, Snapshot};

/// How often a snapshot is kept while nothing is moved, in milliseconds.
const NOTE_HELD_MS: u64 = 600_000;
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
        let snapshot = self.snapshot(now_ms, Some(&order.to));
        if let Some(rule) = self.breaks(&snapshot, order) {
            return Err(refusal(order, &format!("rule {rule} would be broken")));
        }
        self.start_move(now_ms, order, "asked by a user".into(), None)
    }

    /// Starts what of the plan may begin now: in its order, wave after wave, and within the limits of the policy.
    pub(super) fn start_planned(&mut self, now_ms: u64) {
        while let Some(planned) = self.planned.front() {
            let busy = self.under_way.values().any(|wave| *wave < planned.wave);
            if busy || !self.has_room_for(&planned.from, &planned.to) {
                return;
            }
            let Some(planned) = self.planned.pop_front() else { return };
            let left = self.planned.len() + 1;
            // What has changed since it was planned is planned again.
            if let Some(why) = self.outdated(now_ms, &planned) {
                return self.abort_plan(now_ms, left, why);
            }
            let order = MigrateOrder { application: planned.application, rank: planned.rank, to: planned.to };
            match self.start_move(now_ms, &order, planned.reason, Some(planned.explanation)) {
                Ok(id) => drop(self.under_way.insert(id, planned.wave)),
                Err(error) => return self.abort_plan(now_ms, left, error.to_string()),
            }
        }
    }

    /// May one more move begin between these hosts?
    fn has_room_for(&self, from: &HostName, to: &HostName) -> bool {
        let settings = self.planner_settings();
        let moves = || self.state.open_moves().map(|(_, it)| it);
        moves().count() < settings.at_once
            && moves().filter(|it| it.from == *from).count() < settings.at_once_per_host
            && moves().filter(|it| it.to == *to).count() < settings.at_once_per_host
    }

    /// Gives up what is left of the plan; moves that are under way go on.
    pub(super) fn abort_plan(&mut self, now_ms: u64, left: usize, reason: String) {
        self.planned.clear();
        if left > 0 {
            self.record(now_ms, Record::PlanAborted { left, reason });
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
        if !usable {
            return Err(refusal(order, "that host is not there; `coordinator hosts` lists them"));
        }
        let Some(seen) = self.view.hosts.get(&order.to) else {
            return Err(refusal(
                order,
                "this coordinator has not heard of that host since it began; try again",
            ));
        };
        let needed =
            application.specification.component(order.rank).map_or(0, |component| component.memory_bytes);
        if let Some(why) = self.closed(now_ms, &order.to) {
            return Err(refusal(order, &format!("that host takes nothing: {why}")));
        }
        if self.usage(&order.to).1.saturating_add(needed) > seen.facts.memory_bytes {
            return Err(refusal(order, "that host has not enough memory left"));
        }
        let calibration = Calibration::of(&self.state);
        let predicted = self.prediction(&order.application, order.rank, &calibration);
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
            predicted: Some(predicted),
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
            let (together, may_switch) = self.group(id, order);
            let facts = Facts {
                now_ms,
                order,
                source: self.side(order, Side::Source),
                destination: self.side(order, Side::Destination),
                together,
                may_switch,
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
            let (at, epoch) = side.of(order);
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

    /// Whether other partitions of its application move in the same wave, and whether all of them have come so far that they
    /// can switch over together; those that have no room to begin now are not waited for.
    fn group(&self, id: MoveId, order: &Move) -> (bool, bool) {
        let Some(wave) = self.under_way.get(&id) else { return (false, true) };
        let belongs = |application: &ApplicationId, its_wave: &u32| {
            *application == order.application && its_wave == wave
        };
        let mut to_come = self.planned.iter().filter(|it| belongs(&it.application, &it.wave)).peekable();
        let mut others = self
            .under_way
            .iter()
            .filter(|(other, _)| **other != id)
            .filter_map(|(other, its_wave)| Some((self.state.moves.get(other)?, other, its_wave)))
            .filter(|(it, _, its_wave)| belongs(&it.application, its_wave))
            .peekable();
        let together = to_come.peek().is_some() || others.peek().is_some();
        let is_ready = |it: &Move, other| {
            let flight = self.flights.get(other);
            flight.is_none_or(|flight| flight.is_ready(&self.side(it, Side::Source)))
        };
        // Without room for the next one of the plan, whosever it is, none of them can begin before something ends.
        let more = to_come.peek().is_some()
            && self.planned.front().is_some_and(|next| self.has_room_for(&next.from, &next.to));
        let may_switch = !more && others.all(|(it, other, _)| is_ready(it, other));
        (together, may_switch)
    }

    fn side(&self, order: &Move, side: Side) -> SideFacts<'_> {
        let (host, epoch) = side.of(order);
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
                    let (host, epoch) = side.of(&order);
                    let command = self.command(host, &(order.application.clone(), order.rank, epoch), action);
                    if let Some(flight) = self.flights.get_mut(&id) {
                        flight.awaited = Some((command, side));
                    }
                }
                Effect::Switch => {
                    let (host, epoch) = Side::Source.of(&order);
                    let source = (order.application.clone(), order.rank, epoch);
                    self.command(host, &source, Action::Switch);
                }
                Effect::InDoubt(reason) => self.record(now_ms, Record::MoveInDoubt { id, reason }),
                Effect::Done(measured) => self.close(now_ms, id, &order, Record::MoveDone { id, measured }),
                Effect::Failed(reason) => {
                    let ended = self.has_ended(&order);
                    self.close(now_ms, id, &order, Record::MoveFailed { id, reason, ended });
                }
                Effect::Abandon(reason) => {
                    let record = Record::MoveFailed { id, reason: reason.clone(), ended: true };
                    self.close(now_ms, id, &order, record);
                    let reason = format!("move {id} of rank {}: {reason}", order.rank);
                    self.end_application(now_ms, &order.application, 1, Some(reason));
                }
            }
        }
    }

    /// Nothing of the partition is left that could go on where it was.
    fn has_ended(&self, order: &Move) -> bool {
        let application = self.state.applications.get(&order.application);
        !application.is_some_and(Application::is_live) || self.side(order, Side::Source).has_ended()
    }

    fn close(&mut self, now_ms: u64, id: MoveId, order: &Move, record: Record) {
        let why = match &record {
            Record::MoveFailed { reason, .. } => Some(format!("move {id} failed: {reason}")),
            Record::MoveDone { measured: Some(actual), .. } => order
                .predicted
                .filter(|predicted| calibration::is_far_off(predicted, actual))
                .map(|predicted| far_off(id, &predicted, actual)),
            _ => None,
        };
        self.record(now_ms, record);
        if let Some(why) = why {
            self.abort_plan(now_ms, self.planned.len(), why);
        }
        self.flights.remove(&id);
        self.under_way.remove(&id);
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
        self.keep_plan(now_ms, &snapshot, &plan);
        if plan.moves.is_empty() {
            self.step_pool(now_ms, &snapshot);
        } else {
            self.suffered_s = 0.0;
        }
        self.planned.extend(plan.moves);
        self.start_planned(now_ms);
    }

    /// Keeps in the journal what plans were made of: of those that move something, and of the others now and then.
    fn keep_plan(&mut self, now_ms: u64, snapshot: &Snapshot, plan: &Plan) {
        let due = now_ms.saturating_sub(self.noted_ms) >= NOTE_HELD_MS && !snapshot.partitions.is_empty();
        if plan.moves.is_empty() && !due {
            return;
        }
        let Some(inputs) = self.history(snapshot) else { return };
        self.noted_ms = now_ms;
        let moves = plan.moves.iter().map(|it| (it.application.clone(), it.rank, it.to.clone())).collect();
        let (inputs_hash, explanation) = (plan.inputs_hash.clone(), plan.explanation.clone());
        self.record(now_ms, Record::Planned { inputs, inputs_hash, moves, explanation });
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

    pub(super) fn sustained_s(&self, now_ms: u64) -> f64 {
        self.imbalanced_since_ms.map_or(0, |since| now_ms.saturating_sub(since)) as f64 / 1000.0
    }

    /// What the planner decides now.
    pub fn plan(&self, now_ms: u64) -> Plan {
        planner::plan(&self.snapshot(now_ms, None))
    }
}

fn far_off(id: MoveId, predicted: &control::Prediction, actual: &control::MoveReport) -> String {
    format!(
        "move {id} took {:.2} s and {:.0} ms of blackout, predicted were {:.2} s and {:.0} ms",
        actual.total_s, actual.blackout_ms, predicted.total_s, predicted.blackout_ms
    )
}

fn refusal(order: &MigrateOrder, reason: &str) -> ClusterError {
    ClusterError::Move {
        application: order.application.clone(),
        rank: order.rank,
        to: order.to.clone(),
        reason: reason.to_owned(),
    }
}
