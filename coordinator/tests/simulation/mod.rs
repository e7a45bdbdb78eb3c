//! Clusters from a seed: random ones with every feature of a snapshot, and large ones whose loads are noisy and change.

use coordinator::model::Estimator;
use planner::{
    Edge, Plan, PlanApplication, PlanHost, PlanPartition, Rule, RuleKind, Settings, Snapshot, is_imbalanced,
    loss, plan,
};

/// What the functions here return.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Pseudo-random numbers (xorshift64*, Vigna 2016): a failure is repeated from its seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below a limit above 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    /// One of many.
    pub fn chance(&mut self, one_of: usize) -> bool {
        self.below(one_of) == 0
    }

    /// Normal, mean 0 and deviation 1 (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.share()).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.share()).cos()
    }
}

/// A small cluster in which anything may be wrong: placements that break rules, hosts to be emptied, memory that is tight.
pub fn random_cluster(seed: u64) -> Result<Snapshot> {
    let mut random = Random::new(seed);
    let hosts = 2 + random.below(9);
    let partitions = 1 + random.below(5 * hosts);
    let applications = 1 + random.below(4);
    let tight = random.chance(2);
    let mut snapshot = Snapshot {
        hosts: Vec::new(),
        applications: Vec::new(),
        partitions: Vec::new(),
        edges: Vec::new(),
        blocks: (0..random.below(4)).map(|_| 100 + random.below(400) as u64).collect(),
        rules: Vec::new(),
        sustained_s: 60.0,
        suffered_s: if random.chance(4) { 1.0 } else { 1e6 },
        policy: 0,
        settings: Settings { beta_s_per_byte: 1e-3, latency_s: 1e-5, ..Settings::default() },
    };
    if random.chance(4) {
        snapshot.settings = Settings { beta_s_per_byte: 1e-3, effort: 5, ..Settings::exact() };
    }
    for host in 0..hosts {
        let capacity = 1.0 + random.below(4) as f64;
        snapshot.hosts.push(PlanHost {
            name: format!("h{host}").parse()?,
            capacity,
            alpha: 1.0,
            memory: if tight { 1_500 + random.below(1_500) as u64 } else { 1 << 40 },
            memory_base: random.below(100) as u64,
            reserve: if random.chance(6) { 0.3 * capacity } else { 0.0 },
            closed: random.chance(12).then(|| "maintenance".to_owned()),
            evacuate: random.chance(15),
        });
    }
    for application in 0..applications {
        let quota = if random.chance(5) { 1 + random.below(4) } else { usize::MAX };
        let weight = 0.5 + random.share();
        snapshot.applications.push(PlanApplication {
            id: format!("a-{application}").parse()?,
            weight,
            quota,
        });
    }
    for rank in 0..partitions {
        let load = 0.05 + 0.6 * random.share() * random.share();
        let blocks = snapshot.blocks.len();
        snapshot.partitions.push(PlanPartition {
            application: random.below(applications),
            rank: u32::try_from(rank)?,
            host: random.below(hosts).min(random.below(hosts)),
            load,
            variance: (0.05 * load * random.share()).powi(2),
            samples: if random.chance(20) { 1 } else { 20 },
            memory: 50 + random.below(250) as u64,
            working: random.below(100) as u64,
            block: (blocks > 0 && random.chance(2)).then(|| random.below(blocks)),
            fixed: random.chance(15).then_some("migrate = false in its manifest"),
            cooling_s: if random.chance(15) { 10.0 } else { 0.0 },
            copy_s: random.share(),
            blackout_s: 0.1 * random.share(),
        });
    }
    add_traffic_and_rules(&mut snapshot, &mut random);
    Ok(snapshot)
}

fn add_traffic_and_rules(snapshot: &mut Snapshot, random: &mut Random) {
    let (hosts, partitions) = (snapshot.hosts.len(), snapshot.partitions.len());
    for _ in 0..random.below(3 * partitions) {
        let (from, to) = (random.below(partitions), random.below(partitions));
        let bytes = 100.0 * random.share() * random.share();
        snapshot.edges.push(Edge { from, to, bytes, messages: bytes });
    }
    for rule in 0..random.below(4) {
        let some =
            |random: &mut Random, of: usize| (0..1 + random.below(3)).map(|_| random.below(of)).collect();
        let kind = match random.below(5) {
            4 => {
                let least = 1 + random.below(2) as u32;
                RuleKind::Hosts { least, most: least + random.below(2) as u32 }
            }
            0 => RuleKind::Together,
            1 => RuleKind::AtMost(1 + random.below(2) as u32),
            2 => RuleKind::On(some(random, hosts)),
            _ => RuleKind::NotOn(some(random, hosts)),
        };
        let price = random.chance(2).then(|| random.share());
        let of = some(random, partitions);
        snapshot.rules.push(Rule { name: format!("r{rule}"), kind, partitions: of, price });
    }
}

/// How large a simulated cluster is, and how its jobs talk.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Hosts.
    pub hosts: usize,
    /// Partitions.
    pub partitions: usize,
}

/// A large cluster: jobs of 16 to 1,024 ranks on a torus in three dimensions, placed at random.
pub fn large_cluster(size: Size, seed: u64) -> Result<Snapshot> {
    let mut random = Random::new(seed);
    let mut snapshot = Snapshot {
        hosts: Vec::new(),
        applications: Vec::new(),
        partitions: Vec::new(),
        edges: Vec::new(),
        blocks: Vec::new(),
        rules: Vec::new(),
        sustained_s: 60.0,
        suffered_s: 1e9,
        policy: 0,
        settings: Settings { beta_s_per_byte: 1.0 / 3e9, latency_s: 2e-6, ..Settings::default() },
    };
    for host in 0..size.hosts {
        snapshot.hosts.push(PlanHost {
            name: format!("h{host:05}").parse()?,
            capacity: 16.0,
            alpha: 1.0,
            memory: 64 << 30,
            memory_base: 0,
            reserve: 0.0,
            closed: None,
            evacuate: false,
        });
    }
    while snapshot.partitions.len() < size.partitions {
        let left = size.partitions - snapshot.partitions.len();
        let ranks = (16 << random.below(7)).min(left);
        add_job(&mut snapshot, ranks, &mut random)?;
    }
    Ok(snapshot)
}

fn add_job(snapshot: &mut Snapshot, ranks: usize, random: &mut Random) -> Result<()> {
    let application = snapshot.applications.len();
    let first = snapshot.partitions.len();
    let hosts = snapshot.hosts.len();
    let id = format!("job-{application}").parse()?;
    snapshot.applications.push(PlanApplication { id, weight: 1.0, quota: usize::MAX });
    // A job begins on neighbouring hosts, as a batch system would place it, with strays.
    let corner = random.below(hosts);
    let job = 0.6 + 0.8 * random.share();
    for rank in 0..ranks {
        let load = job * (0.7 + 0.6 * random.share());
        let home = (corner + rank / 8) % hosts;
        snapshot.partitions.push(PlanPartition {
            application,
            rank: u32::try_from(rank)?,
            host: if random.chance(3) { random.below(hosts) } else { home },
            load,
            variance: (0.01 * load).powi(2),
            samples: 20,
            memory: (256 << 20) + ((random.below(1024) as u64) << 20),
            working: 0,
            block: None,
            fixed: None,
            cooling_s: 0.0,
            copy_s: 0.2 + 0.4 * random.share(),
            blackout_s: 0.05,
        });
    }
    let side = (ranks as f64).cbrt().ceil() as usize;
    let bytes = 5e6 + 2e7 * random.share();
    for rank in 0..ranks {
        for step in [1, side, side * side] {
            let peer = (rank + step) % ranks;
            if peer != rank {
                let (from, to) = (first + rank, first + peer);
                snapshot.edges.push(Edge { from, to, bytes, messages: 500.0 });
                snapshot.edges.push(Edge { from: to, to: from, bytes, messages: 500.0 });
            }
        }
    }
    Ok(())
}

/// A cluster whose loads are measured with noise, and the planner that moves its partitions, epoch by epoch.
#[derive(Debug)]
pub struct Simulation {
    snapshot: Snapshot,
    truth: Vec<f64>,
    noise: f64,
    random: Random,
    estimators: Vec<Estimator>,
    /// When each partition moved last, how often it has, and whether its load has changed since.
    moved: Vec<(u64, u32)>,
    left: Vec<Vec<usize>>,
    epoch: u64,
    sustained: u64,
    suffered_s: f64,
    /// Returns of a partition to a host that it had left.
    pub returns: usize,
}

/// Smoothing of loads: changes are found as such, so that it may be slow.
const SMOOTHING_S: f64 = 120.0;
/// Length of an epoch, in seconds.
const EPOCH_S: f64 = 10.0;

impl Simulation {
    /// A cluster with noise, as a share of the load.
    pub fn new(size: Size, noise: f64, seed: u64) -> Result<Self> {
        let snapshot = large_cluster(size, seed)?;
        let truth: Vec<f64> = snapshot.partitions.iter().map(|it| it.load).collect();
        let count = truth.len();
        Ok(Self {
            snapshot,
            truth,
            noise,
            random: Random::new(seed ^ 0xabcd),
            estimators: vec![Estimator::new(SMOOTHING_S); count],
            moved: vec![(0, 0); count],
            left: vec![Vec::new(); count],
            epoch: 0,
            sustained: 0,
            suffered_s: 0.0,
            returns: 0,
        })
    }

    /// True max(load) / mean - 1.
    pub fn imbalance(&self) -> f64 {
        let mut loads = vec![0.0; self.snapshot.hosts.len()];
        self.snapshot.partitions.iter().zip(&self.truth).for_each(|(it, load)| loads[it.host] += load);
        let mean = loads.iter().sum::<f64>() / loads.len() as f64;
        loads.into_iter().fold(0.0, f64::max) / mean - 1.0
    }

    /// The load of everything on a share of the hosts grows by a factor.
    pub fn step_loads(&mut self, share: f64, factor: f64) {
        let hosts = (share * self.snapshot.hosts.len() as f64) as usize;
        for (it, load) in self.snapshot.partitions.iter().zip(&mut self.truth) {
            if it.host < hosts {
                *load *= factor;
            }
        }
    }

    /// Measures, plans, and moves at once. Returns the plan.
    pub fn epoch(&mut self) -> Plan {
        self.epoch += 1;
        for (partition, it) in self.snapshot.partitions.iter_mut().enumerate() {
            let sample = self.truth[partition] * (1.0 + self.noise * self.random.normal());
            let estimator = &mut self.estimators[partition];
            estimator.add(sample.max(0.0), EPOCH_S);
            (it.load, it.variance) = (estimator.mean().max(0.0), estimator.variance_of_mean());
            it.samples = estimator.samples();
            let (at, times) = self.moved[partition];
            let rest = self.snapshot.settings.cooldown_s * f64::from(1_u32 << times.saturating_sub(1).min(9));
            let rested = (self.epoch - at) as f64 * EPOCH_S;
            let rests = times > 0 && !estimator.changed();
            it.cooling_s = if rests { (rest - rested).max(0.0) } else { 0.0 };
        }
        self.suffered_s += EPOCH_S * loss(&self.snapshot);
        self.sustained = if is_imbalanced(&self.snapshot) { self.sustained + 1 } else { 0 };
        self.snapshot.sustained_s = self.sustained as f64 * EPOCH_S;
        self.snapshot.suffered_s = self.suffered_s;
        let plan = plan(&self.snapshot);
        for step in &plan.steps {
            let (partition, host) = (step.partition as usize, step.to as usize);
            self.returns += usize::from(self.left[partition].contains(&host));
            self.left[partition].push(self.snapshot.partitions[partition].host);
            self.snapshot.partitions[partition].host = host;
            self.moved[partition] = (self.epoch, self.moved[partition].1 + 1);
            self.estimators[partition].settle();
            self.suffered_s = 0.0;
        }
        plan
    }
}
