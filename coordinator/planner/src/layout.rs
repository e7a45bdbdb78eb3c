//! A placement with its sums, kept right while partitions move: what a move would change is known at once.
//!
//! Work of a host: W = alpha L / c + max(sent, received), in seconds lost per second; `sent` and `received` are the costs of
//! its traffic with other hosts (beta in seconds per byte). The potential is sum(c W^2) + the prices of soft rules that are
//! broken. A move changes the work of its two hosts only: what others exchange with the partition stays between two hosts,
//! or becomes so at one of the two.

use std::collections::{BTreeMap, BTreeSet};

use super::problem::{Problem, allows};
use super::snapshot::RuleKind;

/// A partition and where it goes.
pub type Step = (u32, u32);

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    load: f64,
    variance: f64,
    sent: f64,
    received: f64,
    memory: u64,
    working: u64,
}

/// What steps would change.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Fall of the potential.
    pub gain: f64,
    /// Standard error of `gain` from the noise of the loads.
    pub error: f64,
    /// Greatest work of the hosts concerned, before.
    pub before: f64,
    /// And after.
    pub after: f64,
    /// Is there room in memory?
    pub fits: bool,
    /// Does it leave the reserves of the hosts free?
    pub leaves_reserve: bool,
    /// A hard rule that would be broken (more than it is).
    pub broken: Option<u32>,
}

/// The traffic of one partition with others, by their host (seconds per second).
#[derive(Clone, Debug, Default)]
pub struct Flows {
    partition: u32,
    sent: f64,
    received: f64,
    by_host: Vec<(u32, f64, f64)>,
}

impl Flows {
    fn with(&self, host: usize) -> (f64, f64) {
        let found = self.by_host.iter().find(|(known, _, _)| *known as usize == host);
        found.map_or((0.0, 0.0), |(_, sent, received)| (*sent, *received))
    }

    /// Hosts that it talks to.
    pub fn hosts(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_host.iter().map(|(host, _, _)| *host as usize)
    }
}

/// How far a number of hosts is outside of what a rule asks for.
fn hosts_broken(hosts: u32, least: u32, most: u32) -> u32 {
    least.saturating_sub(hosts) + hosts.saturating_sub(most)
}

/// A placement with its sums.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    /// What it is a placement of.
    pub problem: &'a Problem<'a>,
    host_of: Vec<u32>,
    sums: Vec<Sums>,
    items: Vec<Vec<u32>>,
    slot: Vec<u32>,
    blocks: Vec<Vec<(u32, u32)>>,
    members: Vec<BTreeMap<u32, u32>>,
    order: BTreeSet<(u64, u32)>,
}

impl<'a> Layout<'a> {
    /// The placement of the snapshot.
    pub fn new(problem: &'a Problem<'a>) -> Self {
        let snapshot = problem.snapshot;
        let hosts = snapshot.hosts.len();
        let mut layout = Self {
            problem,
            host_of: snapshot.partitions.iter().map(|it| it.host as u32).collect(),
            sums: vec![Sums::default(); hosts],
            items: vec![Vec::new(); hosts],
            slot: vec![0; snapshot.partitions.len()],
            blocks: vec![Vec::new(); hosts],
            members: vec![BTreeMap::new(); snapshot.rules.len()],
            order: BTreeSet::new(),
        };
        for (partition, it) in snapshot.partitions.iter().enumerate() {
            layout.enter(partition, it.host);
            for link in problem.links(partition) {
                if layout.host_of[link.peer as usize] as usize != it.host {
                    layout.sums[it.host].sent += link.sent;
                    layout.sums[it.host].received += link.received;
                }
            }
        }
        layout.order = (0..hosts).map(|host| layout.key(host)).collect();
        layout
    }

    /// Where a partition is.
    pub fn host(&self, partition: usize) -> usize {
        self.host_of[partition] as usize
    }

    /// The partitions of a host, in no particular but always the same order.
    pub fn items(&self, host: usize) -> &[u32] {
        &self.items[host]
    }

    /// Load of a host.
    pub fn load(&self, host: usize) -> f64 {
        self.sums[host].load
    }

    /// Work of a host, in seconds lost per second.
    pub fn work(&self, host: usize) -> f64 {
        self.work_of(host, &self.sums[host])
    }

    /// The greatest work of all hosts.
    pub fn work_max(&self) -> f64 {
        self.order.last().map_or(0.0, |(bits, _)| f64::from_bits(*bits))
    }

    /// Hosts, those with the least work first.
    pub fn coldest(&self) -> impl Iterator<Item = usize> + '_ {
        self.order.iter().map(|(_, host)| *host as usize)
    }

    /// Hosts, those with the most work first.
    pub fn hottest(&self) -> impl Iterator<Item = usize> + '_ {
        self.order.iter().rev().map(|(_, host)| *host as usize)
    }

    /// The sum of c W^2 over all hosts.
    pub fn potential(&self) -> f64 {
        let hosts = self.problem.snapshot.hosts.iter().enumerate();
        hosts.map(|(host, it)| it.capacity * self.work(host).powi(2)).sum()
    }

    /// Memory taken on a host, in bytes.
    pub fn memory(&self, host: usize) -> u64 {
        let sums = &self.sums[host];
        let base = self.problem.snapshot.hosts[host].memory_base;
        base.saturating_add(sums.memory).saturating_add(sums.working)
    }

    /// Is more memory taken on the host than it has?
    pub fn is_overcommitted(&self, host: usize) -> bool {
        self.memory(host) > self.problem.snapshot.hosts[host].memory
    }

    /// On how many hosts a rule's partitions are.
    pub fn hosts_of(&self, rule: usize) -> u32 {
        self.members[rule].len() as u32
    }

    /// How often a rule is broken.
    pub fn broken(&self, rule: usize) -> u32 {
        let members = &self.members[rule];
        match &self.problem.snapshot.rules[rule].kind {
            RuleKind::Together => (members.len() as u32).saturating_sub(1),
            RuleKind::AtMost(most) => members.values().map(|count| count.saturating_sub(*most)).sum(),
            RuleKind::Hosts { .. } if members.is_empty() => 0,
            RuleKind::Hosts { least, most } => hosts_broken(members.len() as u32, *least, *most),
            kind => members
                .iter()
                .filter(|(host, _)| !allows(kind, **host as usize))
                .map(|(_, count)| *count)
                .sum(),
        }
    }

    /// Memory that a partition would add to a host, in bytes.
    pub fn memory_with(&self, partition: usize, host: usize) -> u64 {
        let it = &self.problem.snapshot.partitions[partition];
        let shared = it.block.map_or(0, |block| {
            let here = self.blocks[host].iter().any(|(known, _)| *known as usize == block);
            if here { 0 } else { self.problem.snapshot.blocks[block] }
        });
        let working = it.working.saturating_sub(self.sums[host].working);
        self.memory(host).saturating_add(it.memory).saturating_add(shared).saturating_add(working)
    }

    /// What one step would change.
    pub fn single(&self, step: Step) -> Trial {
        let mut flows = Flows::default();
        self.flows(step.0, &mut flows);
        self.single_with(&flows, step.1)
    }

    /// The traffic of a partition by host: what all its single steps have in common.
    pub fn flows(&self, partition: u32, flows: &mut Flows) {
        (flows.partition, flows.sent, flows.received) = (partition, 0.0, 0.0);
        flows.by_host.clear();
        for link in self.problem.links(partition as usize) {
            flows.sent += link.sent;
            flows.received += link.received;
            let host = self.host_of[link.peer as usize];
            match flows.by_host.iter_mut().find(|(known, _, _)| *known == host) {
                Some((_, sent, received)) => {
                    *sent += link.sent;
                    *received += link.received;
                }
                None => flows.by_host.push((host, link.sent, link.received)),
            }
        }
    }

    /// What one step would change, with the flows of its partition.
    pub fn single_with(&self, flows: &Flows, target: u32) -> Trial {
        let snapshot = self.problem.snapshot;
        let (partition, target) = (flows.partition as usize, target as usize);
        let source = self.host(partition);
        let load = snapshot.partitions[partition].load;
        let (from, to) = (&snapshot.hosts[source], &snapshot.hosts[target]);
        let (sent, received) = flows.with(source);
        // What was inside the source is now between two hosts, and the other way round at the target.
        let left = Sums {
            load: -load,
            sent: sent + received - flows.sent,
            received: sent + received - flows.received,
            ..Sums::default()
        };
        let (sent, received) = flows.with(target);
        let joined = Sums {
            load,
            sent: flows.sent - sent - received,
            received: flows.received - sent - received,
            ..Sums::default()
        };
        let (left, joined) = (self.after(source, left), self.after(target, joined));
        let (change, broken) = self.rule_change(partition, target);
        let error = self.error_square(source, left.load) + self.error_square(target, joined.load);
        let (source_after, target_after) = (self.work_of(source, &left), self.work_of(target, &joined));
        let (source_now, target_now) = (self.work(source), self.work(target));
        let gain = from.capacity * (source_now.powi(2) - source_after.powi(2))
            + to.capacity * (target_now.powi(2) - target_after.powi(2));
        Trial {
            gain: gain - change,
            error: error.sqrt(),
            before: source_now.max(target_now),
            after: source_after.max(target_after),
            fits: self.memory_with(partition, target) <= to.memory,
            leaves_reserve: to.reserve <= 0.0 || joined.load <= to.capacity - to.reserve,
            broken,
        }
    }

    /// What steps would change together; a partition appears at most once.
    pub fn trial(&mut self, steps: &[Step]) -> Trial {
        if let [step] = steps {
            return self.single(*step);
        }
        let mut hosts: Vec<usize> = steps
            .iter()
            .map(|(it, to)| (self.host(*it as usize), *to as usize))
            .fold(Vec::new(), |mut all, (from, to)| {
                all.extend([from, to]);
                all
            });
        hosts.sort_unstable();
        hosts.dedup();
        let mut rules: Vec<u32> =
            steps.iter().flat_map(|(it, _)| self.problem.rules(*it as usize)).copied().collect();
        rules.sort_unstable();
        rules.dedup();
        let kept: Vec<Sums> = hosts.iter().map(|host| self.sums[*host]).collect();
        let broken: Vec<u32> = rules.iter().map(|rule| self.broken(*rule as usize)).collect();
        let back: Vec<Step> = steps.iter().map(|(it, _)| (*it, self.host_of[*it as usize])).collect();
        steps.iter().for_each(|step| self.shift(*step));
        let trial = self.compare(&hosts, &kept, &rules, &broken);
        back.iter().rev().for_each(|step| self.shift(*step));
        for (host, sums) in hosts.iter().zip(kept) {
            self.sums[*host] = sums;
        }
        trial
    }

    fn compare(&self, hosts: &[usize], kept: &[Sums], rules: &[u32], broken: &[u32]) -> Trial {
        let snapshot = self.problem.snapshot;
        let mut trial = Trial {
            gain: 0.0,
            error: 0.0,
            before: 0.0,
            after: 0.0,
            fits: true,
            leaves_reserve: true,
            broken: None,
        };
        for (&host, before) in hosts.iter().zip(kept) {
            let (it, now) = (&snapshot.hosts[host], &self.sums[host]);
            let (work_before, work_now) = (self.work_of(host, before), self.work_of(host, now));
            trial.gain += it.capacity * (work_before.powi(2) - work_now.powi(2));
            trial.error += (2.0 * it.alpha * it.alpha * (before.load - now.load) / it.capacity).powi(2)
                * before.variance;
            trial.before = trial.before.max(work_before);
            trial.after = trial.after.max(work_now);
            let grew = now.memory + now.working > before.memory + before.working;
            trial.fits &= !grew || !self.is_overcommitted(host);
            trial.leaves_reserve &=
                it.reserve <= 0.0 || now.load <= before.load || now.load <= it.capacity - it.reserve;
        }
        for (&rule, before) in rules.iter().zip(broken) {
            let more = f64::from(self.broken(rule as usize)) - f64::from(*before);
            match snapshot.rules[rule as usize].price {
                Some(price) => trial.gain -= self.price(price) * more,
                None if more > 0.0 => trial.broken = trial.broken.or(Some(rule)),
                None => {}
            }
        }
        trial.error = trial.error.sqrt();
        trial
    }

    /// Makes a step.
    pub fn apply(&mut self, step: Step) {
        let hosts = [self.host(step.0 as usize), step.1 as usize];
        for host in hosts {
            self.order.remove(&self.key(host));
        }
        self.shift(step);
        for host in hosts {
            self.order.insert(self.key(host));
        }
    }

    /// What has moved since the snapshot.
    pub fn moved(&self) -> Vec<Step> {
        let partitions = self.problem.snapshot.partitions.iter().zip(&self.host_of).enumerate();
        let moved = partitions.filter(|(_, (it, host))| it.host != **host as usize);
        moved.map(|(partition, (_, host))| (partition as u32, *host)).collect()
    }

    /// Predicted iteration time of every application: the work of its hottest host (seconds per second).
    pub fn times(&self) -> Vec<f64> {
        let works: Vec<f64> = (0..self.sums.len()).map(|host| self.work(host)).collect();
        let mut times = vec![0.0_f64; self.problem.snapshot.applications.len()];
        for (it, host) in self.problem.snapshot.partitions.iter().zip(&self.host_of) {
            let time = &mut times[it.application];
            *time = time.max(works[*host as usize]);
        }
        times
    }

    /// Loss from imbalance in application-seconds per second: what a perfect placement would save, by weight.
    pub fn loss(&self) -> f64 {
        let problem = self.problem;
        let lost = |(index, time): (usize, f64)| {
            let weight = problem.snapshot.applications[index].weight;
            if time > problem.bounds[index] { weight * (1.0 - problem.bounds[index] / time) } else { 0.0 }
        };
        self.times().into_iter().enumerate().map(lost).sum()
    }

    /// max(T / lowest possible T) - 1 over the applications.
    pub fn excess(&self) -> f64 {
        let times = self.times();
        let shares = times.iter().zip(&self.problem.bounds).filter(|(time, _)| **time > 0.0);
        shares.map(|(time, bound)| time / bound.max(f64::MIN_POSITIVE) - 1.0).fold(0.0, f64::max)
    }

    /// The mean work of the hosts of every application's partitions (seconds per second).
    pub fn mean_works(&self) -> Vec<f64> {
        let works: Vec<f64> = (0..self.sums.len()).map(|host| self.work(host)).collect();
        let mut sums = vec![(0.0, 0.0); self.problem.snapshot.applications.len()];
        for (it, host) in self.problem.snapshot.partitions.iter().zip(&self.host_of) {
            sums[it.application].0 += works[*host as usize];
            sums[it.application].1 += 1.0;
        }
        sums.into_iter().map(|(sum, count)| if count > 0.0 { sum / count } else { 0.0 }).collect()
    }

    /// Hosts of the peers that a partition exchanges most with, at most `count`.
    pub fn peer_hosts(&self, partition: usize, count: usize) -> impl Iterator<Item = usize> + '_ {
        self.problem.links(partition).iter().take(count).map(|link| self.host(link.peer as usize))
    }

    fn key(&self, host: usize) -> (u64, u32) {
        // Works are not negative, so that their bits are in the order of the numbers.
        (self.work(host).max(0.0).to_bits(), host as u32)
    }

    fn work_of(&self, host: usize, sums: &Sums) -> f64 {
        let it = &self.problem.snapshot.hosts[host];
        // Sums that should be zero may be a little below it.
        (it.alpha * sums.load / it.capacity + sums.sent.max(sums.received)).max(0.0)
    }

    fn after(&self, host: usize, change: Sums) -> Sums {
        let now = &self.sums[host];
        Sums {
            load: now.load + change.load,
            sent: now.sent + change.sent,
            received: now.received + change.received,
            ..*now
        }
    }

    /// Changes of the source's and the target's sums when a partition moves (without memory).
    fn around(&self, partition: usize, target: usize) -> (Sums, Sums) {
        let source = self.host(partition);
        let it = &self.problem.snapshot.partitions[partition];
        let mut left = Sums { load: -it.load, variance: -it.variance, ..Sums::default() };
        let mut joined = Sums { load: it.load, variance: it.variance, ..Sums::default() };
        for link in self.problem.links(partition) {
            let peer = self.host(link.peer as usize);
            if peer == source {
                // Was inside; now the peer here talks to another host.
                left.sent += link.received;
                left.received += link.sent;
            } else {
                left.sent -= link.sent;
                left.received -= link.received;
            }
            if peer == target {
                joined.sent -= link.received;
                joined.received -= link.sent;
            } else {
                joined.sent += link.sent;
                joined.received += link.received;
            }
        }
        (left, joined)
    }

    fn error_square(&self, host: usize, load: f64) -> f64 {
        let it = &self.problem.snapshot.hosts[host];
        let now = &self.sums[host];
        (2.0 * it.alpha * it.alpha * (now.load - load) / it.capacity).powi(2) * now.variance
    }

    fn price(&self, price: f64) -> f64 {
        // d(c W^2) = 2 W d(c W): what a second per second weighs on a host with mean work.
        2.0 * self.problem.mean.max(f64::MIN_POSITIVE) * price
    }

    /// A hard rule that a step breaks.
    pub fn broken_by(&self, step: Step) -> Option<u32> {
        self.rule_change(step.0 as usize, step.1 as usize).1
    }

    /// Change of the prices of soft rules, and a hard rule that a step breaks.
    fn rule_change(&self, partition: usize, target: usize) -> (f64, Option<u32>) {
        let source = self.host(partition);
        let (mut change, mut broken) = (0.0, None);
        for &rule in self.problem.rules(partition) {
            let it = &self.problem.snapshot.rules[rule as usize];
            let members = &self.members[rule as usize];
            let count = |host: usize| members.get(&(host as u32)).copied().unwrap_or(0);
            let more = match &it.kind {
                RuleKind::Together => i32::from(count(target) == 0) - i32::from(count(source) == 1),
                RuleKind::AtMost(most) => {
                    i32::from(count(target) >= *most) - i32::from(count(source) > *most)
                }
                RuleKind::Hosts { least, most } => {
                    let now = members.len() as u32;
                    let then = now + u32::from(count(target) == 0) - u32::from(count(source) == 1);
                    hosts_broken(then, *least, *most) as i32 - hosts_broken(now, *least, *most) as i32
                }
                kind => i32::from(!allows(kind, target)) - i32::from(!allows(kind, source)),
            };
            match it.price {
                Some(price) => change += self.price(price) * f64::from(more),
                // An affinity may be broken for a while by who knows that; another rule is named first.
                None if more > 0 && it.kind.is_of_all() => broken = broken.or(Some(rule)),
                None if more > 0 => broken = Some(rule),
                None => {}
            }
        }
        (change, broken)
    }

    fn shift(&mut self, (partition, target): Step) {
        let (partition, target) = (partition as usize, target as usize);
        let source = self.host(partition);
        if source == target {
            return;
        }
        let (left, joined) = self.around(partition, target);
        for (host, change) in [(source, left), (target, joined)] {
            self.sums[host].sent += change.sent;
            self.sums[host].received += change.received;
        }
        self.leave(partition, source);
        self.host_of[partition] = target as u32;
        self.enter(partition, target);
    }

    fn leave(&mut self, partition: usize, host: usize) {
        let snapshot = self.problem.snapshot;
        let it = &snapshot.partitions[partition];
        let slot = self.slot[partition] as usize;
        self.items[host].swap_remove(slot);
        if let Some(moved) = self.items[host].get(slot) {
            self.slot[*moved as usize] = slot as u32;
        }
        if let Some(block) = it.block {
            let blocks = &mut self.blocks[host];
            if let Some(at) = blocks.iter().position(|(known, _)| *known as usize == block) {
                blocks[at].1 -= 1;
                if blocks[at].1 == 0 {
                    blocks.swap_remove(at);
                    self.sums[host].memory -= snapshot.blocks[block];
                }
            }
        }
        for rule in self.problem.rules(partition) {
            let members = &mut self.members[*rule as usize];
            match members.get_mut(&(host as u32)) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(members.remove(&(host as u32))),
            }
        }
        let working = if it.working > 0 && it.working == self.sums[host].working {
            let rest = self.items[host].iter().map(|item| snapshot.partitions[*item as usize].working);
            rest.max().unwrap_or(0)
        } else {
            self.sums[host].working
        };
        let sums = &mut self.sums[host];
        sums.working = working;
        sums.load -= it.load;
        sums.variance = (sums.variance - it.variance).max(0.0);
        sums.memory -= it.memory;
        if self.items[host].is_empty() {
            // Nothing is left of rounding errors.
            *sums = Sums::default();
        }
    }

    fn enter(&mut self, partition: usize, host: usize) {
        let snapshot = self.problem.snapshot;
        let it = &snapshot.partitions[partition];
        self.slot[partition] = self.items[host].len() as u32;
        self.items[host].push(partition as u32);
        if let Some(block) = it.block {
            let blocks = &mut self.blocks[host];
            match blocks.iter_mut().find(|(known, _)| *known as usize == block) {
                Some((_, count)) => *count += 1,
                None => {
                    blocks.push((block as u32, 1));
                    self.sums[host].memory += snapshot.blocks[block];
                }
            }
        }
        for rule in self.problem.rules(partition) {
            *self.members[*rule as usize].entry(host as u32).or_default() += 1;
        }
        let sums = &mut self.sums[host];
        sums.load += it.load;
        sums.variance += it.variance;
        sums.memory += it.memory;
        sums.working = sums.working.max(it.working);
    }
}
