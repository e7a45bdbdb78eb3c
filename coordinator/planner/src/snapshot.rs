//! What a plan depends on, and nothing else: hosts, partitions, traffic, rules, and thresholds.

use std::hash::Hasher;

use control::{ApplicationId, HostName, Rank};
use serde::{Deserialize, Deserializer, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// Version of the planner itself, shown with every plan: with it and the hash of the inputs a plan can be made again.
pub const POLICY_VERSION: u32 = 3;

/// Thresholds and prices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Plan when the busiest host is above what could be reached by this share.
    pub imbalance: f64,
    /// Do not go on when it is above by less than this share.
    pub stop: f64,
    /// Plan when the imbalance has lasted this long, in seconds.
    pub sustain_s: f64,
    /// A partition rests after a move: this long, twice as long after the next, and so on. Used by who makes snapshots.
    pub cooldown_s: f64,
    /// A gain has to be this many standard errors above the least gain.
    pub significance: f64,
    /// The least gain of one move, as a share of an average host's part of the lowest potential.
    pub least_gain: f64,
    /// Below this no host is worth relieving (busy seconds per second).
    pub least_utilisation: f64,
    /// A move has to pay for itself `payback_factor` times within this time, in seconds.
    pub horizon_s: f64,
    /// See `horizon_s`; a plan runs when the loss suffered since the last one is its cost times this.
    pub payback_factor: f64,
    /// Samples of load that a partition must have.
    pub least_samples: u32,
    /// Seconds that a byte between two hosts costs; measured.
    pub beta_s_per_byte: f64,
    /// Seconds that a message between two hosts costs, beside its bytes; measured.
    pub latency_s: f64,
    /// Weight of the mean work of an application's hosts against that of the hottest: programs are not strictly
    /// bulk-synchronous, and where several hosts are equally hot each relief counts.
    pub mean_share: f64,
    /// Share of its speed that a partition loses while it is copied.
    pub brownout: f64,
    /// Largest share of the partitions that one plan moves.
    pub moves_share: f64,
    /// But so many in any case.
    pub moves_least: usize,
    /// Moves that may be under way at once.
    pub at_once: usize,
    /// Out of or into one host at once.
    pub at_once_per_host: usize,
    /// Must both hosts have room while a partition moves? Not so for a problem on paper.
    pub transient: bool,
    /// Rounds of perturbation and repair on small problems; 0 for none.
    pub effort: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            imbalance: 0.15,
            stop: 0.05,
            sustain_s: 5.0,
            cooldown_s: 60.0,
            significance: 4.0,
            least_gain: 0.005,
            least_utilisation: 0.1,
            horizon_s: 600.0,
            payback_factor: 2.0,
            least_samples: 3,
            // Ten gigabits a second, until somebody has measured it.
            beta_s_per_byte: 1e-9,
            latency_s: 0.0,
            mean_share: 0.10,
            brownout: 0.10,
            moves_share: 0.04,
            moves_least: 8,
            at_once: 4,
            at_once_per_host: 2,
            transient: true,
            effort: 0,
        }
    }
}

impl Settings {
    /// For a problem on paper, where loads are exact and moves are free: only what does not help is left out.
    pub fn exact() -> Self {
        Self {
            imbalance: 0.0,
            sustain_s: 0.0,
            cooldown_s: 0.0,
            significance: 0.0,
            least_gain: 1e-9,
            least_utilisation: 0.0,
            horizon_s: 1.0,
            payback_factor: 0.0,
            mean_share: 0.0,
            least_samples: 0,
            moves_share: 1.0,
            at_once: usize::MAX,
            at_once_per_host: usize::MAX,
            transient: false,
            effort: 300,
            ..Self::default()
        }
    }
}

/// A host that may have partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanHost {
    /// Its name.
    pub name: HostName,
    /// Processors, times their speed.
    pub capacity: f64,
    /// Seconds lost per second of load per processor (alpha); 1, unless a model says otherwise.
    pub alpha: f64,
    /// Memory for partitions, in bytes.
    pub memory: u64,
    /// Part of it that is taken by what is not in this snapshot, in bytes.
    pub memory_base: u64,
    /// Processors that moves have to leave free here.
    pub reserve: f64,
    /// Why nothing may be moved here, if so.
    pub closed: Option<String>,
    /// Everything has to leave: it is being drained, or failing.
    pub evacuate: bool,
}

/// An application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanApplication {
    /// Its identity.
    pub id: ApplicationId,
    /// What a second of it is worth, against the others'.
    pub weight: f64,
    /// Moves of one plan, at most.
    pub quota: usize,
}

/// One of few fixed texts.
pub type Reason = &'static str;

/// A partition that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanPartition {
    /// Index of its application.
    pub application: usize,
    /// Rank.
    pub rank: Rank,
    /// Index of its host.
    pub host: usize,
    /// Load.
    pub load: f64,
    /// Variance of `load` as an estimate.
    pub variance: f64,
    /// Samples behind it.
    pub samples: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// Memory of which a host needs only that of the partition that needs most, in bytes.
    pub working: u64,
    /// Index of the block of memory that it shares with the others of that block on its host.
    pub block: Option<usize>,
    /// Why it may not move, if so.
    #[serde(deserialize_with = "recorded_reason")]
    pub fixed: Option<Reason>,
    /// Seconds of rest left after its last moves.
    pub cooling_s: f64,
    /// Predicted seconds of copying.
    pub copy_s: f64,
    /// Predicted blackout in seconds.
    pub blackout_s: f64,
}

/// Why a partition of a recorded snapshot may not move: that it may not is what plans depend on, the words are not kept.
fn recorded_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'static str>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| {
        let known = FIXED.iter().find(|known| **known == text);
        known.copied().unwrap_or("it could not move when this was recorded")
    }))
}

/// Reasons why a partition may not move.
pub const FIXED: [&str; 4] = [
    "migrate = false in its manifest",
    "its application is still starting",
    "it is moving",
    "it is not running",
];

/// Traffic from a partition to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Index of the sender.
    pub from: usize,
    /// Index of the receiver.
    pub to: usize,
    /// Bytes per second.
    pub bytes: f64,
    /// Messages per second.
    pub messages: f64,
}

/// What a rule asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RuleKind {
    /// Affinity: all on one host.
    Together,
    /// So many on one host at most: anti-affinity if that is 1, licences.
    AtMost(u32),
    /// On so many hosts.
    Hosts {
        /// At least.
        least: u32,
        /// At most.
        most: u32,
    },
    /// A pin: only on these hosts (indices).
    On(Vec<usize>),
    /// Never on these hosts (indices).
    NotOn(Vec<usize>),
}

impl RuleKind {
    /// Is it about all of its partitions together, so that it may be broken while several moves that keep it are under way?
    pub fn is_of_all(&self) -> bool {
        matches!(self, RuleKind::Together | RuleKind::Hosts { .. })
    }
}

/// A rule of the administrator or of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// What it is called in explanations.
    pub name: String,
    /// What it asks for.
    pub kind: RuleKind,
    /// Of which partitions (indices).
    pub partitions: Vec<usize>,
    /// Seconds per second that breaking it once costs; `None`: it must not be broken.
    pub price: Option<f64>,
}

/// Everything that a plan depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Hosts, by name.
    pub hosts: Vec<PlanHost>,
    /// Applications, by id.
    pub applications: Vec<PlanApplication>,
    /// Partitions, by application and rank.
    pub partitions: Vec<PlanPartition>,
    /// Traffic.
    pub edges: Vec<Edge>,
    /// Blocks of memory shared on a host, in bytes.
    pub blocks: Vec<u64>,
    /// Rules.
    pub rules: Vec<Rule>,
    /// For how long the imbalance has been above its threshold, in seconds.
    pub sustained_s: f64,
    /// Loss from imbalance since the last plan ran, in application-seconds: the sum over time of [`super::loss`].
    pub suffered_s: f64,
    /// Version of the administrator's policy that the rules and thresholds are from; 0 if there is none.
    pub policy: u64,
    /// Thresholds.
    pub settings: Settings,
}

impl Snapshot {
    /// Whether every index in it exists and every number is one; the planner takes no other.
    pub fn is_sound(&self) -> bool {
        let (hosts, partitions) = (self.hosts.len(), self.partitions.len());
        let number = |value: f64| value.is_finite() && value >= 0.0;
        let host = |it: &PlanHost| {
            it.capacity > 0.0 && number(it.capacity) && number(it.alpha) && number(it.reserve)
        };
        let partition = |it: &PlanPartition| {
            it.application < self.applications.len()
                && it.host < hosts
                && it.block.is_none_or(|block| block < self.blocks.len())
                && [it.load, it.variance, it.cooling_s, it.copy_s, it.blackout_s].into_iter().all(number)
        };
        let edge =
            |it: &Edge| it.from < partitions && it.to < partitions && number(it.bytes) && number(it.messages);
        let rule = |it: &Rule| {
            let known = match &it.kind {
                RuleKind::On(names) | RuleKind::NotOn(names) => names.iter().all(|name| *name < hosts),
                RuleKind::Together | RuleKind::AtMost(_) | RuleKind::Hosts { .. } => true,
            };
            known && it.partitions.iter().all(|name| *name < partitions) && it.price.is_none_or(number)
        };
        let memory = self.partitions.iter().map(|it| u128::from(it.memory) + u128::from(it.working));
        let shared =
            self.partitions.iter().filter_map(|it| self.blocks.get(it.block?)).map(|it| u128::from(*it));
        u32::try_from(hosts.max(partitions)).is_ok()
            && u32::try_from(self.blocks.len().max(self.edges.len())).is_ok()
            && memory.chain(shared).sum::<u128>() < u128::from(u64::MAX)
            && self.hosts.iter().all(host)
            && self.applications.iter().all(|it| number(it.weight))
            && self.partitions.iter().all(partition)
            && self.edges.iter().all(edge)
            && self.rules.iter().all(rule)
    }

    /// A hash of everything that a plan depends on (XXH3, 64 bits), as 16 hexadecimal digits.
    pub fn hash(&self) -> String {
        let mut hash = Xxh3::new();
        let mut number = |value: f64| hash.write_u64(value.to_bits());
        [self.sustained_s, self.suffered_s].into_iter().for_each(&mut number);
        for it in &self.partitions {
            [it.load, it.variance, it.cooling_s, it.copy_s, it.blackout_s].into_iter().for_each(&mut number);
        }
        self.edges.iter().flat_map(|it| [it.bytes, it.messages]).for_each(&mut number);
        for it in &self.partitions {
            let block = it.block.map_or(u64::MAX, |block| block as u64);
            let numbers = [it.application as u64, u64::from(it.rank), it.host as u64, it.memory, it.working];
            numbers.into_iter().chain([block, u64::from(it.samples)]).for_each(|it| hash.write_u64(it));
            hash.write(it.fixed.unwrap_or_default().as_bytes());
        }
        self.edges.iter().flat_map(|it| [it.from, it.to]).for_each(|it| hash.write_usize(it));
        self.blocks.iter().for_each(|it| hash.write_u64(*it));
        // Few enough for their text to cost nothing.
        hash.write(
            format!("{:?}", (&self.applications, &self.rules, &self.settings, self.policy)).as_bytes(),
        );
        for it in &self.hosts {
            hash.write(it.name.as_str().as_bytes());
            hash.write(it.closed.as_deref().unwrap_or_default().as_bytes());
            [it.capacity, it.alpha, it.reserve].into_iter().for_each(|it| hash.write_u64(it.to_bits()));
            [it.memory, it.memory_base, u64::from(it.evacuate)].into_iter().for_each(|it| hash.write_u64(it));
        }
        format!("{:016x}", hash.finish())
    }
}
