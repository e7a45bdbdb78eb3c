//! The pool of hosts: it grows when balancing cannot cure overload, shrinks when hosts are not needed, and passes hosts on.

use control::{ApplicationId, DecisionView, GateView, HookAction, HostName, HostState, PoolMode};

use super::Cluster;
use super::administration::OPERATOR;
use crate::pool::{self, Decision, Site, Step, Tenant, gate};
use crate::record::Record;
use crate::state::{Host, Phase};
use planner::{self, Snapshot};

/// After a hook has failed it is tried again no sooner than this, in milliseconds.
const HOOK_RETRY_MS: u64 = 60_000;

/// A step of the pool that has been the best for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    host: HostName,
    what: String,
    since_ms: u64,
}

impl Cluster {
    /// Looks after the pool; called when no move is planned. One step at a time: what follows needs its outcome.
    pub(super) fn step_pool(&mut self, now_ms: u64, snapshot: &Snapshot) {
        let before = self.pending.take();
        let busy = |host: &Host| host.hook.is_some() || (host.state == HostState::Draining && !host.lost);
        if self.state.hosts.values().any(busy) {
            return;
        }
        if !self.pass_on(now_ms, snapshot, before.as_ref()) {
            self.relieve_overload(now_ms, snapshot);
            self.free_unneeded(now_ms, snapshot, before.as_ref());
        }
    }

    /// Draining hosts that cannot be emptied, or for somebody who is gone, are given back.
    pub(super) fn roll_back_drains(&mut self, now_ms: u64) {
        let limit_ms = self.state.policy.policy.pool.drain_timeout_s * 1000.0;
        let mut back: Vec<(HostName, String)> = Vec::new();
        for (name, host) in self.state.hosts.iter().filter(|(_, it)| it.state == HostState::Draining) {
            let wanted =
                |id: &ApplicationId| self.state.applications.get(id).is_some_and(|it| it.is_wanted());
            if host.reason == OPERATOR {
                continue;
            }
            if now_ms.saturating_sub(host.since_ms) as f64 > limit_ms {
                back.push((name.clone(), format!("it was not empty within {:.0} s", limit_ms / 1000.0)));
            } else if let Some(next) = host.next.as_ref().filter(|next| !wanted(next)) {
                back.push((name.clone(), format!("{next}, for which it was drained, is over")));
            }
        }
        for (host, reason) in back {
            self.give_back(now_ms, &host, &reason);
            self.abort_plan(now_ms, self.planned.len(), format!("{host} is given back: {reason}"));
        }
    }

    /// Leases free hosts, and begins to empty one for another application. Whether something was done.
    fn pass_on(&mut self, now_ms: u64, snapshot: &Snapshot, before: Option<&Pending>) -> bool {
        let (tenants, sites) = self.pool_view(now_ms, snapshot);
        let decisions = pool::decide(&tenants, &sites, &self.state.policy.policy.pool);
        let Some(best) = decisions.into_iter().next().filter(Decision::passes) else {
            return false;
        };
        let (Some(site), view) = (sites.get(best.site), best.view(&tenants)) else { return false };
        if !self.is_sustained(now_ms, before, (&site.name, &view.what), best.sustain_s) {
            return true;
        }
        let numbers: Vec<String> = best.gates.iter().map(shown).collect();
        let reason = format!("{}: {}", view.what, numbers.join(", "));
        let (host, to) = (
            site.name.clone(),
            match best.step {
                Step::Lease(to) | Step::HandOver(to) => to,
            },
        );
        let Some(to) = tenants.get(to).map(|it| it.id.clone()) else { return false };
        let lease = self.state.hosts.get(&host).and_then(|it| it.lease.clone());
        match best.step {
            Step::Lease(_) => self.change_host(now_ms, &host, (HostState::Leased, Some(to), None), &reason),
            Step::HandOver(_) => {
                self.change_host(now_ms, &host, (HostState::Draining, lease, Some(to)), &reason);
            }
        }
        self.pending = None;
        true
    }

    /// Has this been the best thing to do for long enough?
    fn is_sustained(
        &mut self,
        now_ms: u64,
        before: Option<&Pending>,
        (host, what): (&HostName, &str),
        seconds: f64,
    ) -> bool {
        let known = before.filter(|it| it.host == *host && it.what == what);
        let since_ms = known.map_or(now_ms, |it| it.since_ms);
        self.pending = Some(Pending { host: host.clone(), what: what.to_owned(), since_ms });
        now_ms.saturating_sub(since_ms) as f64 >= seconds * 1000.0
    }

    /// Applications and hosts as the pool's rules see them.
    fn pool_view(&self, now_ms: u64, snapshot: &Snapshot) -> (Vec<Tenant>, Vec<Site>) {
        let leased_mode = self.state.policy.policy.pool.mode == PoolMode::Leased;
        let applications = self.state.applications.iter();
        // In shared mode every application may use every active host; only those that cannot begin want more.
        let wants = |phase| phase == Phase::Queued || (leased_mode && phase == Phase::Running);
        let tenants: Vec<Tenant> = applications
            .filter(|(_, it)| wants(it.phase))
            .map(|(id, it)| self.tenant(id, it, snapshot))
            .collect();
        let index = |id: Option<&ApplicationId>| tenants.iter().position(|it| Some(&it.id) == id);
        let mut sites: Vec<Site> = Vec::new();
        for (name, host) in
            self.state.hosts.iter().filter(|(_, host)| host.is_in_use() && host.hook.is_none())
        {
            let Some(seen) = self.view.hosts.get(name) else { continue };
            let unused = host.state == HostState::Active && leased_mode && self.usage(name).0 == 0;
            let emptied = host.state == HostState::Empty && host.reason != OPERATOR;
            if host.state != HostState::Leased && !unused && !emptied {
                continue;
            }
            sites.push(Site {
                name: name.clone(),
                processors: seen.facts.cpus.len().max(1) as f64,
                lease: index(host.lease.as_ref()),
                home: index(host.home.as_ref()),
                since_s: now_ms.saturating_sub(host.since_ms) as f64 / 1000.0,
                handovers: host.handovers,
                is_free: unused || emptied,
                evacuation_s: None,
            });
        }
        self.add_evacuations(snapshot, &mut sites);
        (tenants, sites)
    }

    /// Of the hosts of one tenant only the one that is emptied at the least cost is considered.
    fn add_evacuations(&self, snapshot: &Snapshot, sites: &mut [Site]) {
        let mut seen: Vec<(Option<usize>, Option<usize>)> = Vec::new();
        let mut order: Vec<(f64, usize)> = Vec::new();
        for (index, site) in sites.iter().enumerate().filter(|(_, site)| !site.is_free) {
            let Some(host) = snapshot.hosts.iter().position(|it| it.name == site.name) else { continue };
            let here = snapshot.partitions.iter().filter(|it| it.host == host);
            let cost = here.map(|it| it.blackout_s + snapshot.settings.brownout * it.copy_s).sum();
            order.push((cost, index));
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (cost, index) in order {
            let kind = (sites[index].lease, sites[index].home);
            if !seen.contains(&kind) && can_be_emptied(snapshot, &sites[index].name) {
                seen.push(kind);
                sites[index].evacuation_s = Some(cost);
            }
        }
    }

    fn tenant(
        &self,
        id: &ApplicationId,
        application: &crate::state::Application,
        snapshot: &Snapshot,
    ) -> Tenant {
        let specification = &application.specification;
        let quota = crate::policy::quota(&self.state.policy.policy, id, &specification.name);
        let most = quota
            .and_then(|it| it.hosts)
            .unwrap_or(u32::MAX)
            .min(specification.hosts_max.unwrap_or(u32::MAX));
        let hosts = self.state.hosts.iter().filter(|(_, it)| it.lease.as_ref() == Some(id) && !it.lost);
        let hosts: Vec<&HostName> = hosts.map(|(name, _)| name).collect();
        let cpus = |name: &&HostName| self.view.hosts.get(*name).map_or(0, |it| it.facts.cpus.len());
        let is_queued = application.phase == Phase::Queued;
        let (mut demand, mut variance, mut is_known) = (0.0, 0.0, true);
        let living = || (0..).zip(&application.partitions).filter(|(_, owner)| owner.end().is_none());
        // What partitions would be busy if none waited for a processor: all of them wait for the one that waits longest.
        let steal = living().map(|(rank, _)| self.model.load(id, rank).steal).fold(0.0, f64::max);
        let free = if self.settings.count_steal { 1.0 } else { (1.0 - steal).max(0.05) };
        for (rank, owner) in living() {
            let load = self.model.load(id, rank);
            demand += (load.mean / free).min(1.0);
            variance += load.variance_of_mean / (free * free);
            is_known &= load.samples >= snapshot.settings.least_samples && owner.moving.is_none();
        }
        if is_queued {
            demand = specification.components.iter().map(|it| it.load * f64::from(it.ranks)).sum();
        }
        Tenant {
            id: id.clone(),
            weight: specification.weight,
            demand,
            error: f64::sqrt(variance),
            is_known,
            processors: hosts.iter().map(cpus).sum::<usize>() as f64,
            hosts: u32::try_from(hosts.len()).unwrap_or(u32::MAX),
            hosts_min: specification.hosts_min.unwrap_or(1),
            hosts_max: most,
            partitions: specification.ranks(),
            is_queued,
        }
    }

    /// Frees a host when the others could carry everything, and puts hosts that nobody needs into reserve.
    fn free_unneeded(&mut self, now_ms: u64, snapshot: &Snapshot, before: Option<&Pending>) {
        let policy = &self.state.policy.policy.pool;
        let (sustain_s, underload) = (policy.sustain_s, policy.underload);
        if underload <= 0.0 {
            return;
        }
        let mut hosts = self.state.hosts.iter();
        let idle = hosts.find(|(_, it)| it.state == HostState::Empty && it.reason != OPERATOR && !it.lost);
        if let Some(host) = idle.map(|(name, _)| name.clone()) {
            if self.is_sustained(now_ms, before, (&host, "release"), sustain_s) {
                self.run_hook(now_ms, &host, HookAction::Release, "nobody needs it");
            }
            return;
        }
        let passing = |(_, gates): &(HostName, Vec<GateView>)| gates.iter().all(|gate| gate.pass);
        let Some((host, gates)) = self.to_free(snapshot).into_iter().find(passing) else { return };
        if self.is_sustained(now_ms, before, (&host, "free"), sustain_s) && can_be_emptied(snapshot, &host) {
            let numbers: Vec<String> = gates.iter().map(shown).collect();
            let reason = format!("underload: {}", numbers.join(", "));
            self.change_host(now_ms, &host, (HostState::Draining, None, None), &reason);
        }
    }

    /// Active hosts, the one that is emptied most easily first, with the conditions for freeing each.
    fn to_free(&self, snapshot: &Snapshot) -> Vec<(HostName, Vec<GateView>)> {
        let policy = &self.state.policy.policy.pool;
        let mut load = vec![0.0; snapshot.hosts.len()];
        snapshot.partitions.iter().for_each(|it| load[it.host] += it.load);
        let open = |index: &usize| {
            let role = self.state.hosts.get(&snapshot.hosts[*index].name);
            snapshot.hosts[*index].closed.is_none() && role.is_some_and(|it| it.state == HostState::Active)
        };
        let mut active: Vec<usize> = (0..snapshot.hosts.len()).filter(open).collect();
        active.sort_by(|a, b| load[*a].total_cmp(&load[*b]).then(a.cmp(b)));
        let capacity: f64 = active.iter().map(|host| snapshot.hosts[*host].capacity).sum();
        let total: f64 = active.iter().map(|host| load[*host]).sum();
        let known = snapshot.partitions.iter().all(|it| it.samples >= snapshot.settings.least_samples);
        let gates = |host: usize| {
            let left = capacity - snapshot.hosts[host].capacity;
            let then = if left > 0.0 { total / left } else { f64::MAX };
            vec![
                gate("loads are known", f64::from(u8::from(known)), ">=", 1.0),
                gate("hosts left", active.len() as f64 - 1.0, ">=", f64::from(policy.hosts_min.max(1))),
                gate("utilisation of those left", then, "<=", policy.underload),
                gate("applications in the queue", self.queue().len() as f64, "<=", 0.0),
            ]
        };
        active.iter().map(|host| (snapshot.hosts[*host].name.clone(), gates(*host))).collect()
    }

    /// Hosts from which everything has left are empty, and go to whom they were emptied for; leases end with their application.
    pub(super) fn note_empty(&mut self, now_ms: u64) {
        let over = |id: &ApplicationId| self.state.applications.get(id).is_none_or(|it| !it.is_wanted());
        let mut changes = Vec::new();
        for (name, host) in self.state.hosts.iter().filter(|(_, host)| !host.lost) {
            let unused = || self.usage(name).0 == 0;
            let next = host.next.clone().filter(|next| !over(next));
            match host.state {
                HostState::Draining if unused() => {
                    let reason = if host.reason == OPERATOR { OPERATOR } else { "everything has left it" };
                    changes.push((name.clone(), (HostState::Empty, None, next), reason.to_owned()));
                }
                HostState::Empty if next.is_some() => {
                    let reason = format!("it was emptied for it: {}", host.reason);
                    changes.push((name.clone(), (HostState::Leased, next, None), reason));
                }
                HostState::Leased if host.lease.as_ref().is_some_and(over) && unused() => {
                    let reason = "the application that had it is over".to_owned();
                    changes.push((name.clone(), (HostState::Active, None, None), reason));
                }
                _ => {}
            }
        }
        for (host, change, reason) in changes {
            self.change_host(now_ms, &host, change, &reason);
        }
    }

    /// Activates a standby host when every active host is overloaded, no move among them helps, and one to it would.
    fn relieve_overload(&mut self, now_ms: u64, snapshot: &Snapshot) {
        let pool = &self.state.policy.policy.pool;
        let (overload, sustain_s) = (pool.overload, pool.sustain_s.max(snapshot.settings.sustain_s));
        let least = least_utilisation(snapshot);
        let overloaded = least > overload && least < f64::MAX;
        let since = overloaded.then(|| self.overloaded_since_ms.unwrap_or(now_ms));
        self.overloaded_since_ms = since;
        self.overload_told &= overloaded;
        let Some(since) = since else { return };
        if (now_ms.saturating_sub(since) as f64) < sustain_s * 1000.0 {
            return;
        }
        for host in self.reserve_hosts(now_ms) {
            let Some(helps) = self.would_help(now_ms, &host) else { continue };
            let reason = format!(
                "every active host is above {:.0} % and no move among them helps; with {host}: {helps}",
                100.0 * overload
            );
            if self.settings.activate {
                self.run_hook(now_ms, &host, HookAction::Activate, &reason);
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

    /// Standby hosts that could be activated now: nothing runs for them, and their hook has not just failed.
    fn reserve_hosts(&self, now_ms: u64) -> Vec<HostName> {
        let hook = self.state.policy.policy.pool.hook.is_some();
        let ready = |host: &crate::state::Host| {
            let rested = host.hook_failed_ms.is_none_or(|at| now_ms.saturating_sub(at) > HOOK_RETRY_MS);
            // One that is switched off does not report; its hook switches it on.
            host.is_standby() && host.hook.is_none() && rested && (!host.lost || hook)
        };
        let open = |name: &&HostName| self.closed(now_ms, name).is_none();
        let hosts = self.state.hosts.iter().filter(|(_, host)| ready(host)).map(|(name, _)| name);
        hosts.filter(open).cloned().collect()
    }

    /// What could become of a host next, and what holds it back.
    pub(super) fn pool_decisions(&self, now_ms: u64, host: &HostName) -> Vec<DecisionView> {
        let snapshot = self.snapshot(now_ms, None);
        let (tenants, sites) = self.pool_view(now_ms, &snapshot);
        let mut views: Vec<DecisionView> = pool::decide(&tenants, &sites, &self.state.policy.policy.pool)
            .iter()
            .filter(|it| sites.get(it.site).is_some_and(|site| site.name == *host))
            .map(|it| it.view(&tenants))
            .collect();
        for (_, gates) in self.to_free(&snapshot).into_iter().filter(|(name, _)| name == host) {
            let failed = gates.iter().find(|gate| !gate.pass).map(shown);
            let verdict = failed.map_or_else(|| "done next".to_owned(), |it| format!("held: {it}"));
            views.push(DecisionView { what: "free".to_owned(), gates, verdict });
        }
        if self.state.hosts.get(host).is_some_and(Host::is_standby) {
            views.push(self.activation(now_ms, host, &snapshot));
        }
        views
    }

    fn activation(&self, now_ms: u64, host: &HostName, snapshot: &Snapshot) -> DecisionView {
        let least = least_utilisation(snapshot);
        let for_s =
            self.overloaded_since_ms.map_or(0.0, |since| now_ms.saturating_sub(since) as f64 / 1000.0);
        let pool = &self.state.policy.policy.pool;
        let gates = vec![
            gate("utilisation of the idlest active host", least, ">=", pool.overload),
            gate("overloaded seconds", for_s, ">=", pool.sustain_s.max(snapshot.settings.sustain_s)),
            gate("may be activated", f64::from(u8::from(self.settings.activate)), ">=", 1.0),
            gate(
                "moves to it would help",
                f64::from(u8::from(self.would_help(now_ms, host).is_some())),
                ">=",
                1.0,
            ),
        ];
        let failed = gates.iter().find(|gate| !gate.pass).map(shown);
        let verdict = failed.map_or_else(|| "done next".to_owned(), |it| format!("held: {it}"));
        DecisionView { what: "activate".to_owned(), gates, verdict }
    }

    /// What the planner would do with one more host, if anything.
    fn would_help(&self, now_ms: u64, host: &HostName) -> Option<String> {
        if !self.view.hosts.contains_key(host) {
            return Some("its hook has to say what it can do".to_owned());
        }
        let mut with = self.snapshot(now_ms, Some(host));
        with.sustained_s = with.settings.sustain_s;
        // Overload has lasted; what it has cost is not counted again for the new host.
        with.suffered_s = f64::MAX;
        planner::plan(&with).moves.into_iter().find(|it| it.to == *host).map(|it| it.reason)
    }
}

/// Could everything on the host go elsewhere, as one plan?
fn can_be_emptied(snapshot: &Snapshot, name: &HostName) -> bool {
    let Some(host) = snapshot.hosts.iter().position(|it| it.name == *name) else { return false };
    let mut without = snapshot.clone();
    without.hosts[host].evacuate = true;
    let plan = planner::plan(&without);
    let leaves = |index: usize| plan.steps.iter().rev().find(|it| it.partition as usize == index);
    let here = snapshot.partitions.iter().enumerate().filter(|(_, it)| it.host == host);
    here.map(|(index, _)| leaves(index)).all(|step| step.is_some_and(|step| step.to as usize != host))
}

fn least_utilisation(snapshot: &Snapshot) -> f64 {
    let mut load = vec![0.0; snapshot.hosts.len()];
    snapshot.partitions.iter().for_each(|it| load[it.host] += it.load);
    let open = load.iter().zip(&snapshot.hosts).filter(|(_, host)| host.closed.is_none());
    open.map(|(load, host)| load / host.capacity).fold(f64::INFINITY, f64::min).min(f64::MAX)
}

fn shown(gate: &GateView) -> String {
    format!("{} {:.3} {} {:.3}", gate.name, gate.value, gate.relation, gate.threshold)
}
