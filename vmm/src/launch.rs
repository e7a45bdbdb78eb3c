//! `vmm run --np N`: starts N partitions on this machine and ends them together, like mpirun.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, signal};
use serde_json::{Value, json};

use crate::cli::{Failure, Outcome, RunArgs};
use crate::run::{StateDir, open_executable};

/// How long partitions get to end by themselves after one has failed.
const GRACE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(5);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_interrupt(_signal: i32) {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

struct Rank {
    child: Child,
    status: Option<i32>,
}

pub fn launch(arguments: &RunArgs) -> Outcome {
    // Whatever is wrong with the program is said once, not N times.
    open_executable(&arguments.elf)?;
    vmm::kvm::check().map_err(|e| Failure::usage(migrator::report::one_line(&e)))?;
    let state_dir = StateDir::new(arguments.state_dir.as_ref())?;
    let peers_path = state_dir.path.join("peers.json");
    let peers: BTreeMap<u32, Value> = (0..arguments.np)
        .map(|rank| {
            (rank, json!({ "epoch": 1, "address": format!("unix:{}", state_dir.fabric(rank).display()) }))
        })
        .collect();
    let failed = |what: &str, e: io::Error| Failure::failed(format!("{what}: {e}"));
    std::fs::write(&peers_path, json!(peers).to_string()).map_err(|e| failed("peers.json", e))?;
    for kind in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only sets an atomic.
        let installed = unsafe { signal(kind, SigHandler::Handler(on_interrupt)) };
        installed.map_err(|e| failed("signal handler", e.into()))?;
    }
    let mut ranks = Vec::new();
    for rank in 0..arguments.np {
        match start(arguments, rank, &state_dir, &peers_path) {
            Ok(child) => ranks.push(Rank { child, status: None }),
            Err(error) => {
                end_all(&mut ranks);
                return Err(failed(&format!("cannot start rank {rank}"), error));
            }
        }
    }
    let status = supervise(&mut ranks);
    let _ = std::fs::remove_file(&peers_path);
    for rank in 0..arguments.np {
        // A killed vmm leaves its sockets.
        let _ = std::fs::remove_file(state_dir.api(rank));
        let _ = std::fs::remove_file(state_dir.fabric(rank));
    }
    if let Some(path) = &arguments.report {
        merge_reports(path, arguments.np)?;
    }
    Ok(status)
}

/// How long a rank with a processor of its own polls before it sleeps: about what a sleep and a wake take on the slowest known host.
const SPIN_US_ALONE: u64 = 300;

fn rank_report(path: &Path, rank: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".rank-{rank}"));
    name.into()
}

fn start(arguments: &RunArgs, rank: u32, state_dir: &StateDir, peers: &Path) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").args(["--rank", &rank.to_string(), "--np", &arguments.np.to_string()]);
    command.args(["--application", &arguments.application, "--memory", &arguments.memory.to_string()]);
    command.arg("--peers").arg(peers).arg("--state-dir").arg(&state_dir.path);
    let cpus = arguments.cpus.as_ref().map(|list| &list.0);
    if let Some(cpus) = cpus {
        command.args(["--cpus", &cpus[rank as usize % cpus.len()].to_string()]);
    }
    // More partitions than processors: whoever polls keeps the one it waits for from running.
    let processors =
        cpus.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), Vec::len);
    let spin_us =
        arguments.spin_us.unwrap_or(if arguments.np as usize > processors { 0 } else { SPIN_US_ALONE });
    command.args(["--spin-us", &spin_us.to_string()]);
    command.envs(arguments.tls.variables());
    if !arguments.rings.shares() {
        command.args(["--rings", "proxied"]);
    }
    for variable in &arguments.env {
        command.args(["--env", variable]);
    }
    for (host, guest) in &arguments.files {
        let mut file = host.as_os_str().to_owned();
        file.push(format!(":{guest}"));
        command.arg("--file").arg(file);
    }
    if let Some(path) = &arguments.report {
        command.arg("--report").arg(rank_report(path, rank));
    }
    command.arg("--").arg(&arguments.elf).args(&arguments.arguments);
    if rank > 0 {
        command.stdin(Stdio::null());
    }
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only two async-signal-safe system calls are made.
    unsafe {
        command.pre_exec(move || {
            // Nothing may be left behind when the launcher is killed.
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() != parent {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Waits for all; when one fails, or a user interrupts, ends the rest. Returns the first non-zero status.
fn supervise(ranks: &mut [Rank]) -> u8 {
    let mut first = 0;
    loop {
        for (number, rank) in ranks.iter_mut().enumerate().filter(|(_, rank)| rank.status.is_none()) {
            let Ok(Some(status)) = rank.child.try_wait() else { continue };
            let code = exit_code(status);
            rank.status = Some(code);
            if code != 0 && first == 0 {
                first = code;
                describe(number, status);
            }
        }
        if INTERRUPTED.load(Ordering::SeqCst) && first == 0 {
            first = 130;
        }
        if first != 0 {
            end_all(ranks);
            return u8::try_from(first & 0xff).unwrap_or(1);
        }
        if ranks.iter().all(|rank| rank.status.is_some()) {
            return 0;
        }
        std::thread::sleep(TICK);
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn describe(rank: usize, status: ExitStatus) {
    let how = match status.signal() {
        Some(signal) => format!("its vmm was killed by signal {signal}"),
        None => format!("it ended with status {}", exit_code(status)),
    };
    let _ = writeln!(io::stderr(), "vmm: rank {rank}: {how}; the application is ended");
}

/// Asks all that still run to end, then kills them.
fn end_all(ranks: &mut [Rank]) {
    for rank in ranks.iter_mut().filter(|rank| rank.status.is_none()) {
        let pid = nix::unistd::Pid::from_raw(rank.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, Signal::SIGTERM);
    }
    let mut waited = Duration::ZERO;
    while waited < GRACE {
        let running = ranks.iter_mut().any(|rank| matches!(rank.child.try_wait(), Ok(None)));
        if !running {
            return;
        }
        std::thread::sleep(TICK);
        waited += TICK;
    }
    for rank in ranks {
        let _ = rank.child.kill();
        let _ = rank.child.wait();
    }
}

/// One array, in the order of ranks, out of what the ranks wrote.
fn merge_reports(path: &Path, np: u32) -> Result<(), Failure> {
    let mut all = Vec::new();
    for rank in 0..np {
        let part = rank_report(path, rank);
        if let Ok(text) = std::fs::read_to_string(&part) {
            all.extend(serde_json::from_str::<Value>(&text));
        }
        let _ = std::fs::remove_file(&part);
    }
    let text = serde_json::to_string_pretty(&all).unwrap_or_default() + "\n";
    std::fs::write(path, text).map_err(|e| Failure::failed(format!("--report {}: {e}", path.display())))
}
