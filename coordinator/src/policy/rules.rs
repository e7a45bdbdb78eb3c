//! What was asked, as the planner takes it: rules over indices, reserves, quotas, thresholds.

use std::collections::BTreeMap;

use control::{
    ApplicationId, Demand, HostName, HostSelector, Maintenance, Policy, PoolMode, Quota, Rank, Reserve,
    Specification,
};

use planner::{Rule, RuleKind, Settings};

type Labels = BTreeMap<String, String>;

/// A partition as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its application.
    pub application: &'a ApplicationId,
    /// The name in the application's manifest.
    pub name: &'a str,
    /// Its rank.
    pub rank: Rank,
}

fn indices(hosts: &[(&HostName, &Labels)], selectors: &[HostSelector]) -> Vec<usize> {
    let selected =
        |(name, labels): &(&HostName, &Labels)| selectors.iter().any(|it| it.selects(name, labels));
    hosts.iter().enumerate().filter(|(_, host)| selected(host)).map(|(index, _)| index).collect()
}

/// The administrator's rules over partitions and hosts, by their indices in these lists.
pub fn policy_rules(policy: &Policy, members: &[Member<'_>], hosts: &[(&HostName, &Labels)]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for it in &policy.rules {
        let selected = |member: &Member<'_>| {
            it.partitions.iter().any(|by| by.selects(member.application, member.name, member.rank))
        };
        let found = members.iter().enumerate().filter(|(_, member)| selected(member));
        let partitions: Vec<usize> = found.map(|(index, _)| index).collect();
        if partitions.is_empty() {
            continue;
        }
        let mut add = |kind: RuleKind| {
            let (name, partitions) = (it.name.clone(), partitions.clone());
            rules.push(Rule { name, kind, partitions, price: it.price });
        };
        match &it.demand {
            Demand::Together => add(RuleKind::Together),
            Demand::Apart => add(RuleKind::AtMost(1)),
            Demand::On(on) => add(RuleKind::On(indices(hosts, on))),
            Demand::NotOn(on) => add(RuleKind::NotOn(indices(hosts, on))),
            Demand::Licence { hosts: on, per_host } => {
                if !on.is_empty() {
                    add(RuleKind::On(indices(hosts, on)));
                }
                if let Some(most) = per_host {
                    add(RuleKind::AtMost(*most));
                }
            }
        }
    }
    rules
}

/// The rules of one application's manifest, and its quota of hosts; `of_rank` has the indices of its partitions.
pub fn manifest_rules(
    specification: &Specification,
    quota: Option<&Quota>,
    of_rank: &BTreeMap<Rank, usize>,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    let name = &specification.name;
    for group in specification.groups.iter().filter(|group| !group.split) {
        let partitions: Vec<usize> =
            group.ranks.iter().filter_map(|rank| of_rank.get(&rank)).copied().collect();
        if partitions.len() > 1 {
            let name = format!("group {} of {name}", group.ranks);
            rules.push(Rule { name, kind: RuleKind::Together, partitions, price: None });
        }
    }
    let most = [specification.hosts_max, quota.and_then(|quota| quota.hosts)].into_iter().flatten().min();
    // An application whose ranks have ended in part needs no more hosts than partitions.
    let least = specification.hosts_min.unwrap_or(1).min(u32::try_from(of_rank.len()).unwrap_or(u32::MAX));
    let partitions: Vec<usize> = of_rank.values().copied().collect();
    let kind = match most {
        Some(1) => RuleKind::Together,
        Some(most) => RuleKind::Hosts { least: least.min(most), most },
        None if least > 1 => RuleKind::Hosts { least, most: u32::MAX },
        None => return rules,
    };
    rules.push(Rule { name: format!("hosts of {name}"), kind, partitions, price: None });
    rules
}

/// What leases ask of the partitions of one application. `leases`: by host, the application that has it.
pub fn host_rules(
    mode: PoolMode,
    application: &ApplicationId,
    leases: &[Option<&ApplicationId>],
    partitions: Vec<usize>,
) -> Option<Rule> {
    let of = |mine: bool| {
        let all = leases.iter().enumerate().filter_map(|(host, lease)| Some((host, (*lease)?)));
        all.filter(|(_, lease)| (*lease == application) == mine).map(|(host, _)| host).collect::<Vec<_>>()
    };
    let kind = match mode {
        PoolMode::Leased => RuleKind::On(of(true)),
        PoolMode::Shared => RuleKind::NotOn(of(false)),
    };
    let nothing = matches!(&kind, RuleKind::NotOn(hosts) if hosts.is_empty());
    let name = format!("leases of {application}");
    (!nothing && !partitions.is_empty()).then_some(Rule { name, kind, partitions, price: None })
}

/// The maintenance window that a host is in.
pub fn closed<'a>(
    policy: &'a Policy,
    host: &HostName,
    labels: &Labels,
    now_ms: u64,
) -> Option<&'a Maintenance> {
    let windows = policy.maintenance.iter();
    let mut open = windows.filter(|it| (it.from_ms..it.until_ms).contains(&now_ms));
    open.find(|it| it.hosts.iter().any(|by| by.selects(host, labels)))
}

/// Processors and bytes of memory that stay free on a host: the most that any reserve asks for.
pub fn reserve(policy: &Policy, host: &HostName, labels: &Labels) -> (f64, u64) {
    let mine = |it: &&Reserve| it.hosts.iter().any(|by| by.selects(host, labels));
    policy
        .reserves
        .iter()
        .filter(mine)
        .fold((0.0, 0), |(processors, bytes), it| (it.processors.max(processors), it.memory_bytes.max(bytes)))
}

/// The quota of an application.
pub fn quota<'a>(policy: &'a Policy, application: &ApplicationId, name: &str) -> Option<&'a Quota> {
    policy.quotas.iter().find(|it| it.applications.selects_application(application, name))
}

/// Thresholds: those of the command line, where the policy says nothing.
pub fn planner_settings(base: Settings, policy: &Policy) -> Settings {
    let (gates, limits) = (&policy.gates, &policy.limits);
    let count = |value: Option<u32>, otherwise: usize| value.map_or(otherwise, |value| value as usize);
    Settings {
        imbalance: gates.imbalance.unwrap_or(base.imbalance),
        sustain_s: gates.sustain_s.unwrap_or(base.sustain_s),
        least_gain: gates.delta.unwrap_or(base.least_gain),
        significance: gates.z.unwrap_or(base.significance),
        payback_factor: gates.kappa.unwrap_or(base.payback_factor),
        horizon_s: gates.horizon_s.unwrap_or(base.horizon_s),
        cooldown_s: gates.cooldown_s.unwrap_or(base.cooldown_s),
        beta_s_per_byte: gates.beta_s_per_byte.unwrap_or(base.beta_s_per_byte),
        latency_s: gates.latency_s.unwrap_or(base.latency_s),
        moves_share: limits.moves_share.unwrap_or(base.moves_share),
        moves_least: count(limits.moves_least, base.moves_least),
        at_once: count(limits.moves_at_once, base.at_once),
        at_once_per_host: count(limits.moves_at_once_per_host, base.at_once_per_host),
        ..base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

    #[test]
    fn rules_select_partitions_and_hosts_and_say_what_they_ask() -> Result {
        let (heat, other): (ApplicationId, ApplicationId) = ("heat-1".parse()?, "other-2".parse()?);
        let members: Vec<Member<'_>> = (0..3)
            .map(|rank| Member { application: &heat, name: "heat", rank })
            .chain([Member { application: &other, name: "other", rank: 0 }])
            .collect();
        let (a, b): (HostName, HostName) = ("a".parse()?, "b".parse()?);
        let (none, rack) = (Labels::new(), Labels::from([("rack".to_owned(), "1".to_owned())]));
        let hosts = [(&a, &none), (&b, &rack)];
        let rule = |by: &str, demand| -> Result<control::PolicyRule> {
            Ok(control::PolicyRule { name: "r".into(), partitions: vec![by.parse()?], demand, price: None })
        };
        let rack1 = || -> Result<Vec<HostSelector>> { Ok(vec!["rack=1".parse()?]) };
        let policy = Policy {
            rules: vec![
                rule("heat:0-1", Demand::Apart)?,
                rule("other", Demand::NotOn(rack1()?))?,
                rule("*", Demand::Licence { hosts: rack1()?, per_host: Some(2) })?,
                rule("gone", Demand::Together)?,
            ],
            ..Policy::default()
        };
        let rules = policy_rules(&policy, &members, &hosts);
        let kinds: Vec<_> = rules.iter().map(|it| (it.kind.clone(), it.partitions.len())).collect();
        let expected = [
            (RuleKind::AtMost(1), 2),
            (RuleKind::NotOn(vec![1]), 1),
            (RuleKind::On(vec![1]), 4),
            (RuleKind::AtMost(2), 4),
        ];
        assert_eq!(kinds, expected);
        Ok(())
    }

    #[test]
    fn leases_keep_others_away_and_in_leased_mode_the_application_at_home() -> Result {
        let (heat, other): (ApplicationId, ApplicationId) = ("heat-1".parse()?, "other-2".parse()?);
        let leases = [Some(&heat), None, Some(&other)];
        let kind = |mode| host_rules(mode, &heat, &leases, vec![0]).map(|it| it.kind);
        assert_eq!(kind(PoolMode::Shared), Some(RuleKind::NotOn(vec![2])));
        assert_eq!(kind(PoolMode::Leased), Some(RuleKind::On(vec![0])));
        assert!(host_rules(PoolMode::Shared, &heat, &[None], vec![0]).is_none());
        Ok(())
    }
}
