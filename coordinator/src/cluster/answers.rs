//! What the cluster tells its users.

use control::{
    ApplicationExplanation, ApplicationId, ApplicationState, ApplicationView, CalibrationView, EventsAnswer,
    HostExplanation, HostName, HostView, MoveId, MoveView, OutputAnswer, PartitionView, PlanView, Rank,
};

use super::{Cluster, ClusterError};
use crate::calibration;
use crate::state::{Application, Move, MovePhase, Ownership, Phase};

/// Output of one answer, in bytes.
const OUTPUT_BYTES: usize = 1 << 20;
/// Events of one answer.
const EVENTS: usize = 1000;

impl Cluster {
    /// All applications, oldest first.
    pub fn applications(&self, now_ms: u64) -> Vec<ApplicationView> {
        let mut views: Vec<_> =
            self.state.applications.iter().map(|(id, it)| self.application(now_ms, id, it)).collect();
        views.sort_by(|a, b| (a.submitted_ms, &a.id).cmp(&(b.submitted_ms, &b.id)));
        views
    }

    fn application(&self, now_ms: u64, id: &ApplicationId, application: &Application) -> ApplicationView {
        let mine = self.state.moves.iter().filter(|(_, it)| it.application == *id);
        let (moves, other_moves) =
            mine.map(|(id, it)| self.move_view(*id, it)).partition(|it| it.state == "done");
        let state = match (application.phase, application.exit_status) {
            (Phase::Queued, _) => ApplicationState::Queued,
            (Phase::Placed, _) => ApplicationState::Starting,
            (Phase::Running, _) => ApplicationState::Running,
            (Phase::Ending, _) => ApplicationState::Stopping,
            (Phase::Ended, Some(0)) => ApplicationState::Done,
            (Phase::Ended, _) => ApplicationState::Failed,
        };
        let until = application.ended_ms.unwrap_or(now_ms);
        ApplicationView {
            id: id.clone(),
            name: application.specification.name.clone(),
            ranks: application.specification.ranks(),
            state,
            exit_status: application.exit_status,
            reason: application.reason.clone().or_else(|| self.held_by(now_ms, id)),
            submitted_ms: application.submitted_ms,
            seconds: until.saturating_sub(application.submitted_ms) as f64 / 1000.0,
            moves,
            other_moves,
        }
    }

    fn move_view(&self, id: MoveId, it: &Move) -> MoveView {
        let flight = self.flights.get(&id).map_or("open", |flight| flight.state());
        let state = match it.phase {
            MovePhase::Open => flight,
            MovePhase::InDoubt => "in-doubt",
            MovePhase::Done => "done",
            MovePhase::Failed => "failed",
        };
        MoveView {
            id,
            application: it.application.clone(),
            rank: it.rank,
            from: it.from.clone(),
            to: it.to.clone(),
            epoch: it.epoch,
            reason: it.reason.clone(),
            state: state.to_owned(),
            failure: it.failure.clone(),
            time_ms: it.time_ms,
            blackout_ms: it.measured.as_ref().map(|report| report.blackout_ms),
            total_s: it.measured.as_ref().map(|report| report.total_s),
            measured: it.measured.clone(),
            explanation: it.explanation.clone(),
            predicted: it.predicted,
        }
    }

    /// One move.
    pub fn one_move(&self, id: MoveId) -> Option<MoveView> {
        self.state.moves.get(&id).map(|it| self.move_view(id, it))
    }

    /// All hosts.
    pub fn hosts(&self, now_ms: u64) -> Vec<HostView> {
        self.state
            .hosts
            .iter()
            .map(|(name, host)| {
                let seen = self.view.hosts.get(name);
                let state = if host.lost { "lost" } else { host.state.name() };
                let (partitions, memory_used_bytes) = self.usage(name);
                let load = self.host_load(name);
                let cpus = seen.map(|seen| seen.facts.cpus.clone()).unwrap_or_default();
                HostView {
                    name: name.clone(),
                    state: state.to_owned(),
                    lease: host.lease.clone(),
                    reason: host.reason.clone(),
                    utilisation: load / cpus.len().max(1) as f64,
                    cpus,
                    memory_bytes: seen.map_or(0, |seen| seen.facts.memory_bytes),
                    memory_used_bytes,
                    partitions,
                    load,
                    silent_s: seen.map(|seen| now_ms.saturating_sub(seen.at_ms) as f64 / 1000.0),
                    labels: seen
                        .map(|seen| {
                            seen.facts.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()
                        })
                        .unwrap_or_default(),
                }
            })
            .collect()
    }

    fn host_load(&self, host: &HostName) -> f64 {
        self.living()
            .filter(|(_, _, owner)| owner.host == *host)
            .map(|(id, rank, _)| self.model.load(id, rank).mean)
            .fold(0.0, |sum, load| sum + load)
    }

    /// Partitions of live applications that have not ended.
    pub(super) fn living(&self) -> impl Iterator<Item = (&ApplicationId, Rank, &Ownership)> {
        let live = self.state.applications.iter().filter(|(_, it)| it.is_live());
        live.flat_map(|(id, it)| (0..).zip(&it.partitions).map(move |(rank, owner)| (id, rank, owner)))
            .filter(|(_, _, owner)| owner.end().is_none())
    }

    /// All partitions of applications that have not ended.
    pub fn partitions(&self) -> Vec<PartitionView> {
        let alive = self.state.applications.iter().filter(|(_, it)| it.phase != Phase::Ended);
        alive
            .flat_map(|(id, it)| {
                (0..).zip(&it.partitions).map(move |(rank, owner)| self.partition(id, rank, owner))
            })
            .collect()
    }

    fn partition(&self, id: &ApplicationId, rank: Rank, owner: &Ownership) -> PartitionView {
        let report = self.view.process(&owner.host, &(id.clone(), rank, owner.epoch));
        let counters = report.and_then(|report| report.counters.as_ref());
        let load = self.model.load(id, rank);
        PartitionView {
            application: id.clone(),
            rank,
            host: owner.host.clone(),
            epoch: owner.epoch,
            state: report.map(|report| report.state),
            pid: report.and_then(|report| report.pid),
            exit_status: owner.end().map(control::End::status),
            load: load.mean,
            noise: load.variance_of_mean.max(0.0).sqrt(),
            steal: load.steal,
            progress: counters.map_or(0, |counters| counters.progress),
            resident_kib: counters.map_or(0, |counters| counters.resident_kib),
            dirty_pages_per_s: counters.and_then(|counters| counters.dirty_pages_per_s),
            moves: owner.moves,
            last_blackout_ms: owner.last_blackout_ms,
        }
    }

    /// Events after a position.
    pub fn events(&self, after: u64) -> EventsAnswer {
        let later = self.state.events.iter().filter(|event| event.sequence > after);
        let events: Vec<_> = later.take(EVENTS).cloned().collect();
        let next = events.last().map_or(after, |event| event.sequence);
        EventsAnswer { events, next }
    }

    /// What the planner decides now, and why.
    pub fn plan_view(&self, now_ms: u64) -> PlanView {
        let plan = self.plan(now_ms);
        let explanation = if self.flights.is_empty() {
            plan.explanation
        } else {
            format!(
                "a move is under way; nothing is planned until it is over. Otherwise: {}",
                plan.explanation
            )
        };
        PlanView {
            hosts: self.hosts(now_ms),
            imbalance: plan.imbalance,
            potential: plan.potential,
            work_max: (plan.work_max, plan.work_max_after),
            loss: plan.loss,
            algorithm: plan.algorithm.to_owned(),
            inputs_hash: plan.inputs_hash,
            policy_version: planner::POLICY_VERSION,
            policy: self.state.policy.version,
            gates: plan.gates,
            moves: plan.moves,
            explanation,
            candidates: plan.candidates,
        }
    }

    /// Why an application runs where it does.
    pub fn explain_application(
        &self,
        now_ms: u64,
        id: &ApplicationId,
    ) -> Result<ApplicationExplanation, ClusterError> {
        if let Some(reason) = self.held_by(now_ms, id) {
            return Ok(self.queued_explanation(id, &reason));
        }
        let snapshot = self.snapshot(now_ms, None);
        let index = snapshot.applications.iter().position(|it| it.id == *id);
        let explanation = index.and_then(|index| planner::explain_application(&snapshot, index));
        let mut explanation = explanation.ok_or_else(|| ClusterError::NotLive(id.clone()))?;
        if let Some(units) = self.units_text(id) {
            explanation.explanation = format!("{}; {units}", explanation.explanation);
        }
        Ok(explanation)
    }

    fn queued_explanation(&self, id: &ApplicationId, reason: &str) -> ApplicationExplanation {
        let ahead = self.queue().into_iter().take_while(|it| it != id).count();
        ApplicationExplanation {
            application: id.clone(),
            time: 0.0,
            lowest_time: 0.0,
            loss: 0.0,
            gates: Vec::new(),
            moves: Vec::new(),
            candidates: Vec::new(),
            explanation: format!("queued with {ahead} before it: {reason}"),
            policy: self.state.policy.version,
        }
    }

    /// Why a host has its role, and what holds it there.
    pub fn explain_host(&self, now_ms: u64, name: &HostName) -> Result<HostExplanation, ClusterError> {
        let host = self.state.hosts.get(name).ok_or_else(|| ClusterError::NoHost(name.clone()))?;
        let state = if host.lost { "lost" } else { host.state.name() };
        Ok(HostExplanation {
            host: name.clone(),
            state: state.to_owned(),
            lease: host.lease.clone(),
            home: host.home.clone(),
            since_s: now_ms.saturating_sub(host.since_ms) as f64 / 1000.0,
            reason: host.reason.clone(),
            closed: self.closed(now_ms, name),
            decisions: self.pool_decisions(now_ms, name),
            policy: self.state.policy.version,
        })
    }

    /// Predictions of moves against what was measured.
    pub fn calibration(&self) -> CalibrationView {
        calibration::table(&self.state)
    }

    /// Output of an application after `after`; kept for `waiter` until it asks for what follows.
    pub fn output(
        &mut self,
        now_ms: u64,
        id: &ApplicationId,
        after: u64,
        waiter: Option<&str>,
    ) -> Result<OutputAnswer, ClusterError> {
        let application = self.state.applications.get(id);
        let application = application.ok_or_else(|| ClusterError::NoApplication(id.clone()))?;
        let read = self.logs.get_mut(id).map(|log| {
            let (entries, next, truncated) = log.read(now_ms, waiter, after, OUTPUT_BYTES);
            let more = log.has_after(next);
            (entries, next, truncated, more)
        });
        let (entries, next, truncated, more) = read.unwrap_or((Vec::new(), after, true, false));
        Ok(OutputAnswer {
            incarnation: self.state.incarnation,
            entries,
            next,
            truncated,
            complete: application.phase == Phase::Ended && !more,
            exit_status: application.exit_status,
            reason: application.reason.clone(),
        })
    }
}
