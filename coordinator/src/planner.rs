//! Decides which partition to move where: a pure function of a snapshot, with the reasons for its decision or for none.
//!
//! It lowers the potential Phi = sum over hosts of L^2 / c (L: load, c: processors), which is lowest when every processor is
//! equally busy, and falls with every accepted move, so that no placement comes back while loads stay the same. Candidates
//! are moves and swaps from the hosts above the mean, hottest first. A move has to pass every gate: significant against the
//! noise of the loads, no worse a destination than the source was, room in memory, paid back soon, not cooling down.
//! Ties go by names, so that equal snapshots give equal plans.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use control::{ApplicationId, CandidateView, GateView, HostName, PlannedMove, Rank};

/// Candidates that are shown.
const SHOWN: usize = 5;
/// Share of its speed that a partition loses while it is copied.
const BROWNOUT: f64 = 0.10;

/// Thresholds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Plan when max / mean - 1 is above this.
    pub imbalance: f64,
    /// And has been for this long, in seconds.
    pub sustain_s: f64,
    /// A partition rests after a move: this long, twice as long after the next, and so on.
    pub cooldown_s: f64,
    /// A gain has to be this many standard errors above the least gain.
    pub significance: f64,
    /// The least gain, as a share of the potential.
    pub least_gain: f64,
    /// Below this utilisation no host is worth relieving.
    pub least_utilisation: f64,
    /// A move has to pay for itself `payback_factor` times within this time, in seconds.
    pub horizon_s: f64,
    /// See `horizon_s`.
    pub payback_factor: f64,
    /// Samples of load that a partition must have.
    pub least_samples: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            imbalance: 0.15,
            sustain_s: 5.0,
            cooldown_s: 30.0,
            significance: 4.0,
            least_gain: 0.01,
            least_utilisation: 0.1,
            horizon_s: 120.0,
            payback_factor: 2.0,
            least_samples: 3,
        }
    }
}

/// A host that may have partitions.
#[derive(Clone, Debug)]
pub struct PlanHost {
    /// Its name.
    pub name: HostName,
    /// Processors.
    pub capacity: f64,
    /// Memory that is not taken, in bytes.
    pub memory_free: u64,
}

/// A partition that runs.
#[derive(Clone, Debug)]
pub struct PlanPartition {
    /// Application.
    pub application: ApplicationId,
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
    /// Why it may not move, if so.
    pub fixed: Option<&'static str>,
    /// Seconds of rest left after its last moves.
    pub cooling_s: f64,
    /// Predicted seconds of copying.
    pub copy_s: f64,
    /// Predicted blackout in seconds.
    pub blackout_s: f64,
}

/// Everything that a plan depends on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Hosts, by name.
    pub hosts: Vec<PlanHost>,
    /// Partitions, by application and rank.
    pub partitions: Vec<PlanPartition>,
    /// For how long the imbalance has been above its threshold, in seconds.
    pub sustained_s: f64,
    /// Thresholds.
    pub settings: Settings,
}

/// A decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// max(utilisation) / mean - 1; 0 if there is nothing to balance.
    pub imbalance: f64,
    /// The potential.
    pub potential: f64,
    /// Conditions for moving anything.
    pub gates: Vec<GateView>,
    /// What to do: nothing, a move, or the two moves of a swap.
    pub moves: Vec<PlannedMove>,
    /// Why.
    pub explanation: String,
    /// The best candidates.
    pub candidates: Vec<CandidateView>,
}

/// Loads per host.
#[derive(Clone, Debug)]
struct Loads {
    load: Vec<f64>,
    variance: Vec<f64>,
    mean: f64,
}

impl Loads {
    fn of(snapshot: &Snapshot) -> Self {
        let mut load = vec![0.0; snapshot.hosts.len()];
        let mut variance = vec![0.0; snapshot.hosts.len()];
        for partition in &snapshot.partitions {
            if let (Some(load), Some(variance)) =
                (load.get_mut(partition.host), variance.get_mut(partition.host))
            {
                *load += partition.load;
                *variance += partition.variance;
            }
        }
        let capacity: f64 = snapshot.hosts.iter().map(|host| host.capacity).sum();
        let mean = if capacity > 0.0 { load.iter().sum::<f64>() / capacity } else { 0.0 };
        Self { load, variance, mean }
    }

    fn utilisation(&self, snapshot: &Snapshot, host: usize) -> f64 {
        self.load[host] / snapshot.hosts[host].capacity
    }
}

/// The imbalance of hosts with these loads: (max(utilisation) / mean - 1, max(utilisation)).
fn imbalance(snapshot: &Snapshot, loads: &Loads) -> (f64, f64) {
    let hottest = (0..snapshot.hosts.len()).map(|host| loads.utilisation(snapshot, host)).fold(0.0, f64::max);
    (if loads.mean > 0.0 { hottest / loads.mean - 1.0 } else { 0.0 }, hottest)
}

/// The imbalance of a snapshot and whether it calls for a plan (before asking for how long it has lasted).
pub fn is_imbalanced(snapshot: &Snapshot) -> bool {
    let (imbalance, hottest) = imbalance(snapshot, &Loads::of(snapshot));
    imbalance > snapshot.settings.imbalance && hottest >= snapshot.settings.least_utilisation
}

/// Plans.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let loads = Loads::of(snapshot);
    let settings = &snapshot.settings;
    let (imbalance, hottest) = imbalance(snapshot, &loads);
    let potential =
        snapshot.hosts.iter().zip(&loads.load).map(|(host, load)| load * load / host.capacity).sum();
    let gates = vec![
        at_least("imbalance", imbalance, settings.imbalance),
        at_least("hottest utilisation", hottest, settings.least_utilisation),
        at_least("sustained seconds", snapshot.sustained_s, settings.sustain_s),
    ];
    let mut candidates = candidates(snapshot, &loads, potential);
    candidates.sort_by(order);
    let failed = gates.iter().find(|gate| !gate.pass);
    let chosen = candidates.iter().find(|it| accepted(it) && it.view.swap_with.is_none());
    let chosen = chosen.or_else(|| candidates.iter().find(|it| accepted(it)));
    let (moves, explanation) = match (failed, chosen) {
        _ if snapshot.partitions.is_empty() => (Vec::new(), "no partition runs".to_owned()),
        (Some(gate), _) => (Vec::new(), format!("no move: {}", describe(gate))),
        (None, None) => (Vec::new(), explain_nothing(&candidates)),
        (None, Some(chosen)) => (chosen.moves(snapshot, imbalance), explain_move(&chosen.view, imbalance)),
    };
    let candidates = candidates.into_iter().take(SHOWN).map(|it| it.view).collect();
    Plan { imbalance, potential, gates, moves, explanation, candidates }
}

#[derive(Clone, Debug)]
struct Candidate {
    view: CandidateView,
    /// Index of the partition that comes back, for a swap.
    back: Option<usize>,
}

fn accepted(candidate: &Candidate) -> bool {
    candidate.view.verdict == "accepted"
}

/// Highest gain first, then by names.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    let key = |it: &CandidateView| (it.application.clone(), it.rank, it.to.clone(), it.swap_with.clone());
    b.view.gain.total_cmp(&a.view.gain).then_with(|| key(&a.view).cmp(&key(&b.view)))
}

fn candidates(snapshot: &Snapshot, loads: &Loads, potential: f64) -> Vec<Candidate> {
    let mut by_host: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, partition) in snapshot.partitions.iter().enumerate() {
        by_host.entry(partition.host).or_default().push(index);
    }
    let mut found = Vec::new();
    for source in 0..snapshot.hosts.len() {
        if loads.utilisation(snapshot, source) <= loads.mean {
            continue;
        }
        for &index in by_host.get(&source).into_iter().flatten() {
            for target in (0..snapshot.hosts.len()).filter(|target| *target != source) {
                if loads.utilisation(snapshot, target) >= loads.utilisation(snapshot, source) {
                    continue;
                }
                let backs = by_host.get(&target).into_iter().flatten().map(|back| Some(*back));
                let lighter = |back: &Option<usize>| {
                    back.is_none_or(|back| snapshot.partitions[back].load < snapshot.partitions[index].load)
                };
                for back in [None].into_iter().chain(backs).filter(lighter) {
                    found.push(evaluate(snapshot, loads, potential, index, target, back));
                }
            }
        }
    }
    found
}

fn evaluate(
    snapshot: &Snapshot,
    loads: &Loads,
    potential: f64,
    index: usize,
    target: usize,
    back: Option<usize>,
) -> Candidate {
    let settings = &snapshot.settings;
    let partition = &snapshot.partitions[index];
    let returning = back.map(|back| &snapshot.partitions[back]);
    let source = partition.host;
    let (from, to) = (&snapshot.hosts[source], &snapshot.hosts[target]);
    let load = partition.load - returning.map_or(0.0, |it| it.load);
    let (source_load, target_load) = (loads.load[source], loads.load[target]);
    let square = |load: f64, capacity: f64| load * load / capacity;
    let gain = square(source_load, from.capacity) + square(target_load, to.capacity)
        - square(source_load - load, from.capacity)
        - square(target_load + load, to.capacity);
    let noise = loads.variance[source] / from.capacity.powi(2) + loads.variance[target] / to.capacity.powi(2);
    let gain_error = 2.0 * load * noise.sqrt();
    let source_utilisation = (source_load / from.capacity, (source_load - load) / from.capacity);
    let destination_utilisation = (target_load / to.capacity, (target_load + load) / to.capacity);
    let after = source_utilisation.1.max(destination_utilisation.1);
    // The source's applications go faster by this many seconds per second.
    let rate = if source_utilisation.0 > 0.0 { 1.0 - after / source_utilisation.0 } else { 0.0 };
    let cost_of = |it: &PlanPartition| it.blackout_s + BROWNOUT * it.copy_s;
    let cost_s = cost_of(partition) + returning.map_or(0.0, cost_of);
    let payback_s = (rate > 0.0).then(|| cost_s / rate);
    let both = |f: fn(&PlanPartition) -> f64| returning.map_or(f(partition), |it| f(partition).max(f(it)));
    let least = settings.least_gain * potential + settings.significance * gain_error;
    let samples = returning.map_or(partition.samples, |it| it.samples.min(partition.samples));
    let gates = vec![
        at_most(
            "may move",
            f64::from(u8::from(partition.fixed.or(returning.and_then(|it| it.fixed)).is_some())),
            0.0,
        ),
        at_least("load samples", f64::from(samples), f64::from(settings.least_samples)),
        at_most("destination after", destination_utilisation.1, source_utilisation.0),
        at_least("gain", gain, least),
        at_least("free memory MiB", (to.memory_free >> 20) as f64, (partition.memory >> 20) as f64),
        at_most("cooling seconds", both(|it| it.cooling_s), 0.0),
        at_most(
            "payback seconds",
            payback_s.unwrap_or(f64::MAX),
            settings.horizon_s / settings.payback_factor,
        ),
    ];
    let verdict = match gates.iter().find(|gate| !gate.pass) {
        None => "accepted".to_owned(),
        Some(gate) if gate.name == "may move" => {
            partition.fixed.or(returning.and_then(|it| it.fixed)).unwrap_or_default().to_owned()
        }
        Some(gate) => describe(gate),
    };
    let view = CandidateView {
        application: partition.application.clone(),
        rank: partition.rank,
        from: from.name.clone(),
        to: to.name.clone(),
        swap_with: returning.map(|it| (it.application.clone(), it.rank)),
        load,
        source_utilisation,
        destination_utilisation,
        gain,
        gain_error,
        cost_s,
        payback_s,
        gates,
        verdict,
    };
    Candidate { view, back }
}

impl Candidate {
    fn moves(&self, snapshot: &Snapshot, imbalance: f64) -> Vec<PlannedMove> {
        let view = &self.view;
        let reason = explain_move(view, imbalance);
        let there = PlannedMove {
            application: view.application.clone(),
            rank: view.rank,
            from: view.from.clone(),
            to: view.to.clone(),
            reason: reason.clone(),
            explanation: view.clone(),
        };
        let back = self.back.map(|back| {
            let partition = &snapshot.partitions[back];
            PlannedMove {
                application: partition.application.clone(),
                rank: partition.rank,
                from: view.to.clone(),
                to: view.from.clone(),
                reason,
                explanation: view.clone(),
            }
        });
        [there].into_iter().chain(back).collect()
    }
}

fn percent(share: f64) -> f64 {
    100.0 * share
}

fn explain_move(view: &CandidateView, imbalance: f64) -> String {
    let what = match &view.swap_with {
        None => format!("rank {} (load {:.2})", view.rank, view.load),
        Some((application, rank)) => {
            format!("rank {} for rank {rank} of {application} (load {:.2})", view.rank, view.load)
        }
    };
    format!(
        "imbalance {:.0} %: {what} from {} ({:.0} % -> {:.0} %) to {} ({:.0} % -> {:.0} %), pays back in {:.1} s",
        percent(imbalance),
        view.from,
        percent(view.source_utilisation.0),
        percent(view.source_utilisation.1),
        view.to,
        percent(view.destination_utilisation.0),
        percent(view.destination_utilisation.1),
        view.payback_s.unwrap_or(0.0),
    )
}

fn explain_nothing(candidates: &[Candidate]) -> String {
    match candidates.first() {
        None => "no move: no partition of a host above the mean could go to one below".to_owned(),
        Some(best) => format!(
            "no move: no candidate passes; the best, rank {} of {} from {} to {}, fails: {}",
            best.view.rank, best.view.application, best.view.from, best.view.to, best.view.verdict
        ),
    }
}

fn describe(gate: &GateView) -> String {
    let opposite = if gate.relation == ">=" { "below" } else { "above" };
    if gate.value >= f64::MAX {
        return format!("{}: never", gate.name);
    }
    format!("{} {:.3} is {opposite} {:.3}", gate.name, gate.value, gate.threshold)
}

fn at_least(name: &str, value: f64, threshold: f64) -> GateView {
    GateView { name: name.to_owned(), value, threshold, relation: ">=".to_owned(), pass: value >= threshold }
}

fn at_most(name: &str, value: f64, threshold: f64) -> GateView {
    GateView { name: name.to_owned(), value, threshold, relation: "<=".to_owned(), pass: value <= threshold }
}

#[cfg(test)]
mod tests;
