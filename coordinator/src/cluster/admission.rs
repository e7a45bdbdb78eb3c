//! Applications that come: placed at once if they fit, else queued and tried again.

use std::collections::{BTreeMap, BTreeSet};

use control::{ApplicationId, HostName, PoolMode, Quota, Rank, Specification, SpecificationError};

use super::{Cluster, ClusterError};
use crate::output::Log;
use crate::placement::{self, PlaceHost, PlaceRule, PlacementError};
use crate::policy::{self, Member};
use crate::record::Record;
use crate::state::Phase;
use planner::{Rule, RuleKind};

impl Cluster {
    /// Takes an application. Output is kept for `waiter` from the first byte on.
    pub fn submit(
        &mut self,
        now_ms: u64,
        specification: Specification,
        waiter: Option<&str>,
    ) -> Result<ApplicationId, ClusterError> {
        specification.check()?;
        let name = format!("{}-{}", specification.name, self.state.next_application());
        let application: ApplicationId = name.parse().map_err(|_| SpecificationError::Name)?;
        if let Some(quota) = policy::quota(&self.state.policy.policy, &application, &specification.name) {
            within(quota, &specification)?;
        }
        match self.place(now_ms, &application, &specification) {
            Ok(hosts) => self.admit(now_ms, &application, specification, hosts),
            Err(error) if error.is_final() => return Err(error.into()),
            Err(error) => {
                let (specification, reason) = (Box::new(specification), error.to_string());
                let application = application.clone();
                self.record(now_ms, Record::Queued { application, specification, reason });
            }
        }
        let mut log = Log::new(false);
        // Registers the waiter; there is nothing to read yet.
        let _ = log.read(now_ms, waiter, 0, 0);
        self.logs.insert(application.clone(), log);
        self.advance(now_ms);
        Ok(application)
    }

    fn admit(
        &mut self,
        now_ms: u64,
        application: &ApplicationId,
        specification: Specification,
        hosts: Vec<HostName>,
    ) {
        for host in hosts.iter().collect::<BTreeSet<_>>() {
            self.activate_for(now_ms, host, "an application is pinned to it");
            self.lease_for(now_ms, host, application);
        }
        let (application, specification) = (application.clone(), Box::new(specification));
        self.record(now_ms, Record::Submitted { application, specification, hosts });
    }

    /// Applications that wait, in the order in which they go: by priority, then weight, then age.
    pub(super) fn queue(&self) -> Vec<ApplicationId> {
        let mut queue: Vec<_> =
            self.state.applications.iter().filter(|(_, it)| it.phase == Phase::Queued).collect();
        queue.sort_by(|(a, one), (b, other)| {
            let (left, right) = (&one.specification, &other.specification);
            right
                .priority
                .cmp(&left.priority)
                .then(right.weight.total_cmp(&left.weight))
                .then((one.submitted_ms, a).cmp(&(other.submitted_ms, b)))
        });
        queue.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// Lets applications of the queue begin that fit now. One of lower priority does not overtake.
    pub(super) fn admit_queued(&mut self, now_ms: u64) {
        let mut held: Option<i32> = None;
        for id in self.queue() {
            let Some(specification) = self.state.applications.get(&id).map(|it| it.specification.clone())
            else {
                continue;
            };
            if held.is_some_and(|priority| specification.priority < priority) {
                return;
            }
            match self.place(now_ms, &id, &specification) {
                Ok(hosts) => {
                    self.admit(now_ms, &id, specification, hosts);
                    self.advance(now_ms);
                }
                Err(_) => held = Some(specification.priority),
            }
        }
    }

    /// Why an application of the queue does not begin now.
    pub(super) fn held_by(&self, now_ms: u64, id: &ApplicationId) -> Option<String> {
        let application = self.state.applications.get(id).filter(|it| it.phase == Phase::Queued)?;
        let specification = &application.specification;
        match self.place(now_ms, id, specification) {
            Err(error) => Some(error.to_string()),
            Ok(_) => Some(format!("one of higher priority than {} goes first", specification.priority)),
        }
    }

    /// Hosts for an application that has none yet.
    fn place(
        &self,
        now_ms: u64,
        id: &ApplicationId,
        specification: &Specification,
    ) -> Result<Vec<HostName>, PlacementError> {
        let hosts = self.place_hosts(now_ms, id);
        let rules = self.place_rules(id, specification, &hosts);
        let per_processor = self.state.policy.policy.limits.partitions_per_processor;
        placement::place(specification, hosts, &rules, per_processor)
    }

    fn place_hosts(&self, now_ms: u64, id: &ApplicationId) -> Vec<PlaceHost> {
        let leased = self.state.policy.policy.pool.mode == PoolMode::Leased;
        let host = |(name, seen): (&HostName, &crate::view::Seen)| {
            let role = self.state.hosts.get(name).filter(|host| !host.lost)?;
            let (partitions, used) = self.usage(name);
            let (processors, memory) = policy::reserve(&self.state.policy.policy, name, self.labels(name));
            let foreign = role.lease.as_ref().filter(|lease| *lease != id).map(|it| format!("{it} has it"));
            // A host that others use already cannot become one application's own.
            let shared = (leased && role.lease.is_none() && partitions > 0).then(|| "others use it".into());
            Some(PlaceHost {
                name: name.clone(),
                cpus: u32::try_from(seen.facts.cpus.len()).unwrap_or(u32::MAX),
                partitions,
                load: self.expected_load(name),
                reserve: processors,
                memory_free: seen.facts.memory_bytes.saturating_sub(used).saturating_sub(memory),
                standby: role.is_standby(),
                closed: self.closed(now_ms, name).or(foreign).or(shared),
            })
        };
        self.view.hosts.iter().filter_map(host).collect()
    }

    /// Busy processors of a host: measured, or as the manifests say while nothing is measured.
    fn expected_load(&self, host: &HostName) -> f64 {
        let of = |(id, rank): (&ApplicationId, Rank)| {
            let load = self.model.load(id, rank);
            let specification = self.state.applications.get(id).map(|it| &it.specification);
            let expected = specification.and_then(|it| it.component(rank)).map_or(0.0, |it| it.load);
            if load.samples > 0 { load.mean } else { expected }
        };
        let here = self.living().filter(|(_, _, owner)| owner.host == *host);
        here.map(|(id, rank, _)| of((id, rank))).sum()
    }

    /// The hard rules about the new application's ranks, with the partitions that they concern and that are there already.
    fn place_rules(
        &self,
        id: &ApplicationId,
        specification: &Specification,
        hosts: &[PlaceHost],
    ) -> Vec<PlaceRule> {
        let names: Vec<&HostName> = hosts.iter().map(|host| &host.name).collect();
        let of_rank: BTreeMap<Rank, usize> =
            (0..specification.ranks()).map(|rank| (rank, rank as usize)).collect();
        let name = specification.name.as_str();
        let mut members: Vec<Member<'_>> =
            of_rank.keys().map(|rank| Member { application: id, name, rank: *rank }).collect();
        let mut at: Vec<Option<usize>> = vec![None; members.len()];
        for (application, rank, owner) in self.living() {
            let Some(known) = self.state.applications.get(application) else { continue };
            members.push(Member { application, name: &known.specification.name, rank });
            at.push(names.iter().position(|name| **name == owner.host));
        }
        let quota = policy::quota(&self.state.policy.policy, id, name);
        let mut rules = self.policy_rules_of(&members, &names);
        rules.extend(policy::manifest_rules(specification, quota, &of_rank));
        if self.state.policy.policy.pool.mode == PoolMode::Leased
            && let Some(least) = self.hosts_wanted(specification, hosts)
        {
            let (name, partitions) = (format!("hosts of {name}"), of_rank.values().copied().collect());
            let kind = RuleKind::Hosts { least, most: u32::MAX };
            rules.push(Rule { name, kind, partitions, price: None });
        }
        let ranks = specification.ranks() as usize;
        rules
            .into_iter()
            .filter(|rule| rule.price.is_none())
            .map(|rule| place_rule(rule, ranks, &at))
            .collect()
    }

    /// Hosts that an application is given when it begins in leased mode: as many as its ranks need, if there are so many,
    /// but at least what its manifest says.
    fn hosts_wanted(&self, specification: &Specification, hosts: &[PlaceHost]) -> Option<u32> {
        let free = hosts.iter().filter(|host| !host.standby && host.closed.is_none());
        let cpus: Vec<u32> = free.map(|host| host.cpus).collect();
        let most = cpus.iter().copied().max().unwrap_or(1).max(1);
        let wanted = specification.ranks().div_ceil(most).min(specification.hosts_max.unwrap_or(u32::MAX));
        let there = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
        let least = specification.hosts_min.unwrap_or(1);
        Some(wanted.min(there).max(least)).filter(|hosts| *hosts > 1)
    }
}

fn place_rule(rule: Rule, ranks: usize, at: &[Option<usize>]) -> PlaceRule {
    let mut there = BTreeMap::new();
    for host in rule.partitions.iter().filter_map(|member| *at.get(*member)?) {
        *there.entry(host).or_default() += 1;
    }
    let ranks = rule.partitions.iter().filter(|member| **member < ranks).map(|member| *member as Rank);
    PlaceRule { name: rule.name, kind: rule.kind, ranks: ranks.collect(), there }
}

fn within(quota: &Quota, specification: &Specification) -> Result<(), ClusterError> {
    let bytes = specification.components.iter().map(|it| it.memory_bytes.saturating_mul(u64::from(it.ranks)));
    let limits = [
        ("ranks", quota.ranks.map(u64::from), u64::from(specification.ranks())),
        ("bytes of memory", quota.memory_bytes, bytes.fold(0, u64::saturating_add)),
        ("hosts", quota.hosts.map(u64::from), u64::from(specification.hosts_min.unwrap_or(1))),
    ];
    for (what, limit, asked) in limits {
        if let Some(limit) = limit.filter(|limit| asked > *limit) {
            return Err(ClusterError::Quota { what, limit, asked });
        }
    }
    Ok(())
}
