//! The host: every partition process, the outcomes to be reported, and the report made of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use control::{
    Answer, ApplicationId, Bytes, ClusterId, CommandResult, HostFacts, HostName, OUTPUT_BYTES_MAX,
    OutputChunk, PROTOCOL, Report, Stream, StreamPosition,
};
use tokio::sync::Notify;

use crate::epochs::Epochs;
use crate::output::OutputBuffer;
use crate::partition::{Key, Partition};
use crate::vmm_api::Transport;

/// What does not change while the agent runs.
#[derive(Debug)]
pub(crate) struct Config {
    pub name: HostName,
    pub facts: HostFacts,
    /// As on the command line, for `vmm --cpus`.
    pub cpus: String,
    pub vmm: PathBuf,
    /// Who its partitions' processes are to each other; with it, migrations are over TLS.
    pub tls: partita_tls::Options,
    /// Plain connections to other machines are allowed.
    pub insecure: bool,
    /// How pages leave.
    pub migrate_transport: Transport,
    /// Names this run of the agent.
    pub session: u64,
}

/// What changes.
#[derive(Debug)]
pub(crate) struct State {
    pub partitions: BTreeMap<Key, Arc<Partition>>,
    pub results: Vec<CommandResult>,
    /// The highest command received.
    pub received: u64,
    pub epochs: Epochs,
}

/// The host.
#[derive(Debug)]
pub(crate) struct Host {
    pub config: Config,
    state: Mutex<State>,
    /// Woken when the coordinator should know something.
    pub urgent: Arc<Notify>,
}

impl Host {
    pub(crate) fn new(config: Config, epochs: Epochs) -> Self {
        let state = State { partitions: BTreeMap::new(), results: Vec::new(), received: 0, epochs };
        Self { config, state: Mutex::new(state), urgent: Arc::new(Notify::new()) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process, if it is here.
    pub(crate) fn partition(&self, key: &Key) -> Option<Arc<Partition>> {
        self.state().partitions.get(key).cloned()
    }

    /// The processes of an application.
    pub(crate) fn partitions_of(&self, application: &ApplicationId) -> Vec<Arc<Partition>> {
        let state = self.state();
        state
            .partitions
            .values()
            .filter(|partition| partition.key.application == *application)
            .cloned()
            .collect()
    }

    /// Everything there is to say now.
    pub(crate) fn report(&self) -> Report {
        let state = self.state();
        let mut output = Vec::new();
        let mut room = OUTPUT_BYTES_MAX;
        for partition in state.partitions.values() {
            for (stream, buffer) in streams(partition) {
                let Some((offset, data)) = buffer.chunk() else { continue };
                if data.len() > room {
                    continue;
                }
                room -= data.len();
                output.push(OutputChunk {
                    application: partition.key.application.clone(),
                    rank: partition.key.rank,
                    epoch: partition.key.epoch,
                    stream,
                    offset,
                    data: Bytes(data),
                });
            }
        }
        // An agent without partitions belongs to no cluster yet, or to any.
        let cluster = state.epochs.cluster().filter(|_| !state.partitions.is_empty()).cloned();
        Report {
            protocol: PROTOCOL,
            host: self.config.name.clone(),
            session: self.config.session,
            cluster,
            facts: self.config.facts.clone(),
            partitions: state.partitions.values().map(|partition| partition.report()).collect(),
            results: state.results.clone(),
            output,
        }
    }

    /// Is `cluster` the one whose partitions are here? With none here, any is.
    pub(crate) fn accepts(&self, cluster: &ClusterId) -> bool {
        let state = self.state();
        state.partitions.is_empty() || state.epochs.cluster() == Some(cluster)
    }

    /// The coordinator has `report`: forgets what it need not repeat.
    pub(crate) fn acknowledge(&self, report: &Report, answer: &Answer) {
        let mut state = self.state();
        state.results.retain(|result| !report.results.iter().any(|reported| reported.id == result.id));
        let mut more = false;
        for position in &answer.positions {
            more |= acknowledge_position(&state, position);
        }
        for reported in report.partitions.iter().filter(|partition| partition.end.is_some()) {
            let key =
                Key { application: reported.application.clone(), rank: reported.rank, epoch: reported.epoch };
            if let Some(partition) = state.partitions.get(&key) {
                partition.known().end_acknowledged = true;
            }
        }
        let before = state.partitions.len();
        state.partitions.retain(|_, partition| !partition.is_over());
        if more || state.partitions.len() != before {
            self.urgent.notify_one();
        }
    }

    /// Ends every partition and waits until they are gone.
    pub(crate) async fn end_all(&self) {
        let partitions: Vec<_> = self.state().partitions.values().cloned().collect();
        partitions.iter().for_each(|partition| partition.kill());
        for partition in partitions {
            partition.kill_and_wait().await;
        }
    }
}

fn acknowledge_position(state: &State, position: &StreamPosition) -> bool {
    let key = Key { application: position.application.clone(), rank: position.rank, epoch: position.epoch };
    let Some(partition) = state.partitions.get(&key) else { return false };
    let (_, buffer) = streams(partition)
        .into_iter()
        .find(|(stream, _)| *stream == position.stream)
        .unwrap_or((Stream::Stdout, &partition.stdout));
    buffer.acknowledge(position.next)
}

fn streams(partition: &Partition) -> [(Stream, &OutputBuffer); 3] {
    [(Stream::Stdout, &partition.stdout), (Stream::Stderr, &partition.stderr), (Stream::Vmm, &partition.vmm)]
}
