//! `messages`: how fast messages between partitions are, turn by turn with MPICH in the same run. See docs/bench.md.

mod output;
mod picture;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sched::sched_getaffinity;
use nix::unistd::Pid;
use partita_tests::machine::{Machine, load_average, two_processors};
use partita_tests::messages::{Measured, Plan, System};
use partita_tests::{Bench, Result, interrupt, is_emulated, limit};

use run::Runner;

/// 8-byte round trips, 1 MiB bandwidth, Allreduce and a halo exchange between partitions, turn by turn with MPICH
#[derive(Debug, Parser)]
#[command(name = "messages", max_term_width = 110)]
struct Options {
    /// Who takes turns: partitions, partitions-proxied, hosts, native, mpich-shm, mpich-tcp
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "partitions,hosts,native,mpich-shm,mpich-tcp",
        value_parser = |name: &str| System::named(name).ok_or("there is no such system")
    )]
    systems: Vec<System>,
    /// Runs of each, turn by turn; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    turns: u64,
    /// Round trips of 8 bytes of a run [default: 100000; 50 in the emulated machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    round_trips: Option<u64>,
    /// Transfers of 1 MiB there and back of a run [default: 500; 6 in the emulated machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    transfers: Option<u64>,
    /// Allreduces of 8 bytes of a run [default: 100000; 50 in the emulated machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    allreduces: Option<u64>,
    /// Round trips and Allreduces before, which are not timed [default: a twentieth]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    warm_up: Option<u64>,
    /// The halo exchange: tests/apps/heat on SIZE x SIZE cells [default: 512; 64 in the emulated machine]
    #[arg(long, value_name = "SIZE", value_parser = clap::value_parser!(u64).range(16..=8192))]
    halo_size: Option<u64>,
    /// Its steps [default: 200; 20 in the emulated machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    halo_steps: Option<u64>,
    /// Processors of the ranks, in turn
    #[arg(long, value_name = "A,B", default_value = "0,1", value_delimiter = ',', num_args = 1)]
    processors: Vec<u16>,
    /// Processors of the two hosts, lists as of vmm run --cpus; 0,2:1,3 gives each two [default: as --processors]
    #[arg(long, value_name = "LIST:LIST", value_delimiter = ':', num_args = 1)]
    host_processors: Option<Vec<String>>,
    /// How long a run may take, in seconds; 20 times as long in the emulated machine
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout_s: u64,
    /// Write every run and the state of this machine as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw every run
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// End with status 1 unless everything is as fast as is promised
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    interrupt::measurement("messages", options.check, || measure(&options))
}

/// How much is to be done.
fn plan(options: &Options) -> Result<Plan> {
    let processors = two_processors(&options.processors)?;
    let host_processors = match options.host_processors.as_deref() {
        None => processors.map(|it| it.to_string()),
        Some([first, second]) => [first.clone(), second.clone()],
        Some(_) => return Err("--host-processors wants two lists, for example 0,2:1,3".into()),
    };
    let default =
        |given: Option<u64>, real, emulated| given.unwrap_or(if is_emulated() { emulated } else { real });
    let round_trips = default(options.round_trips, 100_000, 50);
    let allreduces = default(options.allreduces, 100_000, 50);
    Ok(Plan {
        turns: options.turns,
        warm_up: options.warm_up.unwrap_or((round_trips.max(allreduces) / 20).max(1)),
        round_trips,
        transfers: default(options.transfers, 500, 6),
        allreduces,
        halo_size: default(options.halo_size, 512, 64),
        halo_steps: default(options.halo_steps, 200, 20),
        processors,
        host_processors,
    })
}

/// MPICH would say nothing of processors that are not there, and leave its ranks unpinned.
fn check_processors(plan: &Plan) -> Result {
    let mine = sched_getaffinity(Pid::from_raw(0))?;
    let is_mine = |processor: &u16| mine.is_set(usize::from(*processor)).unwrap_or(false);
    match plan.processors.iter().find(|processor| !is_mine(processor)) {
        None => Ok(()),
        Some(other) => Err(format!("--processors: {other} is none that this process may use").into()),
    }
}

/// Whether all that was promised was reached.
fn measure(options: &Options) -> Result<bool> {
    let plan = plan(options)?;
    check_processors(&plan)?;
    let systems: Vec<System> =
        System::ALL.into_iter().filter(|system| options.systems.contains(system)).collect();
    let bench = Bench::new()?;
    let timeout = limit(1) * u32::try_from(options.timeout_s).unwrap_or(u32::MAX);
    let runner = Runner::new(&bench, &plan, &systems, timeout)?;
    let mut measured = Measured {
        plan: plan.clone(),
        machine: Machine::here(),
        load_averages: vec![load_average()],
        runs: Vec::new(),
    };
    let length = plan.turns * systems.len() as u64;
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left")?;
    let bar = ProgressBar::new(length).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut halos: Vec<Vec<u8>> = Vec::new();
    for turn in 1..=plan.turns {
        for system in &systems {
            bar.set_message(format!("turn {turn}: {}", system.name()));
            let (run, halo) = runner.run(*system, turn).map_err(|e| format!("{}: {e}", system.name()))?;
            measured.runs.push(run);
            halos.extend(halo);
            bar.inc(1);
        }
        measured.load_averages.push(load_average());
        // After each, so that what was measured is not lost when the next one fails.
        output::write(&measured, options.json.as_deref(), options.svg.as_deref())?;
    }
    bar.finish_and_clear();
    if halos.iter().any(|halo| *halo != halos[0]) {
        return Err("results of the halo exchange differ between systems; this must not be".into());
    }
    bench.assert_nothing_left()?;
    print!("{}", output::table(&measured));
    Ok(measured.verdicts().iter().all(|verdict| verdict.missed_by == Some(0.0)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
        let options = Options::parse_from(["messages", "--host-processors", "0,2:1,3"]);
        assert_eq!(plan(&options).unwrap().host_processors, ["0,2", "1,3"]);
        assert!(Options::try_parse_from(["messages", "--systems", "partitions,lam"]).is_err());
        assert!(plan(&Options::parse_from(["messages", "--processors", "0"])).is_err());
        let missing = plan(&Options::parse_from(["messages", "--processors", "0,1023"])).unwrap();
        assert!(check_processors(&missing).is_err());
    }
}
