//! Decides which partitions to move where: a pure function of a snapshot, with the reasons for its decision or for none.
//!
//! ```text
//! snapshot -> problem -> repair (what has to move) -> ways (refine, swaps, groups, locality, GreedyRefine, perturbation)
//!     -> the way and prefix of greatest value -> gates of the plan -> order in waves -> explanation
//! ```
//! It lowers the potential Phi = sum over hosts of c W^2, W = alpha L / c + beta max(sent, received) (L: load, c: processors,
//! beta: seconds per byte), by at least the least gain with every action that passes its gates. So, while loads stay the same,
//! no placement comes back and the moves end (at most (Phi - lowest Phi) / least gain). With noisy loads the same holds as long
//! as no estimate is off by more than `significance` standard errors. With loads that drift, the gate on the loss suffered
//! makes moves cost at most 1 / `payback_factor` of what imbalance has cost (rent or buy). An application is as fast as its
//! hottest host (bulk-synchronous), which is what plans are scored by. Ties go by index, so that equal snapshots give equal plans.

mod choose;
mod explain;
mod gates;
mod greedy;
mod layout;
mod order;
mod problem;
mod repair;
mod search;
mod snapshot;

pub use explain::{explain_application, percent};
pub use order::Ordered;
pub use snapshot::{
    Edge, FIXED, POLICY_VERSION, PlanApplication, PlanHost, PlanPartition, Rule, RuleKind, Settings, Snapshot,
};

use control::{CandidateView, GateView, PlannedMove};

use gates::Gate;
use layout::Layout;
use problem::Problem;
use search::Action;

/// A decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// max(load / processors) / mean - 1; 0 if there is nothing to balance.
    pub imbalance: f64,
    /// And after the plan, as predicted.
    pub imbalance_after: f64,
    /// The potential.
    pub potential: f64,
    /// Greatest work of a host now, in seconds lost per second.
    pub work_max: f64,
    /// And after the plan, as predicted.
    pub work_max_after: f64,
    /// Loss from imbalance, in application-seconds per second.
    pub loss: f64,
    /// Predicted cost of the plan, in application-seconds.
    pub cost_s: f64,
    /// Conditions for moving anything.
    pub gates: Vec<GateView>,
    /// What to do, in this order, by index.
    pub steps: Vec<Ordered>,
    /// Moves that are made whatever they cost, among `steps`.
    pub mandatory: usize,
    /// The same, for execution.
    pub moves: Vec<PlannedMove>,
    /// How it was found.
    pub algorithm: &'static str,
    /// Why.
    pub explanation: String,
    /// The best candidates that were not chosen.
    pub candidates: Vec<CandidateView>,
    /// Hash of the snapshot.
    pub inputs_hash: String,
}

/// What was found before it is explained.
#[derive(Clone, Debug, Default)]
struct Decision {
    algorithm: &'static str,
    /// With what asks for a mandatory action.
    actions: Vec<(Action, Option<String>)>,
    cost_s: f64,
    gates: Vec<Gate>,
    stuck: Vec<String>,
}

impl Decision {
    fn failed(&self) -> Option<&Gate> {
        self.gates.iter().find(|gate| !gate.passes())
    }
}

/// Loss from imbalance in application-seconds per second: what a perfect placement would save, by weight.
pub fn loss(snapshot: &Snapshot) -> f64 {
    if !snapshot.is_sound() {
        return 0.0;
    }
    let problem = Problem::new(snapshot);
    loss_of(&Layout::new(&problem))
}

fn loss_of(layout: &Layout<'_>) -> f64 {
    let problem = layout.problem;
    let lost = |(index, time): (usize, f64)| {
        let weight = problem.snapshot.applications[index].weight;
        if time > problem.bounds[index] { weight * (1.0 - problem.bounds[index] / time) } else { 0.0 }
    };
    layout.times().into_iter().enumerate().map(lost).sum()
}

/// max(T / lowest possible T) - 1 over the applications.
fn excess(layout: &Layout<'_>) -> f64 {
    let times = layout.times();
    let shares = times.iter().zip(&layout.problem.bounds).filter(|(time, _)| **time > 0.0);
    shares.map(|(time, bound)| time / bound.max(f64::MIN_POSITIVE) - 1.0).fold(0.0, f64::max)
}

/// Does the snapshot call for a plan (before asking for how long that has lasted)?
pub fn is_imbalanced(snapshot: &Snapshot) -> bool {
    if !snapshot.is_sound() {
        return false;
    }
    let problem = Problem::new(snapshot);
    let layout = Layout::new(&problem);
    excess(&layout) > snapshot.settings.imbalance && layout.work_max() >= snapshot.settings.least_utilisation
}

/// The hard rule that a move would break, or break more than it is; an affinity or a number of hosts may be on the way
/// of several moves.
pub fn broken_by(snapshot: &Snapshot, partition: usize, host: usize) -> Option<String> {
    let known = partition < snapshot.partitions.len() && host < snapshot.hosts.len();
    if !known || !snapshot.is_sound() {
        return None;
    }
    let problem = Problem::new(snapshot);
    let rule = Layout::new(&problem).broken_by((partition as u32, host as u32))?;
    let rule = snapshot.rules.get(rule as usize)?;
    (!rule.kind.is_of_all()).then(|| rule.name.clone())
}

/// Plans.
pub fn plan(snapshot: &Snapshot) -> Plan {
    if !snapshot.is_sound() {
        return explain::unsound(snapshot);
    }
    let problem = Problem::new(snapshot);
    let start = Layout::new(&problem);
    let decision = decide(&start);
    explain::explained(&start, decision)
}

fn decide(start: &Layout<'_>) -> Decision {
    let problem = start.problem;
    let (snapshot, settings) = (problem.snapshot, &problem.snapshot.settings);
    let mut layout = start.clone();
    let repair = repair::repair(&mut layout);
    let mut decision = Decision { stuck: repair.stuck, ..Decision::default() };
    decision.gates = vec![
        Gate::at_least("imbalance", excess(&layout), settings.imbalance),
        Gate::at_least("hottest utilisation", layout.work_max(), settings.least_utilisation),
        Gate::at_least("sustained seconds", snapshot.sustained_s, settings.sustain_s),
    ];
    if !repair.actions.is_empty() {
        decision.algorithm = "repair";
    }
    decision.actions = repair.actions.into_iter().map(|(action, reason)| (action, Some(reason))).collect();
    let taken: usize = decision.actions.iter().map(|(action, _)| action.len()).sum();
    let quota = problem.quota.saturating_sub(taken);
    if decision.failed().is_none() && quota > 0 {
        match choose::choose(&layout, quota) {
            Some(way) => {
                let paid = Gate::at_least(
                    "loss suffered",
                    snapshot.suffered_s,
                    settings.payback_factor * way.cost_s,
                );
                decision.gates.push(paid);
                if paid.passes() {
                    decision.cost_s = way.cost_s;
                    decision.actions.extend(way.actions.into_iter().map(|action| (action, None)));
                    decision.algorithm = way.name;
                }
            }
            None => decision.gates.push(Gate::at_least("plans worth their cost", 0.0, 1.0)),
        }
    }
    decision
}

#[cfg(test)]
mod tests;
