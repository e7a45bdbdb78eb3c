//! `calibration`: how well a coordinator predicts moves of partitions that compute all the time. See docs/bench.md.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use partita_tests::cluster::Cluster;
use partita_tests::machine::{load_average, two_processors};
use partita_tests::{Bench, Process, Result, binaries, interrupt};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["a", "b"];
const RANKS: usize = 2;
/// What is promised: no more than this at the 90th percentile.
const ERROR_P90_MAX: f64 = 0.25;

/// Moves two ranks of heat to and fro between two one-processor hosts, and compares what the coordinator predicted with what each move took
#[derive(Debug, Parser)]
#[command(name = "calibration")]
struct Options {
    /// Moves of each of the two ranks
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=5000))]
    moves: u32,
    /// Grid of heat: SIZE x SIZE cells, all of which each step rewrites
    #[arg(long, value_name = "SIZE", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(16..=4096))]
    size: u32,
    /// Time between two moves, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 700, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pause_ms: u64,
    /// Processors of the two hosts
    #[arg(long, value_name = "A,B", default_value = "0,1", value_delimiter = ',', num_args = 1)]
    processors: Vec<u16>,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// End with status 1 unless predictions are as good as is promised
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    interrupt::measurement("calibration", options.check, || measure(&options))
}

/// Whether predictions are as good as is promised.
fn measure(options: &Options) -> Result<bool> {
    let [first, second] = two_processors(&options.processors)?.map(|it| it.to_string());
    let bench = Bench::new()?;
    let hosts = [(HOSTS[0], first.as_str(), false), (HOSTS[1], second.as_str(), false)];
    // Nobody else moves anything.
    let cluster = Cluster::start(&bench, &["--sustain-s=1000000"], &hosts)?;
    let mut client = submit(options, &bench, &cluster)?;
    let table = move_about(options, &cluster, &mut client)?;
    let load = load_average();
    cluster.json(&["stop", "heat-1"])?;
    client.wait(20)?;
    cluster.end()?;
    println!("{} moves of each rank, {} ms apart; load average {load}", options.moves, options.pause_ms);
    let met = ["duration", "blackout"].map(|what| print(what, &table[what]));
    if let Some(path) = &options.json {
        let all = json!({ "load_average": load, "calibration": table });
        std::fs::write(path, serde_json::to_vec_pretty(&all)?)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(met.iter().all(|met| *met))
}

fn submit(options: &Options, bench: &Bench, cluster: &Cluster) -> Result<Process> {
    let size = options.size.to_string();
    // It does not end before it is stopped.
    let arguments = ["--size", &size, "--steps", "1000000000", "--every", "10"];
    let text = format!(
        "name = \"heat\"\nranks = {RANKS}\nexecutable = {:?}\nargs = {arguments:?}\nmemory = \"512M\"\nmigrate = true\n\
         strategy = \"pinned\"\n[pinned]\n0 = {:?}\n1 = {:?}\n",
        binaries::app("heat")?,
        HOSTS[0],
        HOSTS[1],
    );
    let path = bench.path().join("heat.toml");
    std::fs::write(&path, text)?;
    let mut client = cluster.submit(&path)?;
    match cluster.wait_running(RANKS, &mut [&mut client])? {
        Some(_) => Ok(client),
        None => Err(client.describe().into()),
    }
}

/// Moves the ranks in turn, each to the host where it is not; the coordinator's table of predictions.
fn move_about(options: &Options, cluster: &Cluster, client: &mut Process) -> Result<Value> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} moves, {eta} left")?;
    let bar = ProgressBar::new(u64::from(options.moves) * RANKS as u64).with_style(style);
    for number in 0..options.moves as usize {
        for rank in 0..RANKS {
            if interrupt::is_interrupted() {
                return Err("interrupted".into());
            }
            if client.status()?.is_some() {
                return Err(client.describe().into());
            }
            std::thread::sleep(Duration::from_millis(options.pause_ms));
            let to = HOSTS[(rank + number + 1) % HOSTS.len()];
            cluster.json(&["migrate", "heat-1", &rank.to_string(), to])?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    cluster.json(&["events", "--calibration"])
}

fn print(what: &str, it: &Value) -> bool {
    let percent = |name: &str| it[name].as_f64().map_or(f64::NAN, |error| 100.0 * error);
    let met = it["error_p90"].as_f64().is_some_and(|error| error <= ERROR_P90_MAX);
    let verdict = if met { "met" } else { "missed" };
    println!(
        "{what}: off by {:.0} % (p50), {:.0} % (p90); promised: {:.0} % (p90), {verdict}",
        percent("error_p50"),
        percent("error_p90"),
        100.0 * ERROR_P90_MAX
    );
    met
}
