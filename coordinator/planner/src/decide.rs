//! What has to move, what else pays, and the gates of both.

use super::choose;
use super::gates::Gate;
use super::layout::Layout;
use super::repair;
use super::search::Action;

/// What was found before it is explained.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Name of the way.
    pub algorithm: &'static str,
    /// With what asks for a mandatory action.
    pub actions: Vec<(Action, Option<String>)>,
    /// In application-seconds.
    pub cost_s: f64,
    /// Conditions for moving anything.
    pub gates: Vec<Gate>,
    /// What has to move and cannot.
    pub stuck: Vec<String>,
}

impl Decision {
    /// The first gate that holds.
    pub fn failed(&self) -> Option<&Gate> {
        self.gates.iter().find(|gate| !gate.passes())
    }
}

/// Decides, starting from where everything is.
pub fn decide(start: &Layout<'_>) -> Decision {
    let problem = start.problem;
    let (snapshot, settings) = (problem.snapshot, &problem.snapshot.settings);
    let mut layout = start.clone();
    let repair = repair::repair(&mut layout);
    let mut decision = Decision { stuck: repair.stuck, ..Decision::default() };
    decision.gates = vec![
        Gate::at_least("imbalance", layout.excess(), settings.imbalance),
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
