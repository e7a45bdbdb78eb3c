//! What the planner is given: the cluster as it is decided and observed, with the rules that hold now.

use std::collections::BTreeMap;

use control::{ApplicationId, HostName, MigrateOrder, PartitionState, Prediction, Rank};

use super::Cluster;
use crate::calibration::Calibration;
use crate::history::History;
use crate::model::Flow;
use crate::policy::{self, Member};
use crate::state::{Application, Ownership, Phase};
use planner::{self, Edge, FIXED, PlanApplication, PlanHost, PlanPartition, Rule, Snapshot};

/// Rests are doubled at most this often.
const DOUBLINGS_MAX: u32 = 4;

impl Cluster {
    /// Thresholds that hold now.
    pub(super) fn planner_settings(&self) -> planner::Settings {
        policy::planner_settings(self.settings.planner, &self.state.policy.policy)
    }

    /// The same with what a message between two hosts costs, which is as measured unless somebody has said it.
    fn measured_settings(&self) -> planner::Settings {
        let latency_s = self.settings.latency_s.unwrap_or_else(|| self.model.latency_s());
        let base = planner::Settings { latency_s, ..self.settings.planner };
        policy::planner_settings(base, &self.state.policy.policy)
    }

    /// The labels of a host, as far as its agent has said.
    pub(super) fn labels(&self, host: &HostName) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.view.hosts.get(host).map_or(&NONE, |seen| &seen.facts.labels)
    }

    /// The cluster for the planner; `extra` is taken for active.
    pub(super) fn snapshot(&self, now_ms: u64, extra: Option<&HostName>) -> Snapshot {
        let in_use = |name: &&HostName| {
            let host = self.state.hosts.get(*name);
            host.is_some_and(|host| host.is_in_use() || (!host.lost && extra == Some(*name)))
        };
        let names: Vec<&HostName> = self.view.hosts.keys().filter(in_use).collect();
        let calibration = Calibration::of(&self.state);
        let mut snapshot = Snapshot {
            hosts: Vec::new(),
            applications: Vec::new(),
            partitions: Vec::new(),
            edges: Vec::new(),
            blocks: Vec::new(),
            rules: Vec::new(),
            sustained_s: self.sustained_s(now_ms),
            suffered_s: self.suffered_s,
            policy: self.state.policy.version,
            settings: self.measured_settings(),
        };
        for (id, application) in self.state.applications.iter().filter(|(_, it)| it.is_live()) {
            let mut of_rank = BTreeMap::new();
            for (rank, owner) in (0..).zip(&application.partitions).filter(|(_, owner)| owner.end().is_none())
            {
                if let Some(host) = names.iter().position(|name| **name == owner.host) {
                    of_rank.insert(rank, snapshot.partitions.len());
                    let mut it = self.plan_partition(now_ms, id, application, rank, owner, &calibration);
                    (it.application, it.host) = (snapshot.applications.len(), host);
                    snapshot.partitions.push(it);
                }
            }
            self.add_traffic(&mut snapshot, id, application, &of_rank);
            self.add_rules(&mut snapshot, id, application, &of_rank, &names);
        }
        self.add_policy_rules(&mut snapshot, &names);
        snapshot.hosts = names
            .iter()
            .enumerate()
            .map(|(host, name)| self.plan_host(now_ms, host, name, &snapshot))
            .collect();
        snapshot
    }

    fn add_traffic(
        &self,
        snapshot: &mut Snapshot,
        id: &ApplicationId,
        application: &Application,
        of_rank: &BTreeMap<Rank, usize>,
    ) {
        let mut measured = false;
        let latency_s = snapshot.settings.latency_s;
        for (rank, from) in of_rank {
            let sent: Vec<(Rank, Flow)> = self.model.traffic(id, *rank).collect();
            let messages: f64 = sent.iter().map(|(_, flow)| flow.messages).sum();
            // Messages that overlap are not waited for one by one: no more is lost to them than there is time without work.
            let idle = (1.0 - snapshot.partitions.get(*from).map_or(0.0, |it| it.load)).max(0.0);
            let share = if messages * latency_s > idle { idle / (messages * latency_s) } else { 1.0 };
            for (peer, flow) in sent {
                let Some(to) = of_rank.get(&peer) else { continue };
                measured = true;
                let (bytes, messages) = (flow.bytes, share * flow.messages);
                snapshot.edges.push(Edge { from: *from, to: *to, bytes, messages });
            }
        }
        if !measured {
            for (from, to, bytes) in application.specification.expected_traffic() {
                if let (Some(from), Some(to)) = (of_rank.get(&from), of_rank.get(&to)) {
                    snapshot.edges.push(Edge { from: *from, to: *to, bytes, messages: 0.0 });
                }
            }
        }
    }

    fn add_rules(
        &self,
        snapshot: &mut Snapshot,
        id: &ApplicationId,
        application: &Application,
        of_rank: &BTreeMap<Rank, usize>,
        names: &[&HostName],
    ) {
        let specification = &application.specification;
        let asked = &self.state.policy.policy;
        let quota = policy::quota(asked, id, &specification.name);
        let moves = quota.and_then(|quota| quota.moves).map_or(usize::MAX, |moves| moves as usize);
        let weight = specification.weight;
        snapshot.applications.push(PlanApplication { id: id.clone(), weight, quota: moves });
        snapshot.rules.extend(policy::manifest_rules(specification, quota, of_rank));
        let lease = |name: &&HostName| self.state.hosts.get(*name)?.lease.as_ref();
        let leases: Vec<Option<&ApplicationId>> = names.iter().map(lease).collect();
        let partitions = of_rank.values().copied().collect();
        snapshot.rules.extend(policy::host_rules(asked.pool.mode, id, &leases, partitions));
    }

    /// The snapshot of a plan for the journal, so that it can be made again under another policy.
    pub(super) fn history(&self, snapshot: &Snapshot) -> Option<control::Bytes> {
        let labels = snapshot.hosts.iter().map(|host| self.labels(&host.name).clone()).collect();
        crate::history::encode(&History {
            planner: planner::POLICY_VERSION,
            snapshot: snapshot.clone(),
            rules_kept: snapshot.rules.len() - self.policy_rules_in(snapshot),
            labels,
        })
    }

    fn policy_rules_in(&self, snapshot: &Snapshot) -> usize {
        let names: Vec<&HostName> = snapshot.hosts.iter().map(|host| &host.name).collect();
        let mut bare = snapshot.clone();
        bare.rules.clear();
        self.add_policy_rules(&mut bare, &names);
        bare.rules.len()
    }

    fn add_policy_rules(&self, snapshot: &mut Snapshot, names: &[&HostName]) {
        let rules = {
            let member = |it: &PlanPartition| {
                let application = snapshot.applications.get(it.application)?;
                let known = self.state.applications.get_key_value(&application.id)?;
                Some(Member { application: known.0, name: &known.1.specification.name, rank: it.rank })
            };
            let members: Vec<Member<'_>> = snapshot.partitions.iter().filter_map(member).collect();
            self.policy_rules_of(&members, names)
        };
        snapshot.rules.extend(rules);
    }

    pub(super) fn policy_rules_of(&self, members: &[Member<'_>], names: &[&HostName]) -> Vec<Rule> {
        let hosts: Vec<_> = names.iter().map(|name| (*name, self.labels(name))).collect();
        policy::policy_rules(&self.state.policy.policy, members, &hosts)
    }

    fn plan_host(&self, now_ms: u64, host: usize, name: &HostName, snapshot: &Snapshot) -> PlanHost {
        let facts = self.view.hosts.get(name).map(|seen| &seen.facts);
        let known: u64 = snapshot.partitions.iter().filter(|it| it.host == host).map(|it| it.memory).sum();
        let (processors, memory) = policy::reserve(&self.state.policy.policy, name, self.labels(name));
        let role = self.state.hosts.get(name);
        let window = policy::closed(&self.state.policy.policy, name, self.labels(name), now_ms);
        let drains = role.is_some_and(|host| host.state == control::HostState::Draining);
        PlanHost {
            name: name.clone(),
            capacity: facts.map_or(1.0, |facts| facts.cpus.len().max(1) as f64),
            alpha: 1.0,
            memory: facts.map_or(0, |facts| facts.memory_bytes.saturating_sub(memory)),
            memory_base: self.usage(name).1.saturating_sub(known),
            reserve: processors,
            closed: self.closed(now_ms, name),
            evacuate: drains || window.is_some_and(|window| window.evacuate),
        }
    }

    /// Why nothing may come to a host, if so.
    pub(super) fn closed(&self, now_ms: u64, name: &HostName) -> Option<String> {
        let role = self.state.hosts.get(name).and_then(crate::state::Host::closed);
        let window = policy::closed(&self.state.policy.policy, name, self.labels(name), now_ms);
        role.or_else(|| Some(format!("maintenance {}", window?.name)))
    }

    fn plan_partition(
        &self,
        now_ms: u64,
        id: &ApplicationId,
        application: &Application,
        rank: Rank,
        owner: &Ownership,
        calibration: &Calibration,
    ) -> PlanPartition {
        let report = self.view.process(&owner.host, &(id.clone(), rank, owner.epoch));
        let running = report.is_some_and(|it| it.state == PartitionState::Running);
        let fixed = match () {
            () if !application.specification.migrate => Some(FIXED[0]),
            () if application.phase == Phase::Placed => Some(FIXED[1]),
            () if owner.moving.is_some() => Some(FIXED[2]),
            () if !running => Some(FIXED[3]),
            () => None,
        };
        let load = self.model.load(id, rank);
        let rest_s = self.units_rest_s(now_ms, id, application).max(unwelcome_s(report));
        let cost = calibration.cost(self.prediction(id, rank, calibration));
        PlanPartition {
            application: 0,
            rank,
            host: 0,
            load: load.mean,
            variance: load.variance_of_mean,
            samples: load.samples,
            memory: application.specification.component(rank).map_or(0, |it| it.memory_bytes),
            working: 0,
            block: None,
            fixed,
            // What it does has changed: the rest after its last move was for another load.
            cooling_s: rest_s.max(if load.changed { 0.0 } else { self.cooling_s(now_ms, owner) }),
            copy_s: cost.total_s,
            blackout_s: cost.blackout_ms / 1000.0,
        }
    }

    /// What a move of a partition is expected to take.
    pub(super) fn prediction(&self, id: &ApplicationId, rank: Rank, calibration: &Calibration) -> Prediction {
        let Some(application) = self.state.applications.get(id) else {
            return calibration.predict(id, rank, 0);
        };
        let owner = self.state.ownership(id, rank);
        let report = owner.and_then(|owner| self.view.process(&owner.host, &(id.clone(), rank, owner.epoch)));
        let counters = report.and_then(|it| it.counters.as_ref());
        let memory = application.specification.component(rank).map_or(0, |it| it.memory_bytes);
        let resident = counters.map_or(0, |counters| counters.resident_kib << 10);
        let bytes = if resident == 0 { memory } else { resident.min(memory) };
        calibration.predict(id, rank, bytes)
    }

    /// Seconds of rest that a partition still has, doubled with every move that it has made.
    fn cooling_s(&self, now_ms: u64, owner: &Ownership) -> f64 {
        let Some(moved_ms) = owner.moved_ms else { return 0.0 };
        let base = self.planner_settings().cooldown_s.max(3.0 * owner.last_total_s.unwrap_or(0.0));
        let doublings = owner.moves.saturating_sub(1).min(DOUBLINGS_MAX);
        let rested = now_ms.saturating_sub(moved_ms) as f64 / 1000.0;
        (base * f64::from(1_u32 << doublings) - rested).max(0.0)
    }

    /// Why a planned move may not be made any more, if so: everything is looked at anew just before.
    pub(super) fn outdated(&self, now_ms: u64, planned: &control::PlannedMove) -> Option<String> {
        let owner = self.state.ownership(&planned.application, planned.rank)?;
        if owner.host != planned.from {
            return Some(format!("rank {} is on {} now", planned.rank, owner.host));
        }
        if let Some(why) = self.closed(now_ms, &planned.to) {
            return Some(format!("{} takes nothing: {why}", planned.to));
        }
        let mandatory = planned.explanation.verdict.starts_with("mandatory");
        let load = self.model.load(&planned.application, planned.rank);
        let known = load.samples >= self.planner_settings().least_samples;
        let (then, now) = (planned.explanation.load, load.mean);
        if !mandatory
            && known
            && (now - then).abs() > LOAD_CHANGE * then.max(now)
            && (now - then).abs() > LOAD_LEAST
        {
            return Some(format!("the load of rank {} was {then:.2} and is {now:.2}", planned.rank));
        }
        let snapshot = self.snapshot(now_ms, Some(&planned.to));
        let order = MigrateOrder {
            application: planned.application.clone(),
            rank: planned.rank,
            to: planned.to.clone(),
        };
        self.breaks(&snapshot, &order).map(|rule| format!("rule {rule} would be broken"))
    }

    /// A hard rule that a move would break.
    pub(super) fn breaks(&self, snapshot: &Snapshot, order: &MigrateOrder) -> Option<String> {
        let partition = snapshot.partitions.iter().position(|it| {
            it.rank == order.rank
                && snapshot.applications.get(it.application).is_some_and(|app| app.id == order.application)
        })?;
        let host = snapshot.hosts.iter().position(|it| it.name == order.to)?;
        planner::broken_by(snapshot, partition, host)
    }
}

/// Seconds for which the program says that a move does not suit it.
fn unwelcome_s(report: Option<&control::PartitionReport>) -> f64 {
    let counters = report.and_then(|it| it.counters.as_ref());
    let units = counters.and_then(|counters| Some((counters.elapsed_ns, counters.units?.not_before_ns)));
    // A program cannot forbid moves for good.
    units.map_or(0.0, |(now_ns, until_ns)| until_ns.saturating_sub(now_ns) as f64 / 1e9).min(UNWELCOME_S_MAX)
}

/// Longest time for which a program can put off a move that is not mandatory, in seconds.
const UNWELCOME_S_MAX: f64 = 600.0;
/// Share by which a load has to have changed for a plan that was made with it to be given up.
const LOAD_CHANGE: f64 = 0.5;
/// But a change by so little, in busy processors, never matters.
const LOAD_LEAST: f64 = 0.1;
