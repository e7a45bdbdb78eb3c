//! What-if: the plans of a journal made again, under the policy of then or another one. It reads records and can act on nothing.

use std::collections::BTreeMap;
use std::path::Path;

use control::{Bytes, HostName, Policy, ReplayedPlan};
use serde::{Deserialize, Serialize};

use crate::journal::{Journal, JournalError};
use crate::policy::{self, Member};
use crate::record::{Entry, Record};
use planner::checker;
use planner::{self, Snapshot};

/// Larger inputs are not kept: the journal is replayed at every start.
const INPUTS_BYTES_MAX: usize = 256 << 10;

/// What a plan was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// [`planner::POLICY_VERSION`] of then.
    pub planner: u32,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Its first rules are those of manifests and leases; the others are the policy's.
    pub rules_kept: usize,
    /// Labels of its hosts.
    pub labels: Vec<BTreeMap<String, String>>,
}

/// For the journal; nothing if it is too large. Numbers are kept to the last bit.
pub fn encode(history: &History) -> Option<Bytes> {
    postcard::to_stdvec(history).ok().filter(|bytes| bytes.len() <= INPUTS_BYTES_MAX).map(Bytes)
}

/// The entries of a journal that nobody writes.
pub fn read(path: &Path) -> Result<Vec<Entry>, JournalError> {
    // The name is used for a new journal only; this one has records.
    let name = control::ClusterId::try_from("none".to_owned());
    let name = name.map_err(|_| JournalError::Damaged { name: path.display().to_string(), index: 0 })?;
    Ok(Journal::open(path, &name, 0)?.1)
}

/// The snapshot as it would have been under another policy.
fn under(history: &History, policy: &Policy, time_ms: u64) -> Snapshot {
    let mut snapshot = history.snapshot.clone();
    snapshot.settings = policy::planner_settings(snapshot.settings, policy);
    snapshot.rules.truncate(history.rules_kept);
    let name =
        |id: &control::ApplicationId| id.as_str().rsplit_once('-').map_or("", |(name, _)| name).to_owned();
    let names: Vec<String> = snapshot.applications.iter().map(|it| name(&it.id)).collect();
    let member = |it: &planner::PlanPartition| {
        let application = &snapshot.applications.get(it.application)?.id;
        Some(Member { application, name: names.get(it.application)?, rank: it.rank })
    };
    let members: Vec<Member<'_>> = snapshot.partitions.iter().filter_map(member).collect();
    let hosts: Vec<(&HostName, &BTreeMap<String, String>)> =
        snapshot.hosts.iter().map(|host| &host.name).zip(&history.labels).collect();
    let rules = policy::policy_rules(policy, &members, &hosts);
    snapshot.rules.extend(rules);
    for (host, labels) in snapshot.hosts.iter_mut().zip(&history.labels) {
        let window = policy::closed(policy, &host.name, labels, time_ms);
        let by_window = host.closed.as_ref().is_some_and(|why| why.starts_with("maintenance "));
        if by_window {
            (host.closed, host.evacuate) = (None, false);
        }
        if let Some(window) = window {
            host.evacuate |= window.evacuate;
            host.closed.get_or_insert_with(|| format!("maintenance {}", window.name));
        }
        host.reserve = policy::reserve(policy, &host.name, labels).0;
    }
    for (application, name) in snapshot.applications.iter_mut().zip(&names) {
        let quota = policy::quota(policy, &application.id, name).and_then(|quota| quota.moves);
        application.quota = quota.map_or(usize::MAX, |moves| moves as usize);
    }
    snapshot
}

/// The plans of a journal, made again; `policy`: instead of that of then.
pub fn replay(entries: &[Entry], policy: Option<&Policy>) -> Vec<ReplayedPlan> {
    let mut plans = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let Record::Planned { inputs, inputs_hash, moves, explanation } = &entry.record else { continue };
        let Ok(history) = postcard::from_bytes::<History>(&inputs.0) else { continue };
        if !history.snapshot.is_sound() || history.labels.len() != history.snapshot.hosts.len() {
            continue;
        }
        let snapshot = match policy {
            Some(policy) => under(&history, policy, entry.time_ms),
            None => history.snapshot.clone(),
        };
        let plan = planner::plan(&snapshot);
        let shown = |application: &control::ApplicationId, rank, to: &HostName| {
            format!("{application} rank {rank} to {to}")
        };
        let would: Vec<String> =
            plan.moves.iter().map(|it| shown(&it.application, it.rank, &it.to)).collect();
        let did: Vec<String> = moves.iter().map(|(id, rank, to)| shown(id, *rank, to)).collect();
        plans.push(ReplayedPlan {
            record: index as u64,
            time_ms: entry.time_ms,
            same_inputs: plan.inputs_hash == *inputs_hash && history.planner == planner::POLICY_VERSION,
            differs: would != did,
            work_max: plan.work_max,
            work_max_after: plan.work_max_after,
            findings: checker::check(&snapshot, &plan).iter().map(ToString::to_string).collect(),
            did,
            did_explanation: explanation.clone(),
            would,
            would_explanation: plan.explanation,
        });
    }
    plans
}
