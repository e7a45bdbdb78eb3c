//! Moves one partition between fresh `vmm` processes of this machine and collects their reports.

mod api;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use migrator::clock;
use migrator::report::MigrateReport;
use serde::Serialize;
use thiserror::Error;

use api::ApiError;

/// How long a started process may take to answer.
const START: Duration = Duration::from_secs(10);
/// How long a process whose partition moved may take to end.
const END: Duration = Duration::from_secs(5);

/// What `migrator bench` is told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The vmm program.
    #[arg(long, value_name = "PATH", default_value = "vmm")]
    vmm: PathBuf,
    /// The static ELF to run in the partition; it must run longer than the benchmark.
    #[arg(long, value_name = "PATH")]
    elf: PathBuf,
    /// Memory of the partition, as `vmm run --memory` takes it.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Migrations to measure.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Page streams of each migration.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    streams: u8,
    /// Writes every report and the summary as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Arguments of the ELF.
    #[arg(trailing_var_arg = true)]
    arguments: Vec<String>,
}

/// Why nothing was measured.
#[derive(Debug, Error)]
pub enum BenchError {
    /// No such ELF.
    #[error("cannot read the ELF {path}: give an existing static ELF with --elf")]
    Elf {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("cannot start {path}: build it with `make build` and give its path with --vmm")]
    Start {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A process ended or did not answer.
    #[error("{socket} did not become {wanted}: see the output of vmm above")]
    NotReady {
        /// Its API socket.
        socket: PathBuf,
        /// What was waited for.
        wanted: &'static str,
    },
    /// A call of the API failed.
    #[error("migration {run} of {runs} failed")]
    Migrate {
        /// From 1.
        run: u32,
        /// Of how many.
        runs: u32,
        /// What the API said.
        #[source]
        source: ApiError,
    },
}

impl BenchError {
    /// Exit status: 2 for wrong use, 1 for a failure.
    pub fn status(&self) -> u8 {
        if matches!(self, Self::Elf { .. } | Self::Start { .. }) { 2 } else { 1 }
    }
}

/// One column of the table.
#[derive(Debug, Serialize)]
struct Summary {
    p50: f64,
    p90: f64,
    max: f64,
}

#[derive(Serialize)]
struct Measured<'a> {
    streams: u8,
    blackout_ms: Summary,
    total_ms: Summary,
    rounds: Summary,
    bytes: Summary,
    reports: &'a [MigrateReport],
}

/// A process that is killed when nobody needs it any longer.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let start = clock::now();
        while start.elapsed() < END {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            clock::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the benchmark and prints its table.
pub fn run(options: &Options) -> Result<(), BenchError> {
    fs::File::open(&options.elf).map_err(|source| BenchError::Elf { path: options.elf.clone(), source })?;
    let path = std::env::temp_dir().join(format!("migrator-bench-{}", std::process::id()));
    fs::create_dir(&path).map_err(|source| BenchError::Write { path: path.clone(), source })?;
    let directory = Directory(path);
    let reports = measure(options, &directory.0)?;
    let measured = Measured {
        streams: options.streams,
        blackout_ms: summary(reports.iter().map(|report| report.blackout_ms)),
        total_ms: summary(reports.iter().map(|report| report.total_s * 1e3)),
        rounds: summary(reports.iter().map(|report| report.rounds.len() as f64)),
        bytes: summary(reports.iter().map(|report| report.bytes as f64)),
        reports: &reports,
    };
    println!("{} migrations, {} page streams", reports.len(), options.streams);
    println!("{:<12} {:>12} {:>12} {:>12}", "", "p50", "p90", "max");
    let columns = [("blackout ms", &measured.blackout_ms), ("total ms", &measured.total_ms)];
    for (name, column) in
        columns.into_iter().chain([("rounds", &measured.rounds), ("bytes", &measured.bytes)])
    {
        println!("{name:<12} {:>12.2} {:>12.2} {:>12.2}", column.p50, column.p90, column.max);
    }
    if let Some(path) = &options.json {
        let write = || fs::write(path, serde_json::to_vec_pretty(&measured)?);
        write().map_err(|source: io::Error| BenchError::Write { path: path.clone(), source })?;
    }
    Ok(())
}

fn measure(options: &Options, directory: &Path) -> Result<Vec<MigrateReport>, BenchError> {
    let mut command = Command::new(&options.vmm);
    command.arg("run").arg("--state-dir").arg(directory);
    if let Some(memory) = &options.memory {
        command.arg("--memory").arg(memory);
    }
    command.arg(&options.elf).args(&options.arguments);
    // The supervisor of `vmm run` stays until the end; it owns the terminal.
    let mut supervisor = start(options, &mut command)?;
    let mut socket = directory.join("rank-0.sock");
    let mut current: Option<Process> = None;
    let mut reports = Vec::new();
    let result = (1..=options.runs).try_for_each(|run| {
        await_state(&socket, "running")?;
        let next = directory.join(format!("receive-{run}.sock"));
        let mut command = Command::new(&options.vmm);
        command.args(["receive", "--listen", "tcp:127.0.0.1:0", "--api-socket"]).arg(&next);
        let receiver = start(options, &mut command)?;
        let listen = await_state(&next, "waiting")?;
        let body = serde_json::json!({ "to": listen, "streams": options.streams });
        let failed = |source| BenchError::Migrate { run, runs: options.runs, source };
        reports.push(api::post(&socket, "/v1/migrate", &body).map_err(failed)?);
        socket = next.clone();
        current = Some(receiver);
        Ok(())
    });
    let _ = api::post::<serde_json::Value>(&socket, "/v1/stop", &serde_json::json!({}));
    if result.is_err() {
        // Nobody will end by itself after a failure.
        for process in current.iter_mut().chain([&mut supervisor]) {
            let _ = process.0.kill();
        }
    }
    result.map(|()| reports)
}

fn start(options: &Options, command: &mut Command) -> Result<Process, BenchError> {
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    started.map(Process).map_err(|source| BenchError::Start { path: options.vmm.clone(), source })
}

/// Waits until the process behind `socket` is in state `wanted`; gives where it listens, if it does.
fn await_state(socket: &Path, wanted: &'static str) -> Result<String, BenchError> {
    let begin = clock::now();
    while begin.elapsed() < START {
        if let Ok(status) = api::get::<serde_json::Value>(socket, "/v1/status")
            && status["state"] == wanted
        {
            return Ok(status["listen"].as_str().unwrap_or_default().to_owned());
        }
        clock::sleep(Duration::from_millis(5));
    }
    Err(BenchError::NotReady { socket: socket.to_owned(), wanted })
}

/// Percentiles by nearest rank.
fn summary(values: impl Iterator<Item = f64>) -> Summary {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let rank = |part: f64| {
        let index = (part * values.len() as f64).ceil() as usize;
        values.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    };
    Summary { p50: rank(0.5), p90: rank(0.9), max: rank(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let column = summary((1..=10).rev().map(f64::from));
        assert_eq!((column.p50, column.p90, column.max), (5.0, 9.0, 10.0));
        assert_eq!(summary([7.0].into_iter()).p90, 7.0);
    }
}
