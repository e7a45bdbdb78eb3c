//! `migrator bench`: moves partitions between `vmm` processes as a user would, beside QEMU if asked, and says what it cost.
//!
//! ```text
//!   case ──► session (partita: vmm run, vmm receive …; qemu: two QEMUs) ──► Moved: what the source says
//!                │ output of the guest, or of a partition that stays                 │
//!                └──► observe: windows of beats and gaps ──► record: Run ◄───────────┘
//!                                                               └──► output: table, JSON, CSV; plot: SVG
//! ```

mod case;
mod error;
mod link;
mod observe;
mod output;
mod partita;
mod plot;
mod processes;
mod qemu;
mod qmp;
mod record;
mod session;
mod stats;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use case::{Case, Peer};
pub use error::BenchError;
use link::Hosts;
use observe::Observer;
use output::{LinkMeasured, Measured};
use record::{Run, System};
use session::{START, Session, Setup};

/// What `migrator bench` is told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Migrations of each case [default: 20, or what the suite says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: Option<u32>,
    /// A file of cases and their bars, like tests/bench/acceptance.toml, instead of one case by options
    #[arg(long, value_name = "FILE")]
    suite: Option<PathBuf>,
    #[command(flatten)]
    case: Case,
    /// The vmm program [default: the one beside this program, or in PATH]
    #[arg(long, value_name = "PATH", help_heading = "Programs")]
    vmm: Option<PathBuf>,
    /// Directory of the guests that tests/bench/Makefile builds [default: ../bench beside this program's directory]
    #[arg(long, value_name = "DIR", env = "PARTITA_BENCH_PROGRAMS", help_heading = "Programs")]
    programs: Option<PathBuf>,
    /// QEMU for --peer
    #[arg(long, value_name = "PATH", default_value = "qemu-system-x86_64", help_heading = "Programs")]
    qemu: PathBuf,
    /// QEMU's accelerator [default: kvm if /dev/kvm can be used, else tcg]
    #[arg(long, value_name = "NAME", value_parser = ["kvm", "tcg"], help_heading = "Programs")]
    accelerator: Option<String>,
    /// Measure only the peer (to look at it where partitions cannot run)
    #[arg(long, help_heading = "Programs")]
    only_peer: bool,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write a row for every run as CSV
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    csv: Option<PathBuf>,
    /// Draw blackouts, throughput and rounds into this directory
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    svg: Option<PathBuf>,
}

/// Programs that are used.
struct Programs {
    vmm: PathBuf,
    guests: PathBuf,
    accelerator: &'static str,
}

impl Programs {
    fn find(options: &Options) -> Self {
        let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
        let vmm = beside.as_ref().map(|directory| directory.join("vmm")).filter(|path| path.exists());
        let guests = beside.map_or_else(|| "bench".into(), |directory| directory.join("../bench"));
        let kvm = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        let accelerator = match options.accelerator.as_deref() {
            Some("kvm") => "kvm",
            Some(_) => "tcg",
            None if kvm => "kvm",
            None => "tcg",
        };
        Self {
            vmm: options.vmm.clone().or(vmm).unwrap_or_else(|| "vmm".into()),
            guests: options.programs.clone().unwrap_or(guests),
            accelerator,
        }
    }

    fn check(&self, case: &Case) -> Result<(), BenchError> {
        let ours = "run `make -C tests/bench`, or give the directory with --programs";
        let theirs = "give an existing static ELF with --elf";
        let (path, remedy) = match (&case.elf, case.workload()) {
            (Some(elf), _) => (elf.clone(), theirs),
            (None, case::Workload::Stencil) => (self.guests.join("stencil"), ours),
            _ => (self.guests.join("beat"), ours),
        };
        let guest = case.peer.map(|_| (self.guests.join("pvh.elf"), ours));
        for (path, remedy) in [(path, remedy)].into_iter().chain(guest) {
            fs::File::open(&path).map_err(|source| BenchError::Missing { path, remedy, source })?;
        }
        Ok(())
    }
}

/// Measures, and prints and writes the results. Numbers do not make it fail; a migration that fails does.
///
/// # Errors
/// The first thing that went wrong. Nothing that was started is left.
pub fn run(options: &Options) -> Result<(), BenchError> {
    processes::watch_signals();
    let mut cases = match &options.suite {
        Some(path) => case::read_suite(path)?,
        None => vec![options.case.clone()],
    };
    let programs = Programs::find(options);
    for case in &mut cases {
        case.runs = options.runs.unwrap_or(case.runs);
        case.check()?;
        programs.check(case)?;
        if options.only_peer && case.peer.is_none() {
            return Err(BenchError::Usage("--only-peer without a peer: add --peer qemu".into()));
        }
    }
    let mut measured = Vec::new();
    for case in cases {
        let result = measure(options, &programs, case)?;
        output::print(&result);
        measured.push(result);
        // After every case, so that hours are not lost when a late one fails.
        write(options, &measured)?;
    }
    Ok(())
}

fn write(options: &Options, measured: &[Measured]) -> Result<(), BenchError> {
    let write = |path: &PathBuf, bytes: Vec<u8>| {
        fs::write(path, bytes).map_err(|source| BenchError::Write { path: path.clone(), source })
    };
    if let Some(path) = &options.json {
        write(path, output::json(measured))?;
    }
    if let Some(path) = &options.csv {
        write(path, output::csv(measured).into_bytes())?;
    }
    if let Some(directory) = &options.svg {
        let failed = |source| BenchError::Write { path: directory.clone(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        for (name, picture) in measured.last().map(plot::pictures).unwrap_or_default() {
            let path = directory.join(name);
            let picture = picture.map_err(|said| BenchError::Draw { path: path.clone(), said })?;
            write(&path, picture.into_bytes())?;
        }
    }
    Ok(())
}

fn measure(options: &Options, programs: &Programs, case: Case) -> Result<Measured, BenchError> {
    let hosts = case.link.map_or_else(|| Ok(Hosts::loopback()), Hosts::linked)?;
    let temporary = tempfile::Builder::new().prefix("bench-").tempdir();
    let temporary = temporary.map_err(|source| BenchError::Write { path: std::env::temp_dir(), source })?;
    let setup = Setup {
        case: &case,
        hosts: &hosts,
        vmm: &programs.vmm,
        qemu: &options.qemu,
        accelerator: programs.accelerator,
        programs: &programs.guests,
        directory: temporary.path(),
    };
    let iperf3_bits_per_s = hosts.iperf3(&setup.log())?;
    let mut systems = Vec::new();
    if !options.only_peer {
        systems.push(System::Partita);
    }
    if case.peer == Some(Peer::Qemu) {
        systems.push(System::Qemu);
    }
    let mut peer_version = None;
    let runs = migrate_all(&setup, &systems, &mut peer_version)?;
    let link = case.link.zip(iperf3_bits_per_s);
    let link = link.map(|(rate, bits)| LinkMeasured { rate, iperf3_bits_per_s: bits });
    let peer = peer_version.map(|version| output::PeerDescribed {
        name: "qemu",
        version,
        accelerator: programs.accelerator,
        comparable: programs.accelerator == "kvm",
    });
    Ok(Measured::new(case, runs, peer, link))
}

/// All runs. One system alone moves on from process to process; two take turns, and each is started anew for its turn, so
/// that the other one is not there.
fn migrate_all(
    setup: &Setup,
    systems: &[System],
    peer_version: &mut Option<String>,
) -> Result<Vec<Run>, BenchError> {
    let case = setup.case;
    let progress = ProgressBar::new(u64::from(case.runs) * systems.len() as u64);
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} migrations, {eta} left");
    progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut runs = Vec::new();
    let mut session: Option<Box<dyn Session + '_>> = None;
    for run in 1..=case.runs {
        for system in systems {
            progress.set_message(format!("{} ({})", case.workload_name(), system.name()));
            let mut current = match session.take() {
                Some(session) => session,
                None => start(setup, *system, run, peer_version)?,
            };
            runs.push(migrate_once(setup, *system, run, current.as_mut())?);
            progress.inc(1);
            session = (systems.len() == 1).then_some(current);
        }
    }
    progress.finish_and_clear();
    Ok(runs)
}

fn start<'a>(
    setup: &'a Setup<'a>,
    system: System,
    run: u32,
    peer_version: &mut Option<String>,
) -> Result<Box<dyn Session + 'a>, BenchError> {
    let session: Box<dyn Session + 'a> = match system {
        System::Partita => Box::new(partita::Partita::start(setup, run)?),
        System::Qemu => {
            let qemu = qemu::Qemu::start(setup, run)?;
            *peer_version = Some(qemu.version.clone());
            Box::new(qemu)
        }
    };
    if setup.case.observer() != Observer::None {
        await_observation(setup, system, session.as_ref(), 1)?;
    }
    Ok(session)
}

fn await_observation(
    setup: &Setup,
    system: System,
    session: &dyn Session,
    until_us: u64,
) -> Result<(), BenchError> {
    let seen = session.observation();
    let known = || (seen.known_until_us() >= until_us).then_some(());
    processes::wait_for(START, known)?.ok_or_else(|| BenchError::Blind {
        who: system.name(),
        waited_s: START.as_secs(),
        said: processes::last_words(&setup.log()),
    })
}

fn migrate_once(
    setup: &Setup,
    system: System,
    run: u32,
    session: &mut dyn Session,
) -> Result<Run, BenchError> {
    let quiet = Duration::from_millis(setup.case.quiet_ms);
    let quiet_us = setup.case.quiet_ms * 1000;
    processes::sleep(quiet)?;
    let moved = session.migrate(run)?;
    processes::sleep(quiet)?;
    if setup.case.observer() == Observer::None {
        return Ok(Run::new(system, run, moved, None, quiet_us));
    }
    await_observation(setup, system, session, moved.end_us + quiet_us.max(record::AFTER_US))?;
    Ok(Run::new(system, run, moved, Some(session.observation()), quiet_us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};
    use migrator::transport::Transport;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_command_line_is_consistent_and_takes_what_it_took() {
        Arguments::command().debug_assert();
        let line =
            "bench --vmm target/release/vmm --elf writer --memory 256M --runs 20 --json b.json -- 4096 0 100";
        let options = Arguments::try_parse_from(line.split(' ')).unwrap().options;
        assert_eq!(options.case.arguments, ["4096", "0", "100"]);
        assert_eq!((options.case.observer(), options.case.ranks()), (Observer::None, 1));
        let options = Arguments::try_parse_from(["bench", "--transport", "rdma"]).unwrap().options;
        assert_eq!(options.case.transport, Transport::Rdma);
        for wrong in
            ["bench --elf x --workload idle", "bench --link fast", "bench --runs 0", "bench --transport udp"]
        {
            assert!(Arguments::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn missing_programs_are_named_before_anything_is_started() {
        let line = "bench --programs /no/such --workload idle";
        let options = Arguments::try_parse_from(line.split(' ')).unwrap().options;
        let error = run(&options).unwrap_err();
        assert_eq!(error.status(), 2);
        assert!(error.to_string().contains("make -C tests/bench"), "{error}");
    }
}
