//! The command line, and the agent's life from start to end.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use control::{HostFacts, HostName, TcpAddress, is_loopback, one_line, parse_cpus, parse_size};
use nix::fcntl::{Flock, FlockArg};
use partita_tls::{IdentityError, Options, Role, Wanted};
use rustls::ClientConfig;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::epochs::{EpochError, Epochs};
use crate::host::{Config, Host};
use crate::link::Link;
use crate::metrics;
use crate::vmm_api::Transport;

/// Starts, watches and moves the partitions of this host for a coordinator.
#[derive(Debug, Parser)]
#[command(name = "agent", version)]
struct Arguments {
    /// Name of this host in the cluster.
    #[arg(long)]
    name: HostName,
    /// Address of the coordinator, tcp:HOST:PORT; of leader and standby, separated by commas.
    #[arg(long, env = "PARTITA_COORDINATOR", required = true, value_delimiter = ',')]
    coordinator: Vec<TcpAddress>,
    /// Processors for partitions, such as 0,2-3.
    #[arg(long)]
    cpus: String,
    /// Memory for partitions, such as 2G.
    #[arg(long, value_parser = parse_size)]
    memory: u64,
    /// Keep this host in reserve until the others are overloaded.
    #[arg(long)]
    standby: bool,
    /// A label of this host; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// The vmm program.
    #[arg(long)]
    vmm: PathBuf,
    /// Directory for sockets and the file of epochs.
    #[arg(long)]
    state_dir: PathBuf,
    /// Address of this host where it takes migrations.
    #[arg(long, value_name = "HOST")]
    migrate_address: String,
    /// How pages of partitions that leave this host get into the memory of the other one; rdma needs libfabric on both (docs/rdma.md).
    #[arg(long, value_enum, default_value_t)]
    migrate_transport: Transport,
    /// IP address of this host at which its partitions take messages, if applications are on several machines. All messages then go
    /// over TCP (with certificates: TLS), also those between partitions of this host. Without it: Unix sockets and shared memory.
    #[arg(long, value_name = "ADDRESS")]
    fabric_address: Option<std::net::IpAddr>,
    /// Serve metrics for Prometheus here, tcp:HOST:PORT.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<TcpAddress>,
    /// Allow plain TCP to other machines.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    tls: partita_tls::Options,
}

fn parse_label(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// An agent that could not start.
#[derive(Debug, Error)]
enum AgentError {
    #[error("--cpus: {0}")]
    Cpus(#[from] control::TextError),
    #[error(
        "--{option} {address}: plain TCP to other machines is not protected; use tls:, or add --insecure if the network is"
    )]
    Insecure { option: &'static str, address: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("--metrics: there is no TLS for it; give a loopback address, tcp:127.0.0.1:PORT")]
    MetricsTls,
    #[error("--vmm {}: there is no such program; run `make build` or give its path", .0.display())]
    Vmm(PathBuf),
    #[error("--state-dir {}: it cannot be used", path.display())]
    StateDirectory { path: PathBuf, source: std::io::Error },
    #[error("--state-dir {}: another agent uses it; give each agent its own", .0.display())]
    InUse(PathBuf),
    #[error(transparent)]
    Epochs(#[from] EpochError),
    #[error("--metrics {address}: it cannot be listened on")]
    Metrics { address: TcpAddress, source: std::io::Error },
    #[error("the runtime cannot be started")]
    Runtime(#[source] std::io::Error),
}

/// Runs the agent with these arguments until SIGTERM or SIGINT.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("PARTITA_LOG").unwrap_or_default();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {}", one_line(&error));
            let wrong_use = matches!(
                error,
                AgentError::Cpus(_)
                    | AgentError::Insecure { .. }
                    | AgentError::Identity(_)
                    | AgentError::MetricsTls
                    | AgentError::Vmm(_)
            );
            ExitCode::from(if wrong_use { 2 } else { 1 })
        }
    }
}

fn start(arguments: Arguments) -> Result<(), AgentError> {
    let cpus = parse_cpus(&arguments.cpus)?;
    if !arguments.insecure {
        let plain = |option, address: &str| AgentError::Insecure { option, address: address.to_owned() };
        if let Some(address) = arguments.coordinator.iter().find(|it| !it.is_protected()) {
            return Err(plain("coordinator", &address.to_string()));
        }
        if let Some(address) = arguments.metrics.as_ref().filter(|it| !it.is_loopback()) {
            return Err(plain("metrics", &address.to_string()));
        }
        // With certificates migrations are over TLS.
        let fabric = arguments.fabric_address.filter(|address| !address.is_loopback());
        if let Some(address) = fabric.filter(|_| arguments.tls.is_empty()) {
            return Err(plain("fabric-address", &address.to_string()));
        }
        if arguments.tls.is_empty() && !is_loopback(&arguments.migrate_address) {
            return Err(plain("migrate-address", &arguments.migrate_address));
        }
    }
    let client = client_config(&arguments)?;
    let vmm = arguments.vmm.canonicalize().map_err(|_| AgentError::Vmm(arguments.vmm.clone()))?;
    let (directory, _lock) = take_state_directory(&arguments.state_dir)?;
    let partitions = directory.join("p");
    // No partition of an earlier run is alive: its agent's death killed it.
    let _ = std::fs::remove_dir_all(&partitions);
    let epochs = Epochs::open(directory.join("epochs.json"))?;
    let facts = HostFacts {
        cpus,
        memory_bytes: arguments.memory,
        standby: arguments.standby,
        labels: arguments.labels.into_iter().collect::<BTreeMap<_, _>>(),
        migrate_address: arguments.migrate_address,
        fabric_address: arguments.fabric_address,
        state_directory: partitions.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let config = Config {
        name: arguments.name,
        facts,
        cpus: arguments.cpus,
        vmm,
        session: session(),
        tls: absolute(&arguments.tls),
        insecure: arguments.insecure,
        migrate_transport: arguments.migrate_transport,
    };
    let host = Arc::new(Host::new(config, epochs));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AgentError::Runtime)?;
    let result = runtime.block_on(run(host, arguments.coordinator, client, arguments.metrics));
    let _ = std::fs::remove_dir_all(&partitions);
    result
}

/// The agent's side of TLS to the coordinator, and whether the files can be used.
fn client_config(arguments: &Arguments) -> Result<Option<Arc<ClientConfig>>, AgentError> {
    if arguments.metrics.as_ref().is_some_and(TcpAddress::is_tls) {
        return Err(AgentError::MetricsTls);
    }
    let secure = arguments.coordinator.iter().find(|address| address.is_tls());
    match (arguments.tls.identity()?, secure) {
        (Some(identity), _) => {
            // The partitions' processes are servers, too.
            identity.server(Wanted::Only(Role::Host))?;
            Ok(Some(identity.client(Wanted::Only(Role::Coordinator))?))
        }
        (None, Some(address)) => Err(IdentityError::Missing(format!("--coordinator {address}")).into()),
        (None, None) => Ok(None),
    }
}

/// A number that no earlier run of this agent had.
fn session() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(0) << 20 | u64::from(std::process::id() & 0xf_ffff)
}

/// The same files for processes in other directories.
fn absolute(tls: &Options) -> Options {
    let absolute = |path: &Option<PathBuf>| path.as_ref().and_then(|path| std::path::absolute(path).ok());
    Options { certificate: absolute(&tls.certificate), key: absolute(&tls.key), ca: absolute(&tls.ca) }
}

fn take_state_directory(path: &Path) -> Result<(PathBuf, Flock<File>), AgentError> {
    let error = |source| AgentError::StateDirectory { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(error)?;
    let directory = path.canonicalize().map_err(error)?;
    let file = File::create(directory.join("lock")).map_err(error)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok((directory, lock)),
        Err(_) => Err(AgentError::InUse(directory)),
    }
}

async fn run(
    host: Arc<Host>,
    coordinator: Vec<TcpAddress>,
    config: Option<Arc<ClientConfig>>,
    metrics: Option<TcpAddress>,
) -> Result<(), AgentError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Runtime)?;
    let link = Link::new(host.clone(), coordinator, config);
    let measuring = async {
        match metrics {
            Some(address) => match metrics::serve(host.clone(), address.clone()).await {
                Ok(()) => Ok(()),
                Err(source) => Err(AgentError::Metrics { address, source }),
            },
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = measuring => result?,
        () = link.report_for_ever() => {}
        () = link.take_commands_for_ever() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    host.end_all().await;
    link.report_last().await;
    Ok(())
}
