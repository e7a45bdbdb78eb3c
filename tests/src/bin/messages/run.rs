//! One run of one system, what it prints, and what its threads cost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use partita_tests::machine::Kvm;
use partita_tests::messages::{self, Figures, Line, Measure, PHASES, Part, Plan, Run, System};
use partita_tests::namespaces::Namespaces;
use partita_tests::{Bench, Process, Result, binaries, interrupt, threads};
use serde_json::json;

/// Ranks of the halo exchange.
const HALO_RANKS: usize = 8;
/// Of a partition; both programs are small.
const MEMORY: &str = "64M";
/// Where the fabric of each host listens: nobody else is in the namespaces.
const PORT: u16 = 7700;
const TICK: Duration = Duration::from_millis(5);
/// What is told to end has so long.
const GRACE: Duration = Duration::from_secs(5);

/// Processor seconds by name of thread, of every process.
type Spent = Vec<BTreeMap<String, f64>>;

/// Starts the systems.
pub struct Runner<'a> {
    bench: &'a Bench,
    plan: &'a Plan,
    timeout: Duration,
    namespaces: Option<Namespaces>,
}

impl<'a> Runner<'a> {
    /// For these systems, all of which can run here, or an error that says what is missing.
    pub fn new(bench: &'a Bench, plan: &'a Plan, systems: &[System], timeout: Duration) -> Result<Self> {
        for system in systems {
            check(*system)?;
        }
        let namespaces = systems.contains(&System::Hosts).then(Namespaces::new).transpose()?;
        Ok(Self { bench, plan, timeout, namespaces })
    }

    /// One run, and the result of its halo exchange, if it makes one.
    pub fn run(&self, system: System, turn: u64) -> Result<(Run, Option<Vec<u8>>)> {
        let (mut figures, parts) = self.messages(system)?;
        let halo = if library(system).halo { Some(self.halo(system)?) } else { None };
        if let Some((seconds, _)) = halo {
            figures.insert(Measure::HaloS, seconds);
        }
        Ok((Run { system, turn, figures, parts }, halo.map(|(_, result)| result)))
    }

    fn messages(&self, system: System) -> Result<(Figures, Vec<Part>)> {
        let Plan { warm_up, round_trips, transfers, allreduces, .. } = self.plan;
        let arguments = [warm_up, round_trips, transfers, allreduces].map(ToString::to_string);
        let program = binaries::messages_for(library(system).name)?;
        let mut processes = match system {
            System::Hosts => self.start_hosts(&program, &arguments)?,
            _ => vec![self.start(system, 2, &program, &arguments)?],
        };
        let mut watch = Watch::default();
        self.follow(&mut processes, |processes| {
            if system == System::Hosts {
                watch.look(processes);
            }
        })?;
        let said = String::from_utf8(processes[0].stdout())?;
        let lines = messages::parse(&said)?;
        Ok((messages::figures(&lines), watch.parts(&lines)))
    }

    /// Seconds, as the program says, and its result.
    fn halo(&self, system: System) -> Result<(f64, Vec<u8>)> {
        let arguments =
            ["--size", &self.plan.halo_size.to_string(), "--steps", &self.plan.halo_steps.to_string()]
                .map(str::to_owned);
        let program = binaries::app_for(library(system).name, "heat")?;
        let mut processes = [self.start(system, HALO_RANKS, &program, &arguments)?];
        self.follow(&mut processes, |_| ())?;
        let [process] = processes;
        let stderr = process.stderr();
        let seconds =
            stderr.lines().find_map(|line| line.strip_prefix("heat: ")?.strip_suffix(" s")?.parse().ok());
        let seconds: f64 = seconds.ok_or("heat does not say how long it took")?;
        Ok((seconds, process.stdout()))
    }

    /// All ranks on this host, each on one of the processors.
    fn start(&self, system: System, ranks: usize, program: &Path, arguments: &[String]) -> Result<Process> {
        let [first, second] = self.plan.processors;
        let list = |count| {
            let each = [first, second].into_iter().cycle().take(count);
            each.map(|processor| processor.to_string()).collect::<Vec<_>>().join(",")
        };
        let np = ranks.to_string();
        let mut command = match system {
            System::Native => {
                let mut command = self.bench.command(&binaries::mpirun_native());
                command.args(["-np", &np, "-bind", &list(2)]);
                command
            }
            System::MpichShm | System::MpichTcp => {
                let mut command = self.bench.command(Path::new("mpirun.mpich"));
                command.args(["-np", &np, "-bind-to", &format!("user:{}", list(ranks))]);
                // Whoever runs this may have set either.
                command.env_remove("UCX_TLS").env_remove("MPIR_CVAR_NOLOCAL");
                if system == System::MpichTcp {
                    command.env("UCX_TLS", "tcp,self").env("MPIR_CVAR_NOLOCAL", "1");
                }
                command
            }
            System::Partitions | System::PartitionsProxied | System::Hosts => {
                let mut command =
                    self.bench.vmm(["run", "--np", &np, "--memory", MEMORY, "--cpus", &list(2)])?;
                if system == System::PartitionsProxied {
                    command.args(["--rings", "proxied"]);
                }
                command
            }
        };
        command.arg(program).args(arguments);
        self.bench.start(command, system.name())
    }

    /// A rank on either host.
    fn start_hosts(&self, program: &Path, arguments: &[String]) -> Result<Vec<Process>> {
        let namespaces = self.namespaces.as_ref().ok_or("there are no hosts")?;
        let address = |host: usize| format!("tcp:{}:{PORT}", namespaces.address(host));
        let place = |host: usize| json!({ "epoch": 1, "address": address(host) });
        let peers = self.bench.path().join("peers.json");
        std::fs::write(&peers, json!({ "0": place(0), "1": place(1) }).to_string())?;
        let vmm = binaries::program("vmm")?;
        let start = |host: usize| {
            let mut command: Command = namespaces.enter(host, self.bench.command(Path::new("ip")), &vmm);
            command.args(["run", "--np", "2", "--rank", &host.to_string(), "--memory", MEMORY]);
            command.args([
                "--cpus",
                &self.plan.host_processors[host],
                "--fabric",
                &address(host),
                "--insecure",
            ]);
            command.arg("--peers").arg(&peers).arg(program).args(arguments);
            self.bench.start(command, &format!("host-{host}"))
        };
        (0..2).map(start).collect()
    }

    /// Waits until all have ended well, and looks at them meanwhile. When one fails, or time is up, all are ended.
    fn follow(&self, processes: &mut [Process], mut look: impl FnMut(&[Process])) -> Result {
        let begin = Instant::now();
        loop {
            look(processes);
            let mut running = false;
            let mut failure = None;
            for process in &mut *processes {
                match process.status()? {
                    None => running = true,
                    Some(0) => {}
                    Some(status) => failure = failure.or_else(|| Some(describe(process, status))),
                }
            }
            if interrupt::is_interrupted() {
                failure = Some("interrupted".to_owned());
            } else if failure.is_none() && begin.elapsed() > self.timeout {
                failure = Some(format!("not over after {:?}: give more time with --timeout-s", self.timeout));
            }
            if let Some(failure) = failure {
                self.end(processes)?;
                return Err(failure.into());
            }
            if !running {
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
    }

    /// Ends processes as a user would, who presses ^C, so that they clean up; kills what is left after a while. MPICH and
    /// `mpirun-native` have files in shared memory, which would stay if their ranks were killed while they start.
    fn end(&self, processes: &mut [Process]) -> Result {
        let files = shared_memory(self.bench);
        for process in &mut *processes {
            if process.status()?.is_none() {
                process.signal(Signal::SIGINT)?;
            }
        }
        let begin = Instant::now();
        while begin.elapsed() < GRACE
            && processes.iter_mut().any(|process| matches!(process.status(), Ok(None)))
        {
            std::thread::sleep(TICK);
        }
        for process in processes {
            process.kill()?;
        }
        for file in files {
            let _ = std::fs::remove_file(file);
        }
        Ok(())
    }
}

/// Files in /dev/shm that processes of the bench have mapped.
fn shared_memory(bench: &Bench) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (pid, _) in bench.processes() {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let paths = maps.lines().filter_map(|line| Some(&line[line.find("/dev/shm/")?..]));
        files.extend(paths.filter(|path| !path.ends_with(" (deleted)")).map(PathBuf::from));
    }
    files.sort();
    files.dedup();
    files
}

/// In one line.
fn describe(process: &Process, status: i32) -> String {
    let said = process.stderr();
    // MPICH frames what it says.
    let is_text = |line: &&str| line.contains(|c: char| c.is_alphanumeric());
    let first = said.lines().find(is_text).unwrap_or("it said nothing").trim();
    format!("{} ended with status {status}: {first}", process.name())
}

/// Which programs a system runs.
struct Library {
    /// As in the paths of programs.
    name: &'static str,
    /// Whether it takes part in the halo exchange.
    halo: bool,
}

fn library(system: System) -> Library {
    let (name, halo) = match system {
        System::Partitions => ("partita", true),
        System::PartitionsProxied | System::Hosts => ("partita", false),
        System::Native => ("native", true),
        System::MpichShm => ("mpich", true),
        System::MpichTcp => ("mpich", false),
    };
    Library { name, halo }
}

/// Whether everything that a system needs is here.
fn check(system: System) -> Result {
    let library = library(system);
    if system.is_partitions() {
        if Kvm::here() == Kvm::None {
            return Err(format!(
                "{}: /dev/kvm cannot be opened: run this in tests/machine/with-kvm, or without partitions (--systems native,mpich-shm,mpich-tcp)",
                system.name()
            )
            .into());
        }
        binaries::program("vmm")?;
    }
    if library.name == "mpich" && !is_in_path("mpirun.mpich") {
        return Err(format!(
            "{}: mpirun.mpich is missing: apt-get install mpich (make deps does)",
            system.name()
        )
        .into());
    }
    binaries::messages_for(library.name)?;
    if library.halo {
        binaries::app_for(library.name, "heat")?;
    }
    Ok(())
}

fn is_in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// What threads had spent when a line was first seen.
#[derive(Default)]
struct Watch {
    lines: usize,
    seen: Vec<(String, Instant, Spent)>,
}

impl Watch {
    fn look(&mut self, processes: &[Process]) {
        let Some(first) = processes.first() else { return };
        let said = String::from_utf8_lossy(&first.stdout()).into_owned();
        let complete = said.rfind('\n').map_or("", |end| &said[..end]);
        let new: Vec<&str> = complete.lines().skip(self.lines).collect();
        if new.is_empty() {
            return;
        }
        let spent: Spent = processes.iter().map(|process| threads::seconds(process.pid())).collect();
        self.lines += new.len();
        let now = Instant::now();
        self.seen.extend(new.into_iter().map(|line| (line.to_owned(), now, spent.clone())));
    }

    /// Cost of a round of every measure that was long enough for its begin and its end to be seen one after the other.
    fn parts(&self, lines: &BTreeMap<&'static str, Line>) -> Vec<Part> {
        let mut parts = Vec::new();
        for phase in PHASES {
            let seen = |text: String| self.seen.iter().find(|(line, _, _)| line.starts_with(&text));
            let (Some((_, from, before)), Some((_, to, after))) =
                (seen(format!("begin {phase}")), seen(format!("{phase} bytes")))
            else {
                continue;
            };
            // A thread that has ended does not say any more what it spent.
            let mut threads = before.iter().zip(after);
            let is_whole = to > from && threads.all(|(b, a)| b.keys().all(|name| a.contains_key(name)));
            let Some(line) = lines.get(phase).filter(|_| is_whole) else { continue };
            for (rank, (before, after)) in before.iter().zip(after).enumerate() {
                parts.extend(after.iter().map(|(thread, seconds)| Part {
                    phase,
                    rank: rank as u32,
                    thread: thread.clone(),
                    us_per_round: (seconds - before.get(thread).copied().unwrap_or(0.0)).max(0.0) * 1e6
                        / line.rounds as f64,
                }));
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_differences_between_lines_by_rounds() {
        let spent =
            |vcpu: f64| vec![[("vcpu".to_owned(), vcpu)].into(), [("vcpu".to_owned(), 2.0 * vcpu)].into()];
        let at = Instant::now();
        let line =
            |text: &str, later: u64, vcpu| (text.to_owned(), at + Duration::from_millis(later), spent(vcpu));
        let watch = Watch {
            lines: 4,
            seen: vec![
                line("begin round-trip", 0, 1.0),
                line("round-trip bytes 8", 50, 3.0),
                line("begin transfer", 60, 3.0),
                line("transfer bytes 1048576", 60, 3.0),
            ],
        };
        let said = |rounds| Line { bytes: 8, rounds, timed: 1, median_ns: 1.0, p99_ns: 1.0 };
        let parts = watch.parts(&[("round-trip", said(1000)), ("transfer", said(10))].into());
        let found: Vec<_> = parts.iter().map(|part| (part.phase, part.rank, part.us_per_round)).collect();
        assert_eq!(found, [("round-trip", 0, 2000.0), ("round-trip", 1, 4000.0)]);
    }
}
