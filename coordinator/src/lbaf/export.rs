//! Our own hosts, partitions and traffic as a problem of LBAF: one file per host, one task per partition.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use control::{ApplicationId, HostName, HostView, PartitionView, Rank, TrafficView};
use serde_json::{Value, json};

use super::LbafError;

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// All hosts; those that are lost have no file.
    pub hosts: Vec<HostView>,
    /// All partitions; those that have ended are no tasks.
    pub partitions: Vec<PartitionView>,
    /// Traffic of the applications.
    pub traffic: Vec<TrafficView>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// The directory.
    pub directory: PathBuf,
    /// Hosts, in the order of LBAF's ranks.
    pub hosts: Vec<HostName>,
    /// Tasks.
    pub tasks: usize,
    /// Communications.
    pub communications: usize,
}

/// Writes `partita.RANK.json` for every host. A task's `time` is its load (busy seconds per second); `rank_alpha` is the
/// inverse of the host's processors; `bytes` are per second; `user_defined` names application and rank.
pub fn write(measured: &Measured, directory: &Path) -> Result<Exported, LbafError> {
    let hosts: Vec<&HostView> = measured.hosts.iter().filter(|host| host.state != "lost").collect();
    let index: BTreeMap<&HostName, usize> =
        hosts.iter().enumerate().map(|(at, host)| (&host.name, at)).collect();
    let mut tasks: Vec<Vec<Value>> = vec![Vec::new(); hosts.len()];
    let mut communications = tasks.clone();
    let mut entities: BTreeMap<(&ApplicationId, Rank), (usize, Value)> = BTreeMap::new();
    let living = measured.partitions.iter().filter(|it| it.exit_status.is_none());
    for (id, it) in living.filter(|it| index.contains_key(&it.host)).enumerate() {
        let at = index[&it.host];
        let entity = json!({"id": id, "home": at, "migratable": true, "type": "object"});
        tasks[at].push(json!({
            "entity": entity, "node": at, "resource": "cpu", "time": it.load,
            "user_defined": {
                "application": it.application, "rank": it.rank, "task_footprint_bytes": it.resident_kib << 10,
            },
        }));
        entities.insert((&it.application, it.rank), (at, entity));
    }
    for traffic in &measured.traffic {
        for pair in &traffic.pairs {
            let end = |rank: Rank| entities.get(&(&traffic.application, rank));
            let (Some((at, from)), Some((_, to))) = (end(pair.from), end(pair.to)) else { continue };
            communications[*at].push(json!({
                "type": "SendRecv", "from": from, "to": to, "bytes": pair.bytes_per_s, "messages": pair.messages,
            }));
        }
    }
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| LbafError::Io { path, what: "written", source }
    };
    std::fs::create_dir_all(directory).map_err(error(directory))?;
    let exported = Exported {
        directory: directory.to_owned(),
        hosts: hosts.iter().map(|host| host.name.clone()).collect(),
        tasks: tasks.iter().map(Vec::len).sum(),
        communications: communications.iter().map(Vec::len).sum(),
    };
    for ((at, host), (tasks, communications)) in
        hosts.iter().enumerate().zip(tasks.into_iter().zip(communications))
    {
        let path = directory.join(format!("partita.{at}.json"));
        let content = json!({
            "type": "LBDatafile",
            "metadata": {"type": "LBDatafile", "rank": at, "host": host.name,
                // LBAF scales loads by this: a host with two processors takes half as long for the same load.
                "rank_alpha": 1.0 / host.cpus.len().max(1) as f64},
            "phases": [{"id": 0, "tasks": tasks, "communications": communications}],
        });
        std::fs::write(&path, content.to_string()).map_err(error(&path))?;
    }
    Ok(exported)
}
