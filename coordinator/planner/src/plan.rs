//! What the planner gives.

use control::{CandidateView, GateView, PlannedMove};

use super::order::Ordered;

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
