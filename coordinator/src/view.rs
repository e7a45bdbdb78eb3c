//! What the agents observed: the last report of every host, nothing of which survives a restart of the coordinator.

use std::collections::BTreeMap;

use control::{ApplicationId, Epoch, HostFacts, HostName, PartitionReport, PartitionState, Rank, Report};

/// A process of a partition.
pub type Process = (ApplicationId, Rank, Epoch);

/// A host's last report.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The run of its agent.
    pub session: u64,
    /// What it is.
    pub facts: HostFacts,
    /// When it reported, Unix milliseconds.
    pub at_ms: u64,
    /// Its processes.
    pub processes: BTreeMap<Process, PartitionReport>,
}

/// The last reports of all hosts that have reported since the coordinator was started.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// By host.
    pub hosts: BTreeMap<HostName, Seen>,
}

impl View {
    /// Takes a report. Returns whether the agent was started anew since the last one.
    pub fn observe(&mut self, now_ms: u64, report: &Report) -> bool {
        let process = |it: &PartitionReport| ((it.application.clone(), it.rank, it.epoch), it.clone());
        let seen = Seen {
            session: report.session,
            facts: report.facts.clone(),
            at_ms: now_ms,
            processes: report.partitions.iter().map(process).collect(),
        };
        let before = self.hosts.insert(report.host.clone(), seen);
        before.is_none_or(|before| before.session != report.session)
    }

    /// The process as `host` last reported it.
    pub fn process(&self, host: &HostName, process: &Process) -> Option<&PartitionReport> {
        self.hosts.get(host)?.processes.get(process)
    }

    /// Hosts that report a process of the application, ended or not.
    pub fn hosts_of<'a>(&'a self, application: &'a ApplicationId) -> impl Iterator<Item = &'a HostName> {
        let has = move |seen: &Seen| seen.processes.keys().any(|(id, _, _)| id == application);
        self.hosts.iter().filter(move |(_, seen)| has(seen)).map(|(host, _)| host)
    }
}

/// Is the partition executing in this process?
pub fn is_executing(state: PartitionState) -> bool {
    matches!(state, PartitionState::Running | PartitionState::Migrating | PartitionState::Paused)
}
