//! The command line, and the one form in which every error reaches the user.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use vmm::fabric::address::{Address, Neighbours};
use vmm::fabric::socket::{Bound, Credentials};

/// Runs one component of a parallel program in a partition, moves it, and takes moved ones in.
#[derive(Debug, Parser)]
#[command(name = "vmm", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a static Linux ELF in one partition, or in N of them like mpirun
    Run(RunArgs),
    /// Wait for a partition to be moved here, then be its process
    Receive(ReceiveArgs),
    /// Look at a partition or tell it something, through its control socket
    Ctl(CtlArgs),
}

#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Number of partitions
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub np: u32,
    /// Memory of each partition: bytes, or with K, M, G
    #[arg(long, default_value = "256M", value_name = "SIZE", value_parser = parse_size)]
    pub memory: u64,
    /// Processors it may use, like 0-3,7 (with --np: dealt out in turn)
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpus: Option<CpuList>,
    /// A variable of the program's environment, which is empty otherwise
    #[arg(long, value_name = "K=V", value_parser = parse_env)]
    pub env: Vec<String>,
    /// A file of this machine that the program finds, read-only, at GUEST
    #[arg(long = "file", value_name = "HOST:GUEST", value_parser = parse_file)]
    pub files: Vec<(PathBuf, String)>,
    /// Directory for control sockets: rank K's is DIR/rank-K.sock
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Write a JSON report here, one object per rank
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Run only this rank of the application (what an agent does)
    #[arg(long, value_name = "K", requires = "peers", help_heading = "One rank of an application")]
    pub rank: Option<u32>,
    /// Application id
    #[arg(long, value_name = "ID", default_value = "local", help_heading = "One rank of an application")]
    pub application: String,
    /// Epoch of this owner
    #[arg(long, value_name = "E", default_value_t = 1, help_heading = "One rank of an application")]
    pub epoch: u64,
    /// JSON: where the fabric of every rank listens
    #[arg(long, value_name = "FILE", help_heading = "One rank of an application")]
    pub peers: Option<PathBuf>,
    /// How long a blocking MPI call polls before it sleeps, microseconds; with 0 it does not keep its processor from falling idle either
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(..=1_000_000), help_heading = "One rank of an application")]
    pub spin_us: Option<u64>,
    /// Where its fabric listens: unix:PATH, tcp:ADDRESS:PORT or tls:ADDRESS:PORT (default: beside the control socket)
    #[arg(long, value_name = "ADDR", requires = "rank", help_heading = "One rank of an application")]
    pub fabric: Option<Address>,
    /// Allow plain connections from and to other machines
    #[arg(long, help_heading = "One rank of an application")]
    pub insecure: bool,
    #[command(flatten)]
    pub rings: RingsArgs,
    #[command(flatten)]
    pub tls: partita_tls::Options,
    /// The program
    #[arg(value_name = "ELF")]
    pub elf: PathBuf,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
}

/// How messages go between partitions of one machine.
#[derive(Debug, Clone, Args)]
pub struct RingsArgs {
    /// Messages between partitions of this machine: through shared memory, or carried by their vmm's
    #[arg(long, value_enum, default_value_t = Rings::Direct)]
    pub rings: Rings,
    /// Where the Unix sockets of the application's partitions on this host are, an absolute path with {rank} and {epoch} in
    /// it: with a --fabric of a network, rings are shared with those. This one's is beside the control socket
    #[arg(long, value_name = "PATTERN", requires = "fabric")]
    pub neighbours: Option<Neighbours>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rings {
    /// Both map the same memory
    Direct,
    /// Over sockets
    Proxied,
}

impl RingsArgs {
    pub fn shares(&self) -> bool {
        self.rings == Rings::Direct
    }
}

#[derive(Debug, Clone, Args)]
pub struct ReceiveArgs {
    #[command(flatten)]
    pub rings: RingsArgs,
    /// Where to take a migration: tls:HOST:PORT or tcp:HOST:PORT (port 0 takes a free one, see `vmm ctl SOCKET status`)
    #[arg(long, value_name = "ADDR")]
    pub listen: migrator::transport::Address,
    /// Control socket
    #[arg(long, value_name = "PATH")]
    pub api_socket: PathBuf,
    /// Where the partition's fabric is to listen: unix:PATH, tcp:ADDRESS:PORT or tls:ADDRESS:PORT (default: beside the
    /// control socket)
    #[arg(long, value_name = "ADDR")]
    pub fabric: Option<Address>,
    /// Processors it may use, like 0-3,7
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpus: Option<CpuList>,
    /// Write a JSON report here
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Allow a plain connection from other machines
    #[arg(long)]
    pub insecure: bool,
    #[command(flatten)]
    pub tls: partita_tls::Options,
}

#[derive(Debug, Clone, Args)]
pub struct CtlArgs {
    /// Control socket of a partition
    pub socket: PathBuf,
    #[command(subcommand)]
    pub action: Action,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Who it is and what it does
    Status,
    /// What has been counted
    Counters,
    /// Stop it between two instructions
    Pause,
    /// Run on
    Resume {
        /// Decide that a partition in doubt runs here. Look at the other side first: only one may run
        #[arg(long)]
        in_doubt: bool,
    },
    /// End it
    Stop,
    /// Move it to a waiting `vmm receive`
    Migrate(MigrateArgs),
    /// Give a running migration up
    Cancel,
    /// Let a migration with --await-switch switch over
    Switch,
    /// Change the cap of a running migration
    Bandwidth {
        /// Bytes per second over all streams (K, M, G), or none
        #[arg(value_name = "B", value_parser = parse_cap)]
        cap: Cap,
    },
    /// Tell a program that shares out units of work (partita.h) how many its rank should have
    Share {
        /// Number of the sharing-out; the same for all ranks, above every earlier one
        #[arg(long, value_name = "G")]
        generation: u64,
        /// Units of this rank
        #[arg(long, value_name = "N")]
        units: u64,
    },
}

#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// Where `vmm receive` listens, tls:HOST:PORT or tcp:HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub to: migrator::transport::Address,
    /// Page streams
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub streams: u8,
    /// Cap over all streams, bytes per second (K, M, G)
    #[arg(long, value_name = "B", value_parser = parse_size)]
    pub bandwidth: Option<u64>,
    /// Ceiling of the predicted blackout
    #[arg(long, default_value_t = 300, value_name = "M")]
    pub downtime_limit_ms: u64,
    /// After this many seconds --on-timeout applies
    #[arg(long, default_value_t = 60, value_name = "T")]
    pub timeout_s: u64,
    /// What to do when it does not converge
    #[arg(long, default_value = "abort")]
    pub on_timeout: TimeoutAction,
    /// Do not switch over before `vmm ctl SOCKET switch` or the time-out: several partitions can then do it together
    #[arg(long)]
    pub await_switch: bool,
    /// Wait this long at most for a good moment to pause: the program sleeps for messages, or is at a safe point (partita.h)
    #[arg(long, default_value_t = 10, value_name = "M")]
    pub patience_ms: u64,
    /// Pack pages on the wire: when a sample says that it pays, never, or always with one codec
    #[arg(long, value_enum, default_value = "auto")]
    pub compression: Compression,
    /// How pages go into the destination's memory: over the connections, or by one-sided writes over libfabric
    #[arg(long, value_enum, default_value = "tcp")]
    pub transport: Transport,
    /// Allow a plain connection, or RDMA, to another machine
    #[arg(long)]
    pub insecure: bool,
    /// In place of the files that the partition's process was started with
    #[command(flatten)]
    pub tls: partita_tls::Options,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    Auto,
    None,
    Zstd,
    Lz4,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    Tcp,
    /// libfabric chooses the provider (verbs, efa, cxi, tcp;ofi_rxm; FI_PROVIDER narrows it); nothing is encrypted
    Rdma,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeoutAction {
    /// The partition goes on here
    Abort,
    /// Switch over with the blackout it takes
    Force,
    /// Slow the program down until it converges; after the same time once more, abort
    Throttle,
}

/// A bandwidth cap in bytes per second, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap(pub Option<u64>);

/// Processor numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1u64),
    };
    let number: u64 =
        digits.parse().map_err(|_| "write a number of bytes, or one with K, M or G".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "that is more than can be addressed".to_owned())
}

fn parse_cap(text: &str) -> Result<Cap, String> {
    match text {
        "none" => Ok(Cap(None)),
        text => match parse_size(text)? {
            0 => Err("write a number above 0, or none".to_owned()),
            bytes_per_s => Ok(Cap(Some(bytes_per_s))),
        },
    }
}

fn parse_cpus(text: &str) -> Result<CpuList, String> {
    let wrong = || "write processor numbers like 0-3,7 (below 1024)".to_owned();
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) =
            (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last || last >= 1024 {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

fn parse_env(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn parse_file(text: &str) -> Result<(PathBuf, String), String> {
    match text.split_once(':') {
        Some((host, guest)) if !host.is_empty() && guest.starts_with('/') => {
            Ok((host.into(), guest.to_owned()))
        }
        _ => Err("write HOST-PATH:/GUEST-PATH; the guest path is absolute".to_owned()),
    }
}

/// What ends a command: one line for people and an exit status (1 failed, 2 wrong use).
#[derive(Debug)]
pub struct Failure {
    pub status: u8,
    text: String,
}

pub type Outcome = Result<u8, Failure>;

impl Failure {
    /// The user can mend it.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { status: 2, text: text.into() }
    }

    /// It went wrong.
    pub fn failed(text: impl Into<String>) -> Self {
        Self { status: 1, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads the file of `--peers`.
pub fn read_peers(path: &PathBuf) -> Result<vmm::fabric::Directory, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::usage(format!("--peers {}: cannot read it: {e}", path.display())))?;
    let peers: BTreeMap<u32, vmm::fabric::Place> = serde_json::from_str(&text)
        .map_err(|e| Failure::usage(format!("--peers {}: {e}", path.display())))?;
    Ok(peers)
}

/// Binds a fabric's socket, unless it would send messages over a network unprotected; with the credentials that it needs.
pub fn bind_fabric(
    address: &Address,
    tls: &partita_tls::Options,
    insecure: bool,
) -> Result<(Bound, Option<Credentials>), Failure> {
    if address.is_exposed() && !insecure {
        return Err(Failure::usage(format!(
            "--fabric {address}: messages would go over the network unprotected; write tls:, give a loopback address, or --insecure on a network you trust"
        )));
    }
    let wrong = |e| Failure::usage(migrator::report::one_line(&e));
    let credentials = match tls.identity().map_err(wrong)? {
        Some(identity) => Some(Credentials::new(&identity).map_err(wrong)?),
        None if matches!(address, Address::Tls(_)) => {
            return Err(wrong(partita_tls::IdentityError::Missing(format!("--fabric {address}"))));
        }
        None => None,
    };
    let bound = Bound::new(address, credentials.as_ref())
        .map_err(|e| Failure::failed(format!("--fabric {address}: cannot listen: {e}")))?;
    Ok((bound, credentials))
}

/// The socket for neighbours, at `path`, if the fabric is on a network.
pub fn bind_beside(
    neighbours: Option<&Neighbours>,
    fabric: &Address,
    path: &Path,
) -> Result<Option<(Bound, Neighbours)>, Failure> {
    let on_network = !matches!(fabric, Address::Unix(_));
    let Some(neighbours) = neighbours.filter(|_| on_network) else { return Ok(None) };
    let address = Address::Unix(path.to_owned());
    let bound = Bound::new(&address, None)
        .map_err(|e| Failure::failed(format!("--neighbours: cannot listen at {}: {e}", path.display())))?;
    Ok(Some((bound, neighbours.clone())))
}

/// Restricts this process to `cpus`.
pub fn bind_to(cpus: &CpuList) -> Result<(), Failure> {
    let mut set = nix::sched::CpuSet::new();
    for cpu in &cpus.0 {
        set.set(*cpu).map_err(|_| Failure::usage(format!("--cpus: there is no processor {cpu}")))?;
    }
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .map_err(|e| Failure::usage(format!("--cpus: this machine has none of these processors ({e})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_lists_are_read_or_refused() {
        assert_eq!(parse_size("256M"), Ok(256 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        for text in ["", "M", "1T", "-1", "99999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!((parse_cap("none"), parse_cap("10M")), (Ok(Cap(None)), Ok(Cap(Some(10 << 20)))));
        assert!(parse_cap("0").is_err() && parse_cap("fast").is_err());
        assert_eq!(parse_cpus("0-2,5"), Ok(CpuList(vec![0, 1, 2, 5])));
        for text in ["", "a", "3-1", "5000"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }
}
