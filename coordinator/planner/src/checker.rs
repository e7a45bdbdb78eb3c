//! Lints a plan against the snapshot it was made for, before anything of it runs.
//!
//! It shares no arithmetic with the planner: every sum is made anew from the snapshot, the slow and obvious way, so that an
//! error in the planner's running sums cannot hide itself.

use std::collections::{BTreeMap, BTreeSet};

use control::HostName;
use thiserror::Error;

use crate::order::Ordered;
use crate::plan::Plan;
use crate::snapshot::{RuleKind, Snapshot};

/// Relative error that sums in another order may have.
const SLACK: f64 = 1e-9;

/// Something that a plan must not do.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Finding {
    /// An index that is not there.
    #[error("step {0} names a partition or a host that is not there")]
    Unknown(usize),
    /// It is elsewhere at that time.
    #[error("step {0} moves a partition from where it is not, or to where it is")]
    Elsewhere(usize),
    /// The step and the order for execution differ.
    #[error("step {0} is not what would be executed")]
    Differs(usize),
    /// Waves are out of order.
    #[error("step {0} is in a wave before that of the step before it")]
    Wave(usize),
    /// It may not move.
    #[error("step {0} moves a partition that may not move: {1}")]
    Fixed(usize, &'static str),
    /// It rests.
    #[error("step {0} moves a partition that still rests, or whose load is not known well enough")]
    Unready(usize),
    /// The destination takes nothing.
    #[error("step {step} moves something to {host}, which takes nothing")]
    Closed {
        /// The step.
        step: usize,
        /// The host.
        host: HostName,
    },
    /// Memory.
    #[error("{host} would have {needed} bytes of memory taken of {there} in wave {wave}")]
    Memory {
        /// The host.
        host: HostName,
        /// The wave.
        wave: u32,
        /// Bytes that would be taken.
        needed: u64,
        /// Bytes that it has.
        there: u64,
    },
    /// A hard rule.
    #[error("rule {rule} would be broken {after} times after wave {wave}, {before} times before the plan")]
    Rule {
        /// Its name.
        rule: String,
        /// The wave.
        wave: u32,
        /// Before the plan.
        before: usize,
        /// Afterwards.
        after: usize,
    },
    /// A reserve.
    #[error("{host} would keep less free than its reserve")]
    Reserve {
        /// The host.
        host: HostName,
    },
    /// Too many moves.
    #[error("{what}: {count} moves, {limit} are allowed")]
    TooMany {
        /// Of what.
        what: String,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// It makes something worse.
    #[error("{what} would get worse: {before} -> {after}")]
    Worse {
        /// What.
        what: &'static str,
        /// Now.
        before: f64,
        /// Then.
        after: f64,
    },
}

/// Everything that is wrong with a plan; nothing, if it may run.
pub fn check(snapshot: &Snapshot, plan: &Plan) -> Vec<Finding> {
    if plan.steps.is_empty() && plan.moves.is_empty() {
        return Vec::new();
    }
    let mut findings = steps(snapshot, plan);
    if !findings.is_empty() {
        // What follows needs steps that can be followed.
        return findings;
    }
    findings.extend(waves(snapshot, plan));
    findings.extend(counts(snapshot, plan));
    findings.extend(reserves(snapshot, &plan.steps));
    if plan.mandatory == 0 {
        findings.extend(times(snapshot, &plan.steps));
    }
    findings
}

fn steps(snapshot: &Snapshot, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut at: BTreeMap<u32, u32> = BTreeMap::new();
    let mut wave = 0;
    if plan.steps.len() != plan.moves.len() {
        findings.push(Finding::Differs(plan.steps.len().min(plan.moves.len())));
    }
    for (index, (step, order)) in plan.steps.iter().zip(&plan.moves).enumerate() {
        let partition = snapshot.partitions.get(step.partition as usize);
        let hosts = snapshot.hosts.get(step.from as usize).zip(snapshot.hosts.get(step.to as usize));
        let Some((partition, (from, to))) = partition.zip(hosts) else {
            findings.push(Finding::Unknown(index));
            continue;
        };
        let now = at.insert(step.partition, step.to).unwrap_or(partition.host as u32);
        if now != step.from || step.from == step.to {
            findings.push(Finding::Elsewhere(index));
        }
        let application = snapshot.applications.get(partition.application).map(|it| &it.id);
        let same = application == Some(&order.application) && partition.rank == order.rank;
        if !same || from.name != order.from || to.name != order.to || step.wave != order.wave {
            findings.push(Finding::Differs(index));
        }
        if step.wave < wave {
            findings.push(Finding::Wave(index));
        }
        wave = step.wave;
        findings.extend(partition.fixed.map(|why| Finding::Fixed(index, why)));
        let ready = partition.cooling_s <= 0.0 && partition.samples >= snapshot.settings.least_samples;
        if plan.mandatory == 0 && !ready {
            findings.push(Finding::Unready(index));
        }
        if to.closed.is_some() || to.evacuate {
            findings.push(Finding::Closed { step: index, host: to.name.clone() });
        }
    }
    findings
}

fn placement(snapshot: &Snapshot) -> Vec<usize> {
    snapshot.partitions.iter().map(|it| it.host).collect()
}

/// Memory and hard rules, wave by wave.
fn waves(snapshot: &Snapshot, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut at = placement(snapshot);
    let mut on: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); snapshot.hosts.len()];
    for (partition, host) in at.iter().enumerate() {
        on[*host].insert(partition);
    }
    let broken_before: Vec<usize> =
        (0..snapshot.rules.len()).map(|rule| broken(snapshot, rule, &at)).collect();
    let mut touched: BTreeSet<usize> = BTreeSet::new();
    for wave in plan.steps.chunk_by(|a, b| a.wave == b.wave) {
        let number = wave.first().map_or(0, |step| step.wave);
        for step in wave {
            on[step.to as usize].insert(step.partition as usize);
            touched.insert(step.to as usize);
        }
        if snapshot.settings.transient {
            findings.extend(touched.iter().filter_map(|host| memory(snapshot, *host, &on[*host], number)));
            touched.clear();
        }
        for step in wave {
            on[step.from as usize].remove(&(step.partition as usize));
            at[step.partition as usize] = step.to as usize;
        }
        let last = plan.steps.last().is_some_and(|step| step.wave == number);
        for (rule, before) in broken_before.iter().enumerate() {
            let it = &snapshot.rules[rule];
            // Partitions of an affinity may be apart on their way.
            if it.price.is_some() || (it.kind.is_of_all() && !last) {
                continue;
            }
            let after = broken(snapshot, rule, &at);
            if after > *before {
                findings.push(Finding::Rule { rule: it.name.clone(), wave: number, before: *before, after });
            }
        }
    }
    let number = plan.steps.last().map_or(0, |step| step.wave);
    findings.extend(touched.iter().filter_map(|host| memory(snapshot, *host, &on[*host], number)));
    findings
}

fn memory(snapshot: &Snapshot, host: usize, items: &BTreeSet<usize>, wave: u32) -> Option<Finding> {
    let it = &snapshot.hosts[host];
    let needed = taken(snapshot, host, items);
    if needed <= it.memory {
        return None;
    }
    let before: BTreeSet<usize> =
        (0..snapshot.partitions.len()).filter(|item| snapshot.partitions[*item].host == host).collect();
    let worse = needed > taken(snapshot, host, &before);
    worse.then(|| Finding::Memory { host: it.name.clone(), wave, needed, there: it.memory })
}

fn taken(snapshot: &Snapshot, host: usize, items: &BTreeSet<usize>) -> u64 {
    let partitions = || items.iter().map(|item| &snapshot.partitions[*item]);
    let own: u64 = partitions().map(|it| it.memory).sum();
    let blocks: BTreeSet<usize> = partitions().filter_map(|it| it.block).collect();
    let shared: u64 = blocks.iter().map(|block| snapshot.blocks[*block]).sum();
    let working = partitions().map(|it| it.working).max().unwrap_or(0);
    snapshot.hosts[host].memory_base + own + shared + working
}

/// How often a rule is broken by a placement.
fn broken(snapshot: &Snapshot, rule: usize, at: &[usize]) -> usize {
    let it = &snapshot.rules[rule];
    let members: BTreeSet<usize> = it.partitions.iter().copied().collect();
    let hosts: BTreeSet<usize> = members.iter().map(|member| at[*member]).collect();
    match &it.kind {
        RuleKind::Together => hosts.len().saturating_sub(1),
        RuleKind::AtMost(most) => {
            let here = |host: &usize| members.iter().filter(|member| at[**member] == *host).count();
            hosts.iter().map(|host| here(host).saturating_sub(*most as usize)).sum()
        }
        // A rule about nobody asks for no host.
        RuleKind::Hosts { .. } if members.is_empty() => 0,
        RuleKind::Hosts { least, most } => {
            (*least as usize).saturating_sub(hosts.len()) + hosts.len().saturating_sub(*most as usize)
        }
        RuleKind::On(allowed) => members.iter().filter(|member| !allowed.contains(&at[**member])).count(),
        RuleKind::NotOn(denied) => members.iter().filter(|member| denied.contains(&at[**member])).count(),
    }
}

fn counts(snapshot: &Snapshot, plan: &Plan) -> Vec<Finding> {
    let settings = &snapshot.settings;
    let mut findings = Vec::new();
    let mut too_many = |what: &str, count: usize, limit: usize| {
        if count > limit {
            findings.push(Finding::TooMany { what: what.to_owned(), count, limit });
        }
    };
    if settings.transient {
        for wave in plan.steps.chunk_by(|a, b| a.wave == b.wave) {
            too_many("at once", wave.len(), settings.at_once);
            let (mut out, mut into) = (BTreeMap::new(), BTreeMap::new());
            for step in wave {
                *out.entry(step.from).or_insert(0) += 1;
                *into.entry(step.to).or_insert(0) += 1;
            }
            let most = out.values().chain(into.values()).copied().max().unwrap_or(0);
            too_many("at once on one host", most, settings.at_once_per_host);
        }
    }
    let moved: BTreeSet<u32> = plan.steps.iter().map(|step| step.partition).collect();
    let share = (settings.moves_share * snapshot.partitions.len() as f64).ceil() as usize;
    too_many("of one plan", moved.len(), share.max(settings.moves_least) + plan.mandatory);
    let mut by_application = vec![0_usize; snapshot.applications.len()];
    for partition in &moved {
        by_application[snapshot.partitions[*partition as usize].application] += 1;
    }
    for (count, it) in by_application.into_iter().zip(&snapshot.applications) {
        too_many(it.id.as_str(), count, it.quota.saturating_add(plan.mandatory));
    }
    findings
}

fn after(snapshot: &Snapshot, steps: &[Ordered]) -> Vec<usize> {
    let mut at = placement(snapshot);
    steps.iter().for_each(|step| at[step.partition as usize] = step.to as usize);
    at
}

fn loads(snapshot: &Snapshot, at: &[usize]) -> Vec<f64> {
    let mut loads = vec![0.0; snapshot.hosts.len()];
    snapshot.partitions.iter().zip(at).for_each(|(it, host)| loads[*host] += it.load);
    loads
}

fn reserves(snapshot: &Snapshot, steps: &[Ordered]) -> Vec<Finding> {
    let before = loads(snapshot, &placement(snapshot));
    let after = loads(snapshot, &after(snapshot, steps));
    let hosts = snapshot.hosts.iter().zip(before.iter().zip(after));
    let touched = hosts.filter(|(host, (before, after))| {
        let most = host.capacity - host.reserve;
        host.reserve > 0.0
            && *after > most + SLACK * host.capacity
            && *after > **before + SLACK * host.capacity
    });
    touched.map(|(host, _)| Finding::Reserve { host: host.name.clone() }).collect()
}

/// Work of every host: load per processor, and what its traffic with other hosts costs.
fn works(snapshot: &Snapshot, at: &[usize]) -> Vec<f64> {
    let settings = &snapshot.settings;
    let (mut sent, mut received) = (vec![0.0; snapshot.hosts.len()], vec![0.0; snapshot.hosts.len()]);
    for edge in snapshot.edges.iter().filter(|it| at[it.from] != at[it.to]) {
        let cost = edge.bytes * settings.beta_s_per_byte + edge.messages * settings.latency_s;
        sent[at[edge.from]] += cost;
        received[at[edge.to]] += cost;
    }
    let loads = loads(snapshot, at);
    let hosts = snapshot.hosts.iter().zip(loads).zip(sent.into_iter().zip(received));
    hosts
        .map(|((host, load), (sent, received))| host.alpha * load / host.capacity + f64::max(sent, received))
        .collect()
}

/// Neither the busiest host nor the applications together (by weight, with the prices of soft rules) get slower.
fn times(snapshot: &Snapshot, steps: &[Ordered]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (before, after) = (placement(snapshot), after(snapshot, steps));
    let (works_before, works_after) = (works(snapshot, &before), works(snapshot, &after));
    let most = |works: &[f64]| works.iter().copied().fold(0.0, f64::max);
    let (most_before, most_after) = (most(&works_before), most(&works_after));
    if most_after > most_before * (1.0 + SLACK) + SLACK {
        let what = "the busiest host";
        findings.push(Finding::Worse { what, before: most_before, after: most_after });
    }
    let slowest = |works: &[f64], at: &[usize]| {
        let mut times = vec![0.0_f64; snapshot.applications.len()];
        for (it, host) in snapshot.partitions.iter().zip(at) {
            times[it.application] = times[it.application].max(works[*host]);
        }
        times
    };
    let pairs = slowest(&works_before, &before).into_iter().zip(slowest(&works_after, &after));
    let slower: f64 = pairs
        .zip(&snapshot.applications)
        .filter(|((before, _), _)| *before > 0.0)
        .map(|((before, after), it)| it.weight * (after / before - 1.0))
        .sum();
    let prices = |at: &[usize]| -> f64 {
        let rules = snapshot.rules.iter().enumerate();
        rules.filter_map(|(rule, it)| Some(it.price? * broken(snapshot, rule, at) as f64)).sum()
    };
    let worse = slower + prices(&after) - prices(&before);
    if worse > SLACK {
        findings.push(Finding::Worse { what: "the applications' time", before: 0.0, after: worse });
    }
    findings
}
