//! A snapshot prepared for planning: who talks to whom at what cost, which rules hold for whom, what could be reached.

use super::snapshot::{Edge, RuleKind, Snapshot};

/// A peer of a partition and what it costs while they are on two hosts, in seconds per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// The peer.
    pub peer: u32,
    /// For what is sent to it.
    pub sent: f64,
    /// For what is received from it.
    pub received: f64,
}

/// A snapshot prepared for planning.
#[derive(Debug)]
pub struct Problem<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    links: Vec<Link>,
    links_start: Vec<u32>,
    rules: Vec<u32>,
    rules_start: Vec<u32>,
    /// Work of a host if all were equal (seconds per second).
    pub mean: f64,
    /// The least gain of one move, in the unit of the potential.
    pub least_gain: f64,
    /// What no placement can go below, per application (seconds per second).
    pub bounds: Vec<f64>,
    /// Moves of one plan, at most.
    pub quota: usize,
}

impl<'a> Problem<'a> {
    /// Prepares a sound snapshot.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let settings = &snapshot.settings;
        let capacity: f64 = snapshot.hosts.iter().map(|host| host.capacity).sum();
        let load: f64 = snapshot.partitions.iter().map(|it| it.load).sum();
        let alpha = snapshot.hosts.iter().map(|host| host.alpha).fold(f64::INFINITY, f64::min);
        let mean = if capacity > 0.0 { load * alpha / capacity } else { 0.0 };
        let lowest = mean * mean * capacity;
        let quota = (settings.moves_share * snapshot.partitions.len() as f64).ceil() as usize;
        let (links, links_start) = links(snapshot);
        let (rules, rules_start) = rules(snapshot);
        Self {
            snapshot,
            links,
            links_start,
            rules,
            rules_start,
            mean,
            least_gain: (settings.least_gain * lowest / snapshot.hosts.len().max(1) as f64).max(1e-15),
            bounds: bounds(snapshot, mean),
            quota: quota.max(settings.moves_least),
        }
    }

    /// The peers of a partition, those that cost most first.
    pub fn links(&self, partition: usize) -> &[Link] {
        &self.links[self.links_start[partition] as usize..self.links_start[partition + 1] as usize]
    }

    /// Indices of the rules about a partition.
    pub fn rules(&self, partition: usize) -> &[u32] {
        &self.rules[self.rules_start[partition] as usize..self.rules_start[partition + 1] as usize]
    }

    /// Does anybody talk to anybody at a cost?
    pub fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Few enough of everything for thorough methods.
    pub fn is_small(&self) -> bool {
        self.snapshot.hosts.len() * self.snapshot.partitions.len() <= 20_000
    }

    /// Predicted cost of moving a partition, in application-seconds.
    pub fn cost_s(&self, partition: usize) -> f64 {
        let it = &self.snapshot.partitions[partition];
        it.blackout_s + self.snapshot.settings.brownout * it.copy_s
    }

    /// Why a partition may never move in this plan, if so.
    pub fn fixed(&self, partition: usize) -> Option<&'static str> {
        self.snapshot.partitions[partition].fixed
    }

    /// The work below which an application's hosts are not relieved any further (seconds per second): near the mean, or
    /// what cannot be gone below.
    pub fn floor(&self, application: usize) -> f64 {
        self.bounds[application].max(self.mean_floor())
    }

    /// The work below which no host is relieved any further (seconds per second).
    pub fn mean_floor(&self) -> f64 {
        self.mean * (1.0 + self.snapshot.settings.stop)
    }

    /// The highest floor of all applications: nothing is to be gained by going below it.
    pub fn floor_max(&self) -> f64 {
        let floors = (0..self.bounds.len()).map(|application| self.floor(application));
        floors.fold(self.mean_floor(), f64::max) * (1.0 + 1e-9)
    }
}

fn links(snapshot: &Snapshot) -> (Vec<Link>, Vec<u32>) {
    let settings = &snapshot.settings;
    let cost = |it: &Edge| it.bytes * settings.beta_s_per_byte + it.messages * settings.latency_s;
    let mut all: Vec<(u32, Link)> = Vec::with_capacity(2 * snapshot.edges.len());
    for edge in snapshot.edges.iter().filter(|it| it.from != it.to && cost(it) > 0.0) {
        let (from, to, cost) = (edge.from as u32, edge.to as u32, cost(edge));
        all.push((from, Link { peer: to, sent: cost, received: 0.0 }));
        all.push((to, Link { peer: from, sent: 0.0, received: cost }));
    }
    all.sort_by_key(|(from, link)| (*from, link.peer));
    all.dedup_by(|(next, more), (from, link)| {
        let same = (*next, more.peer) == (*from, link.peer);
        if same {
            link.sent += more.sent;
            link.received += more.received;
        }
        same
    });
    let start = starts(snapshot.partitions.len(), all.iter().map(|(from, _)| *from));
    for partition in 0..snapshot.partitions.len() {
        let weight = |link: &Link| link.sent.max(link.received);
        all[start[partition] as usize..start[partition + 1] as usize]
            .sort_by(|(_, a), (_, b)| weight(b).total_cmp(&weight(a)).then(a.peer.cmp(&b.peer)));
    }
    (all.into_iter().map(|(_, link)| link).collect(), start)
}

fn rules(snapshot: &Snapshot) -> (Vec<u32>, Vec<u32>) {
    let mut all: Vec<(u32, u32)> = Vec::new();
    for (rule, it) in snapshot.rules.iter().enumerate() {
        all.extend(it.partitions.iter().map(|partition| (*partition as u32, rule as u32)));
    }
    all.sort_unstable();
    all.dedup();
    let start = starts(snapshot.partitions.len(), all.iter().map(|(partition, _)| *partition));
    (all.into_iter().map(|(_, rule)| rule).collect(), start)
}

/// Where each of `count` owners begins in a sorted list.
fn starts(count: usize, owners: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut start = vec![0_u32; count + 1];
    owners.for_each(|owner| start[owner as usize + 1] += 1);
    for index in 0..count {
        start[index + 1] += start[index];
    }
    start
}

/// The mean, the biggest partition beside the least of what may not move, or what may not move: whatever is greatest.
fn bounds(snapshot: &Snapshot, mean: f64) -> Vec<f64> {
    let speed = |it: &super::snapshot::PlanHost| it.alpha / it.capacity;
    let best = snapshot.hosts.iter().map(speed).fold(f64::INFINITY, f64::min);
    let mut stays = vec![0.0; snapshot.hosts.len()];
    for it in snapshot.partitions.iter().filter(|it| it.fixed.is_some()) {
        stays[it.host] += it.load * speed(&snapshot.hosts[it.host]);
    }
    let least = stays.iter().copied().fold(f64::INFINITY, f64::min);
    let mut bounds = vec![mean; snapshot.applications.len()];
    for it in &snapshot.partitions {
        let own = if it.fixed.is_some() { stays[it.host] } else { least + it.load * best };
        bounds[it.application] = bounds[it.application].max(own);
    }
    bounds
}

/// Does a rule about single partitions allow this host?
pub fn allows(kind: &RuleKind, host: usize) -> bool {
    match kind {
        RuleKind::On(hosts) => hosts.contains(&host),
        RuleKind::NotOn(hosts) => !hosts.contains(&host),
        RuleKind::Together | RuleKind::AtMost(_) | RuleKind::Hosts { .. } => true,
    }
}
