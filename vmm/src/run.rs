//! `vmm run` for one rank: check the program, build the partition, serve its API, be its exit status.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use migrator::report::one_line;
use vmm::clock;
use vmm::elf::Executable;
use vmm::fabric::address::Address;
use vmm::fabric::{self, Directory};
use vmm::kvm::KvmError;
use vmm::loader::Arguments;
use vmm::memory::{FILE_AREA_BYTES, Layout};
use vmm::partition::{Name, Partition, PartitionError, Recipe};

use crate::api;
use crate::cli::{Failure, Outcome, RunArgs, bind_beside, bind_fabric, bind_to, read_peers};
use crate::host::{Host, RemoveOnDrop, State, stop_on_signals};

/// How long a blocking call polls when nobody says otherwise: about what an exit costs on the slowest known host.
const SPIN_US_DEFAULT: u64 = 20;

/// Opens and checks the executable.
pub fn open_executable(path: &Path) -> Result<Executable, Failure> {
    let name = path.display();
    let file = File::open(path).map_err(|e| Failure::usage(format!("{name}: cannot open it: {e}")))?;
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Err(Failure::usage(format!("{name}: not a regular file; give a static ELF executable")));
    }
    Executable::parse(file).map_err(|e| Failure::usage(format!("{name}: {}", one_line(&e))))
}

/// Reads the files that the program is to find.
fn read_files(arguments: &RunArgs) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut files = Vec::new();
    let mut total = 0;
    for (host, guest) in &arguments.files {
        let data = std::fs::read(host)
            .map_err(|e| Failure::usage(format!("--file {}: cannot read it: {e}", host.display())))?;
        total += (data.len() as u64).next_multiple_of(partita_abi::PAGE_SIZE);
        if total > FILE_AREA_BYTES {
            return Err(Failure::usage(format!(
                "--file {}: all files together, in whole pages, have more than {FILE_AREA_BYTES} bytes; give fewer or smaller ones",
                host.display()
            )));
        }
        files.push((guest.clone(), data));
    }
    Ok(files)
}

/// The directory of this run's sockets: the user's, or a temporary one that is removed at the end.
pub struct StateDir {
    pub path: PathBuf,
    temporary: bool,
}

impl StateDir {
    pub fn new(wanted: Option<&PathBuf>) -> Result<Self, Failure> {
        let (path, temporary) = match wanted {
            Some(path) => (path.clone(), false),
            None => (std::env::temp_dir().join(format!("partita-{}", std::process::id())), true),
        };
        std::fs::create_dir_all(&path)
            .map_err(|e| Failure::usage(format!("--state-dir {}: cannot make it: {e}", path.display())))?;
        // A Unix socket's path has room for 107 bytes.
        if path.as_os_str().len() > 85 {
            return Err(Failure::usage(format!(
                "--state-dir {}: too long for the sockets in it; use a path of at most 85 bytes",
                path.display()
            )));
        }
        Ok(Self { path, temporary })
    }

    pub fn api(&self, rank: u32) -> PathBuf {
        self.path.join(format!("rank-{rank}.sock"))
    }

    pub fn fabric(&self, rank: u32) -> PathBuf {
        self.path.join(format!("rank-{rank}.fabric"))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn refuse(elf: &Path, error: &PartitionError) -> Failure {
    match error {
        PartitionError::Load(_) | PartitionError::Memory(_) => {
            Failure::usage(format!("{}: {}", elf.display(), one_line(error)))
        }
        PartitionError::Kvm(KvmError::Open { .. } | KvmError::Missing(_)) => Failure::usage(one_line(error)),
        _ => Failure::failed(format!("cannot build the partition: {}", one_line(error))),
    }
}

pub fn run(arguments: &RunArgs, started_ns: u64) -> Outcome {
    if let Some(cpus) = &arguments.cpus {
        bind_to(cpus)?;
    }
    let executable = open_executable(&arguments.elf)?;
    let files = read_files(arguments)?;
    let rank = arguments.rank.unwrap_or(0);
    if rank >= arguments.np {
        return Err(Failure::usage(format!("--rank {rank}: there are only {} ranks, from 0", arguments.np)));
    }
    let directory = match &arguments.peers {
        Some(path) => read_peers(path)?,
        None => Directory::new(),
    };
    let state_dir = StateDir::new(arguments.state_dir.as_ref())?;
    let fabric_path = state_dir.fabric(rank);
    let name = Name { application: arguments.application.clone(), rank, epoch: arguments.epoch };
    let listen = arguments.fabric.clone().unwrap_or_else(|| Address::Unix(fabric_path.clone()));
    // What is wrong with KVM is said before anything is made.
    vmm::kvm::check().map_err(|e| Failure::usage(one_line(&e)))?;
    let (socket, credentials) = bind_fabric(&listen, &arguments.tls, arguments.insecure)?;
    let listen = socket.address().map_err(|e| Failure::failed(format!("--fabric {listen}: {e}")))?;
    let beside = bind_beside(arguments.rings.neighbours.as_ref(), &listen, &fabric_path)?;
    let (host, ended) = Host::new(Some(listen.to_string()), arguments.tls.clone());
    stop_on_signals(&host)?;
    let mut argv = vec![arguments.elf.display().to_string()];
    argv.extend(arguments.arguments.iter().cloned());
    let recipe = Recipe {
        executable: &executable,
        layout: Layout {
            program_bytes: arguments.memory,
            ranks: arguments.np,
            ring_bytes: partita_abi::default_ring_bytes(arguments.np),
        },
        arguments: Arguments { arguments: argv, environment: arguments.env.clone() },
        files,
        spin_ns: arguments.spin_us.unwrap_or(SPIN_US_DEFAULT) * 1000,
    };
    let fabric = fabric::Config {
        application: name.application.clone(),
        rank,
        epoch: name.epoch,
        socket,
        beside,
        directory,
        shares: arguments.rings.shares(),
        credentials,
    };
    let _sockets = RemoveOnDrop(vec![state_dir.api(rank), fabric_path]);
    let partition =
        Partition::start(name, recipe, fabric, host.on_end()).map_err(|e| refuse(&arguments.elf, &e))?;
    let partition = Arc::new(partition);
    host.set_partition(partition.clone(), [0; 2]);
    host.set_state(State::Running, None);
    let boot_ns = clock::monotonic_ns() - started_ns;
    partition.resume(false).map_err(|e| Failure::failed(one_line(&e)))?;
    let wants_api = arguments.state_dir.is_some();
    let _server = wants_api.then(|| api::serve(host.clone(), &state_dir.api(rank))).transpose()?;
    host.finish(&ended, arguments.report.as_ref().map(|path| (path, boot_ns)))
}
