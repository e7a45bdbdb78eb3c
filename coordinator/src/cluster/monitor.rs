//! What monitoring reads from the cluster.

use control::{ApplicationId, Epoch, Rank, TrafficPair, TrafficView};

use super::{Cluster, ClusterError};
use crate::metrics::{Measured, Observed, Planned};
use crate::model::{Flow, Load};
use planner::Plan;

impl Cluster {
    /// The load of a partition, if this process (epoch) is its owner.
    pub fn load_of(&self, application: &ApplicationId, rank: Rank, epoch: Epoch) -> Option<Load> {
        let owner = self.state.ownership(application, rank)?;
        (owner.epoch == epoch).then(|| self.model.load(application, rank))
    }

    /// Who sends how much to whom in an application that runs.
    pub fn traffic(&self, id: &ApplicationId) -> Result<TrafficView, ClusterError> {
        let application = self.state.applications.get(id).filter(|it| it.is_live());
        let application = application.ok_or_else(|| ClusterError::NotLive(id.clone()))?;
        let mut view = TrafficView {
            application: id.clone(),
            ranks: application.specification.ranks(),
            remote_bytes_per_s: 0.0,
            local_bytes_per_s: 0.0,
            pairs: Vec::new(),
        };
        for (from, owner) in (0..).zip(&application.partitions) {
            let report = self.view.process(&owner.host, &(id.clone(), from, owner.epoch));
            let Some(counters) = report.and_then(|it| it.counters.as_ref()) else { continue };
            let rates: std::collections::BTreeMap<Rank, Flow> = self.model.traffic(id, from).collect();
            for peer in counters.peers.iter().filter(|it| it.bytes_sent > 0 && it.rank != from) {
                let Some(other) = application.partitions.get(peer.rank as usize) else { continue };
                let (remote, bytes_per_s) =
                    (other.host != owner.host, rates.get(&peer.rank).map_or(0.0, |flow| flow.bytes));
                let sum = if remote { &mut view.remote_bytes_per_s } else { &mut view.local_bytes_per_s };
                *sum += bytes_per_s;
                view.pairs.push(TrafficPair {
                    from,
                    to: peer.rank,
                    remote,
                    bytes_per_s,
                    bytes: peer.bytes_sent,
                    messages: peer.messages_sent,
                    round_trip_ns: peer.round_trip_ns,
                });
            }
        }
        view.pairs.sort_by_key(|it| (it.from, it.to));
        Ok(view)
    }

    /// Takes note of a plan that was made to be run.
    pub(super) fn note_plan(&mut self, plan: &Plan) {
        let failed = plan.gates.iter().filter(|gate| !gate.pass).map(|gate| gate.name.clone());
        let mut rejections: Vec<String> = failed.collect();
        if rejections.is_empty() && plan.moves.is_empty() {
            let best = plan.candidates.first().and_then(|it| it.gates.iter().find(|gate| !gate.pass));
            rejections.extend(best.map(|gate| gate.name.clone()));
        }
        self.noted = Some(Planned {
            imbalance: plan.imbalance,
            work_max: (plan.work_max, plan.work_max_after),
            loss: plan.loss,
            moves: plan.moves.len(),
            rejections,
        });
    }

    /// How planning went, if there was a plan since the last question.
    pub fn take_plan_note(&mut self) -> Option<Planned> {
        self.noted.take()
    }

    /// What metrics are made of.
    pub fn observed(&self, now_ms: u64) -> Observed {
        let measured = |view: control::PartitionView| {
            let process = (view.application.clone(), view.rank, view.epoch);
            let counters = self.view.process(&view.host, &process).and_then(|it| it.counters.clone());
            Measured { view, counters }
        };
        Observed {
            hosts: self.hosts(now_ms),
            partitions: self.partitions().into_iter().map(measured).collect(),
            moves: self.state.moves.keys().filter_map(|id| self.one_move(*id)).collect(),
            records: self.state.records,
            incarnation: self.state.incarnation,
            series_bytes: 0,
        }
    }
}
