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
//! [`checker`] lints a plan with arithmetic of its own.
#![forbid(unsafe_code)]

pub mod checker;
mod choose;
mod decide;
mod explain;
mod gates;
mod greedy;
mod layout;
mod order;
mod plan;
mod problem;
mod repair;
mod search;
mod snapshot;

pub use explain::percent;
pub use order::Ordered;
pub use plan::Plan;
pub use snapshot::{
    Edge, FIXED, POLICY_VERSION, PlanApplication, PlanHost, PlanPartition, Rule, RuleKind, Settings, Snapshot,
};

use control::ApplicationExplanation;

use layout::Layout;
use problem::Problem;

/// Loss from imbalance in application-seconds per second: what a perfect placement would save, by weight.
pub fn loss(snapshot: &Snapshot) -> f64 {
    if !snapshot.is_sound() {
        return 0.0;
    }
    let problem = Problem::new(snapshot);
    Layout::new(&problem).loss()
}

/// Does the snapshot call for a plan (before asking for how long that has lasted)?
pub fn is_imbalanced(snapshot: &Snapshot) -> bool {
    if !snapshot.is_sound() {
        return false;
    }
    let problem = Problem::new(snapshot);
    let layout = Layout::new(&problem);
    layout.excess() > snapshot.settings.imbalance && layout.work_max() >= snapshot.settings.least_utilisation
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
    let decision = decide::decide(&start);
    explain::explained(&start, decision)
}

/// Why an application runs where it does: its gates, the best moves of its partitions, and what holds them.
pub fn explain_application(snapshot: &Snapshot, application: usize) -> Option<ApplicationExplanation> {
    if application >= snapshot.applications.len() || !snapshot.is_sound() {
        return None;
    }
    let problem = Problem::new(snapshot);
    Some(explain::application(&Layout::new(&problem), plan(snapshot), application))
}

#[cfg(test)]
mod tests;
