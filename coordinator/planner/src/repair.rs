//! Moves that have to be made: emptying hosts, curing hard rules that are broken and memory that is over-committed.
//!
//! Regret insertion: of all units that need a place, the one that would lose most by not getting its best place goes first.
//! Units are partitions, with those of their host that a hard affinity binds to them.

use super::layout::{Layout, Step};
use super::problem::allows;
use super::search::Action;
use super::snapshot::RuleKind;

/// Hosts that are tried for a unit in a large cluster, the emptiest.
const HOSTS: usize = 64;
/// More units than this are placed without comparing regrets.
const UNITS: usize = 48;

/// What has to be done.
#[derive(Clone, Debug, Default)]
pub struct Repair {
    /// Steps, with what asks for them.
    pub actions: Vec<(Action, String)>,
    /// What cannot be cured, and why.
    pub stuck: Vec<String>,
}

#[derive(Clone, Debug)]
struct Unit {
    partitions: Vec<u32>,
    reason: String,
    /// The rule that is to be cured.
    rule: Option<u32>,
}

/// Cures what can be cured; the layout is left as the actions make it.
pub fn repair(layout: &mut Layout<'_>) -> Repair {
    let mut repair = Repair::default();
    let mut given_up: Vec<u32> = Vec::new();
    // Each round places a unit or gives one up.
    for _ in 0..=2 * layout.problem.snapshot.partitions.len() {
        let mut units = units(layout, &given_up);
        if units.is_empty() {
            break;
        }
        units.truncate(UNITS);
        let mut best: Option<(f64, usize, Option<Action>)> = None;
        for (index, unit) in units.iter().enumerate() {
            let (regret, action) = place(layout, unit);
            if best.as_ref().is_none_or(|(most, _, _)| regret > *most) {
                best = Some((regret, index, action));
            }
        }
        let Some((_, index, action)) = best else { break };
        let unit = units.swap_remove(index);
        match action {
            Some(action) => {
                action.iter().for_each(|step| layout.apply(*step));
                repair.actions.push((action, unit.reason));
            }
            None => {
                repair.stuck.push(give_up(layout, &unit));
                given_up.extend(unit.partitions);
            }
        }
    }
    repair
}

fn give_up(layout: &Layout<'_>, unit: &Unit) -> String {
    let snapshot = layout.problem.snapshot;
    let Some(first) = unit.partitions.first().map(|it| &snapshot.partitions[*it as usize]) else {
        return unit.reason.clone();
    };
    let fixed = unit.partitions.iter().find_map(|it| layout.problem.fixed(*it as usize));
    let why = fixed.map_or("no host can take it (memory, rules, reserves)".to_owned(), str::to_owned);
    format!(
        "rank {} of {} has to leave {} ({}), but: {why}",
        first.rank, snapshot.applications[first.application].id, snapshot.hosts[first.host].name, unit.reason
    )
}

fn units(layout: &Layout<'_>, given_up: &[u32]) -> Vec<Unit> {
    let snapshot = layout.problem.snapshot;
    let mut units: Vec<Unit> = Vec::new();
    let mut add = |partition: u32, reason: String, rule: Option<u32>| {
        if !given_up.contains(&partition) && !units.iter().any(|unit| unit.partitions.contains(&partition)) {
            units.push(Unit { partitions: bound(layout, partition), reason, rule });
        }
    };
    for (host, it) in snapshot.hosts.iter().enumerate() {
        if it.evacuate {
            let items = layout.items(host).iter();
            items.for_each(|item| add(*item, format!("{} is to be emptied", it.name), None));
        } else if layout.is_overcommitted(host) {
            // The one that needs most memory, so that few move.
            let memory = |item: &&u32| snapshot.partitions[**item as usize].memory;
            let may =
                |item: &&u32| layout.problem.fixed(**item as usize).is_none() && !given_up.contains(item);
            let largest = layout.items(host).iter().filter(may).max_by_key(|item| (memory(item), **item));
            largest
                .iter()
                .for_each(|item| add(**item, format!("memory of {} is over-committed", it.name), None));
        }
    }
    for (index, rule) in snapshot.rules.iter().enumerate() {
        if rule.price.is_none() && layout.broken(index) > 0 {
            let cause = Some(index as u32);
            misplaced(layout, index).into_iter().for_each(|it| add(it, format!("rule {}", rule.name), cause));
        }
    }
    units
}

/// The partition and those on its host that a hard affinity binds to it.
fn bound(layout: &Layout<'_>, partition: u32) -> Vec<u32> {
    let problem = layout.problem;
    let host = layout.host(partition as usize);
    let mut unit = vec![partition];
    for rule in problem.rules(partition as usize) {
        let rule = &problem.snapshot.rules[*rule as usize];
        if rule.kind == RuleKind::Together && rule.price.is_none() {
            let here = rule.partitions.iter().filter(|it| layout.host(**it) == host);
            unit.extend(here.map(|it| *it as u32));
        }
    }
    unit.sort_unstable();
    unit.dedup();
    unit
}

/// Partitions whose move would cure a broken rule.
fn misplaced(layout: &Layout<'_>, rule: usize) -> Vec<u32> {
    let it = &layout.problem.snapshot.rules[rule];
    let fixed = |partition: &usize| layout.problem.fixed(*partition).is_some();
    let members = || it.partitions.iter().copied();
    match &it.kind {
        RuleKind::AtMost(most) => {
            // Of those on one host the first stay, but rather those that may not move.
            let mut here: Vec<(usize, bool, usize)> =
                members().map(|member| (layout.host(member), !fixed(&member), member)).collect();
            here.sort_unstable();
            here.dedup();
            here.chunk_by(|a, b| a.0 == b.0)
                .flat_map(|host| host.iter().skip(*most as usize))
                .map(|(_, _, it)| *it as u32)
                .collect()
        }
        RuleKind::Hosts { .. } => {
            // Those of the host with the fewest: they make room for the limit, or are the cheapest to spread.
            let mut here: Vec<(usize, usize)> = Vec::new();
            members().for_each(|member| {
                let host = layout.host(member);
                match here.iter_mut().find(|(known, _)| *known == host) {
                    Some((_, count)) => *count += 1,
                    None => here.push((host, 1)),
                }
            });
            let fewest = here.iter().min_by_key(|(host, count)| (*count, *host)).map(|(host, _)| *host);
            let most = here.iter().max_by_key(|(host, count)| (*count, *host)).map(|(host, _)| *host);
            let too_few = matches!(it.kind, RuleKind::Hosts { least, .. } if here.len() < least as usize);
            let from = if too_few { most } else { fewest };
            members().filter(|it| Some(layout.host(*it)) == from && !fixed(it)).map(|it| it as u32).collect()
        }
        RuleKind::Together => {
            let home = gathering(layout, rule);
            members().filter(|it| Some(layout.host(*it)) != home).map(|it| it as u32).collect()
        }
        kind => members().filter(|it| !allows(kind, layout.host(*it))).map(|it| it as u32).collect(),
    }
}

/// Where the partitions of an affinity meet: with those that may not move, or where most of them are.
fn gathering(layout: &Layout<'_>, rule: usize) -> Option<usize> {
    let members = &layout.problem.snapshot.rules[rule].partitions;
    let mut hosts: Vec<usize> = members.iter().map(|it| layout.host(*it)).collect();
    hosts.sort_unstable();
    let count = |host: usize| {
        let here = || members.iter().filter(|it| layout.host(**it) == host);
        (here().filter(|it| layout.problem.fixed(**it).is_some()).count(), here().count())
    };
    hosts.dedup();
    hosts.into_iter().rev().max_by_key(|host| count(*host))
}

/// The best place of a unit and what it would lose by the second best; infinite regret if there is no choice.
fn place(layout: &mut Layout<'_>, whole: &Unit) -> (f64, Option<Action>) {
    let unit = whole.partitions.as_slice();
    let snapshot = layout.problem.snapshot;
    if unit.iter().any(|it| layout.problem.fixed(*it as usize).is_some()) {
        return (f64::INFINITY, None);
    }
    let sources: Vec<usize> = unit.iter().map(|it| layout.host(*it as usize)).collect();
    let mut targets: Vec<usize> = if snapshot.hosts.len() <= 4 * HOSTS {
        (0..snapshot.hosts.len()).collect()
    } else {
        layout.coldest().filter(|host| snapshot.hosts[*host].closed.is_none()).take(HOSTS).collect()
    };
    for rule in unit.iter().flat_map(|it| layout.problem.rules(*it as usize)) {
        let rule = *rule as usize;
        match &snapshot.rules[rule].kind {
            RuleKind::On(hosts) => targets.extend(hosts),
            RuleKind::Together => targets.extend(gathering(layout, rule)),
            RuleKind::Hosts { .. } => targets.extend(gathering(layout, rule)),
            RuleKind::AtMost(_) | RuleKind::NotOn(_) => {}
        }
    }
    targets.retain(|host| {
        let it = &snapshot.hosts[*host];
        it.closed.is_none() && !it.evacuate && !sources.contains(host)
    });
    targets.sort_unstable();
    targets.dedup();
    let mut found: Vec<(f64, usize)> = Vec::new();
    for target in targets {
        let steps: Vec<Step> = unit.iter().map(|it| (*it, target as u32)).collect();
        let trial = layout.trial(&steps);
        if trial.fits && trial.leaves_reserve && trial.broken.is_none() && cures(layout, &steps, whole.rule) {
            found.push((trial.gain, target));
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let best = found.first().map(|(_, host)| unit.iter().map(|it| (*it, *host as u32)).collect());
    let regret = match found[..] {
        [(best, _), (second, _), ..] => best - second,
        _ => f64::INFINITY,
    };
    (regret, best)
}

/// Do the steps leave every hard rule about single partitions met? Otherwise they would be moved again and again.
///
/// And the rule that asks for them has to be broken less often: that of a limit on hosts only once the last of them has
/// moved, until when it is enough that they gather.
fn cures(layout: &mut Layout<'_>, steps: &[Step], rule: Option<u32>) -> bool {
    let rules = &layout.problem.snapshot.rules;
    if let Some(rule) = rule.map(|rule| rule as usize) {
        let gathers = |layout: &Layout<'_>, host: u32| {
            rules[rule].partitions.iter().any(|it| layout.host(*it) == host as usize)
        };
        let is_limit =
            matches!(rules[rule].kind, RuleKind::Hosts { most, .. } if layout.hosts_of(rule) > most);
        if is_limit && !steps.iter().all(|(_, host)| gathers(layout, *host)) {
            return false;
        }
        let before = layout.broken(rule);
        let back: Vec<Step> = steps.iter().map(|(it, _)| (*it, layout.host(*it as usize) as u32)).collect();
        steps.iter().for_each(|step| layout.apply(*step));
        let after = layout.broken(rule);
        back.iter().rev().for_each(|step| layout.apply(*step));
        if after > before || (after == before && !is_limit) {
            return false;
        }
    }
    steps.iter().all(|(partition, target)| {
        layout.problem.rules(*partition as usize).iter().all(|rule| {
            let rule = &rules[*rule as usize];
            rule.price.is_some() || allows(&rule.kind, *target as usize)
        })
    })
}
