//! Carrying out the coordinator's commands; refuses what would run an epoch twice.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::{
    Action, Command, CommandResult, Outcome, PartitionState, Peer, Rank, Start, fabric_address, neighbours,
    one_line, partition_directory,
};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::time::Instant;

use crate::child;
use crate::epochs::EpochError;
use crate::host::Host;
use crate::partition::{Key, Partition, supervise};
use crate::vmm_api::{self, Migrated, VmmError};

/// A process that does not answer after this long never will, not even on a host that is busy or stood still: there 20 s were too few.
const START: Duration = Duration::from_secs(60);
/// An arriving partition gets this long to be complete before it is given up.
const ARRIVE: Duration = Duration::from_secs(2);
/// How long the process of a program that has ended may stay.
const ENDING: Duration = Duration::from_secs(5);
/// Linux's limit of a Unix socket's path.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A command that could not be carried out.
#[derive(Debug, Error)]
enum CommandError {
    #[error(transparent)]
    Epoch(#[from] EpochError),
    #[error("no such partition runs on this host")]
    Absent,
    #[error("the vmm ended before it answered{0}")]
    Ended(String),
    #[error("the vmm did not answer within {START:?}")]
    Silent,
    #[error("the socket path {} is longer than {SOCKET_PATH_BYTES_MAX} bytes; give the agent a shorter --state-dir", .0.display())]
    Path(PathBuf),
    #[error("{} cannot be made", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("{} cannot be read; is it the same on every host?", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: its contents have changed since it was packed; make the image again", .0.display())]
    Changed(PathBuf),
    #[error("the vmm {} cannot be started; check the agent's --vmm", path.display())]
    Spawn { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Vmm(#[from] VmmError),
}

/// Takes a command. What must be visible in the next report is noted before this returns; the rest happens in a task.
pub(crate) fn accept(host: &Arc<Host>, command: Command) {
    {
        let mut state = host.state();
        if command.id <= state.received {
            return;
        }
        state.received = command.id;
    }
    if matches!(command.action, Action::Migrate { .. })
        && let Some(partition) = host.partition(&key(&command))
    {
        partition.known().sending = true;
    }
    tracing::debug!(?command, "command");
    let host = host.clone();
    tokio::spawn(async move {
        let outcome = match carry_out(&host, &command).await {
            Ok(outcome) => outcome,
            Err(CommandError::Epoch(EpochError::Stale { highest, .. })) => Outcome::StaleEpoch { highest },
            Err(error) => Outcome::Failed { reason: one_line(&error) },
        };
        if matches!(command.action, Action::Migrate { .. })
            && let Some(partition) = host.partition(&key(&command))
        {
            partition.known().sending = false;
        }
        tracing::debug!(id = command.id, ?outcome, "outcome");
        host.state().results.push(CommandResult {
            id: command.id,
            application: command.application,
            rank: command.rank,
            epoch: command.epoch,
            outcome,
        });
        host.urgent.notify_one();
    });
}

fn key(command: &Command) -> Key {
    Key { application: command.application.clone(), rank: command.rank, epoch: command.epoch }
}

async fn carry_out(host: &Arc<Host>, command: &Command) -> Result<Outcome, CommandError> {
    let key = key(command);
    match &command.action {
        Action::Start(start) => start_partition(host, key, start).await,
        Action::PrepareReceive { report } => prepare_receive(host, key, report.as_deref()).await,
        Action::Migrate { to, epoch, await_switch } => migrate(host, &key, to, *epoch, *await_switch).await,
        Action::Switch => {
            // A migration that is not there any more waits for nobody.
            if let Some(partition) = host.partition(&key)
                && let Err(error) = vmm_api::switch(&partition.socket).await
            {
                tracing::debug!(rank = key.rank, %error, "not told to switch over");
            }
            Ok(Outcome::Done)
        }
        Action::SetPeers(peers) => {
            let partition = host.partition(&key).ok_or(CommandError::Absent)?;
            vmm_api::set_peers(&partition.socket, peers).await?;
            Ok(Outcome::Done)
        }
        Action::Share { generation, target, speed_ppm } => {
            let partition = host.partition(&key).ok_or(CommandError::Absent)?;
            let share =
                serde_json::json!({"generation": generation, "target": target, "speed_ppm": speed_ppm});
            vmm_api::give_share(&partition.socket, share).await?;
            Ok(Outcome::Done)
        }
        Action::Kill => {
            if let Some(partition) = host.partition(&key) {
                partition.kill_and_wait().await;
            }
            Ok(Outcome::Done)
        }
        Action::Resume => {
            let partition = host.partition(&key).ok_or(CommandError::Absent)?;
            vmm_api::resume_in_doubt(&partition.socket).await?;
            partition.look().await?;
            Ok(Outcome::Done)
        }
        Action::Discard { keep_in_doubt } => discard(host, &key, *keep_in_doubt).await,
        Action::EndApplication => {
            host.state().epochs.end(&key.application)?;
            for partition in host.partitions_of(&key.application) {
                partition.kill_and_wait().await;
            }
            Ok(Outcome::Done)
        }
    }
}

/// Executable and files are still what the application was packed with.
async fn verify(start: &Start) -> Result<(), CommandError> {
    for (path, digest) in &start.digests {
        let at = path.clone();
        let found = tokio::task::spawn_blocking(move || sha256(&at)).await;
        let found = found.map_err(std::io::Error::other).and_then(|found| found);
        let found = found.map_err(|source| CommandError::Read { path: path.clone(), source })?;
        if found != *digest {
            return Err(CommandError::Changed(path.clone()));
        }
    }
    Ok(())
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = std::io::Read::read(&mut file, &mut buffer)?;
        if count == 0 {
            return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(&buffer[..count]);
    }
}

async fn start_partition(host: &Arc<Host>, key: Key, start: &Start) -> Result<Outcome, CommandError> {
    if host.partition(&key).is_some() {
        // The command came twice because the coordinator was started again.
        return Ok(Outcome::Done);
    }
    verify(start).await?;
    host.state().epochs.claim(&key.application, key.rank, key.epoch)?;
    let directory = make_directory(host, &key)?;
    let peers = directory.join("peers.json");
    write_peers(&peers, &start.peers)?;
    let mut arguments = vec![OsString::from("run")];
    if host.config.insecure {
        arguments.push("--insecure".into());
    }
    let mut option = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        arguments.push(name.into());
        arguments.push(value.as_ref().to_owned());
    };
    option("--rank", &key.rank.to_string());
    option("--np", &start.ranks.to_string());
    option("--application", &key.application.as_str());
    option("--epoch", &key.epoch.to_string());
    option("--peers", &peers);
    option("--state-dir", &directory);
    option("--memory", &format!("{}M", start.memory_bytes >> 20));
    option("--cpus", &host.config.cpus);
    if let Some(fabric) = network_fabric(host) {
        option("--fabric", &fabric);
        option("--neighbours", &neighbours(&host.config.facts.state_directory, &key.application));
    }
    for (name, value) in &start.env {
        option("--env", &format!("{name}={value}"));
    }
    for file in &start.files {
        let mut mapping = file.host.clone().into_os_string();
        mapping.push(":");
        mapping.push(&file.guest);
        option("--file", &mapping);
    }
    if let Some(report) = &start.report {
        option("--report", report);
    }
    arguments.push(start.executable.clone().into_os_string());
    arguments.extend(start.args.iter().map(OsString::from));
    let socket = directory.join(format!("rank-{}.sock", key.rank));
    let partition = launch(host, key, directory, socket, arguments, Some(0))?;
    wait_for_answer(&partition).await?;
    Ok(Outcome::Done)
}

/// Where partitions take messages if applications are on several machines: any port of this host's address.
fn network_fabric(host: &Host) -> Option<String> {
    let scheme = if host.config.tls.is_empty() { "tcp" } else { "tls" };
    let address = host.config.facts.fabric_address?;
    Some(format!("{scheme}:{}", std::net::SocketAddr::new(address, 0)))
}

async fn prepare_receive(host: &Arc<Host>, key: Key, report: Option<&Path>) -> Result<Outcome, CommandError> {
    let partition = match host.partition(&key) {
        Some(partition) => partition,
        None => {
            host.state().epochs.claim(&key.application, key.rank, key.epoch)?;
            let directory = make_directory(host, &key)?;
            let socket = directory.join(format!("rank-{}.sock", key.rank));
            let state = &host.config.facts.state_directory;
            let beside = || fabric_address(state, &key.application, key.rank, key.epoch);
            let fabric = network_fabric(host).unwrap_or_else(beside);
            let scheme = if host.config.tls.is_empty() { "tcp" } else { "tls" };
            let listen = format!("{scheme}:{}:0", host.config.facts.migrate_address);
            let mut arguments: Vec<OsString> =
                ["receive", "--listen", &listen, "--fabric", &fabric].map(OsString::from).to_vec();
            if host.config.insecure {
                arguments.push("--insecure".into());
            }
            let neighbours = neighbours(state, &key.application).into_os_string();
            arguments.extend(["--neighbours".into(), neighbours]);
            arguments.extend(["--cpus".into(), OsString::from(&host.config.cpus)]);
            arguments.extend(["--api-socket".into(), socket.clone().into_os_string()]);
            if let Some(report) = report {
                arguments.extend(["--report".into(), report.as_os_str().to_owned()]);
            }
            launch(host, key, directory, socket, arguments, None)?
        }
    };
    wait_for_answer(&partition).await?;
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        if let Some(address) = partition.known().listen.clone() {
            return Ok(Outcome::Listening { address });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        partition.look().await?;
    }
    Err(CommandError::Silent)
}

async fn migrate(
    host: &Arc<Host>,
    key: &Key,
    to: &str,
    epoch: u64,
    await_switch: bool,
) -> Result<Outcome, CommandError> {
    let Some(partition) = host.partition(key) else {
        return Ok(Outcome::NotMoved { reason: CommandError::Absent.to_string() });
    };
    // Whatever happens, that epoch is the destination's.
    host.state().epochs.observe(&key.application, key.rank, epoch)?;
    let request = serde_json::json!({
        "to": to,
        "epoch": epoch,
        "insecure": host.config.insecure,
        "await_switch": await_switch,
        "transport": host.config.migrate_transport,
    });
    let outcome = match vmm_api::migrate(&partition.socket, request).await {
        Migrated::Moved(report) => {
            let mut known = partition.known();
            if known.end.is_none() {
                known.state = PartitionState::Moved;
            } else {
                known.end = Some(control::End::Moved);
            }
            drop(known);
            Outcome::Moved(report)
        }
        Migrated::NotMoved(reason) => Outcome::NotMoved { reason },
        Migrated::Ended(reason) => {
            partition.wait_end(ENDING).await;
            Outcome::NotMoved { reason }
        }
        Migrated::InDoubt(reason) => Outcome::InDoubt { reason },
    };
    if !matches!(outcome, Outcome::Moved(_)) {
        // So that the report that has the outcome has the state after it.
        let _ = partition.look().await;
    }
    Ok(outcome)
}

/// Makes sure that the key's epoch does not run here, unless it already does.
async fn discard(host: &Arc<Host>, key: &Key, keep_in_doubt: bool) -> Result<Outcome, CommandError> {
    host.state().epochs.observe(&key.application, key.rank, key.epoch)?;
    let Some(partition) = host.partition(key) else { return Ok(Outcome::Discarded) };
    let deadline = Instant::now() + ARRIVE;
    loop {
        let _ = partition.look().await;
        let (state, has_run, ended) = {
            let known = partition.known();
            (known.state, known.has_run, known.end.is_some())
        };
        if has_run {
            return Ok(Outcome::Running);
        }
        match state {
            _ if ended => return Ok(Outcome::Discarded),
            PartitionState::InDoubt if keep_in_doubt => return Ok(Outcome::HeldInDoubt),
            // It may be about to become complete; then it has to be left alone.
            PartitionState::Receiving if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            _ => break,
        }
    }
    partition.kill_and_wait().await;
    Ok(Outcome::Discarded)
}

fn make_directory(host: &Host, key: &Key) -> Result<PathBuf, CommandError> {
    let state = &host.config.facts.state_directory;
    let directory = partition_directory(state, &key.application, key.rank, key.epoch);
    let longest = directory.join(format!("rank-{}.fabric", key.rank));
    if longest.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(CommandError::Path(longest));
    }
    match std::fs::create_dir_all(&directory) {
        Ok(()) => Ok(directory),
        Err(source) => Err(CommandError::Directory { path: directory, source }),
    }
}

fn write_peers(path: &Path, peers: &BTreeMap<Rank, Peer>) -> Result<(), CommandError> {
    std::fs::write(path, control::encode(peers))
        .map_err(|source| CommandError::Directory { path: path.to_owned(), source })
}

fn launch(
    host: &Arc<Host>,
    key: Key,
    directory: PathBuf,
    socket: PathBuf,
    arguments: Vec<OsString>,
    base: Option<u64>,
) -> Result<Arc<Partition>, CommandError> {
    let mut command = tokio::process::Command::new(&host.config.vmm);
    command.args(arguments).envs(host.config.tls.variables());
    let child = match child::spawn(command) {
        Ok(child) => child,
        Err(source) => {
            // Nothing is in it that anybody needs.
            let _ = std::fs::remove_dir_all(&directory);
            return Err(CommandError::Spawn { path: host.config.vmm.clone(), source });
        }
    };
    let partition = Arc::new(Partition::new(key.clone(), directory, socket, child.id(), base));
    host.state().partitions.insert(key, partition.clone());
    tokio::spawn(supervise(partition.clone(), child, host.urgent.clone()));
    Ok(partition)
}

async fn wait_for_answer(partition: &Partition) -> Result<(), CommandError> {
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        {
            let known = partition.known();
            match (known.end, known.state) {
                // A short program may have ended well before it could answer.
                (Some(control::End::Exited(0)), _) => return Ok(()),
                (Some(_), _) => {
                    let detail = known.detail.as_deref().map(|detail| format!(": {detail}"));
                    return Err(CommandError::Ended(detail.unwrap_or_default()));
                }
                (None, PartitionState::Starting) => {}
                (None, _) => return Ok(()),
            }
        }
        let _ = tokio::time::timeout(Duration::from_millis(100), partition.changed()).await;
    }
    partition.kill();
    Err(CommandError::Silent)
}
