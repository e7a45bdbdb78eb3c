//! How far predictions were off, beside what came of them.

use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::thread;
use std::time::Duration;

use migrator::policy::OnTimeout;
use migrator::report::{Prediction, Request};

use super::moving::migrate;
use super::writer::{Load, Writer};

#[path = "../../src/bench/stats.rs"]
#[allow(dead_code, reason = "the bench's own arithmetic, of which this uses a part")]
mod stats;

use stats::Summary;

/// Moves of each case.
const RUNS: u64 = 10;
/// Pages of the memory: 512 MiB, of which so many are not zeros.
const PAGES: u64 = 131_072;
const NOISE_PAGES: u64 = 32_768;
/// How long the program runs before it is moved.
const WARM_UP: Duration = Duration::from_millis(50);
/// Small enough that cases that do not converge under the cap do not take long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Working set in pages, pages per second, random order.
const LOADS: [(u64, Option<u64>, bool); 7] = [
    (0, None, false),
    (16_384, Some(2_000), true),
    (16_384, Some(10_000), false),
    (1_024, None, false),
    (16_384, None, false),
    (16_384, None, true),
    (32_768, None, true),
];
/// In bytes per second.
const CAPS: [Option<u64>; 2] = [None, Some(100_000_000)];

/// Percent of what came.
struct Errors {
    total: Vec<f64>,
    blackout: Vec<f64>,
}

/// Moves every load with and without a cap, and prints the errors.
pub fn measure() {
    println!(
        "{} MiB, {} of them noise, over loopback, {RUNS} moves each; off by, percent (p50 p90 max); medians",
        PAGES / 256,
        NOISE_PAGES / 256
    );
    let mut all = Errors { total: Vec::new(), blackout: Vec::new() };
    for cap in CAPS {
        for (pages, rate, random) in LOADS {
            let runs =
                (0..RUNS).map(|seed| run(Load { pages, rate, random, seed: seed << 32 }, cap)).collect();
            let name = match (pages, rate) {
                (0, _) => "idle".to_owned(),
                (_, None) => format!("{} MiB, max, {}", pages / 256, order(random)),
                (_, Some(rate)) => format!("{} MiB, {rate} pages/s, {}", pages / 256, order(random)),
            };
            let cap = if cap.is_some() { "cap 100 MB/s" } else { "no cap" };
            report(&format!("{name}, {cap}"), runs, &mut all);
        }
    }
    println!("all: total {}, blackout {}", text(&all.total), text(&all.blackout));
}

fn order(random: bool) -> &'static str {
    if random { "random" } else { "sequential" }
}

/// One move.
fn run(load: Load, cap: Option<u64>) -> Prediction {
    let machine = Writer::new(PAGES, NOISE_PAGES);
    let change = |request: &mut Request| {
        (request.timeout, request.on_timeout) = (TIMEOUT, OnTimeout::Force);
        request.bandwidth_bytes_per_s = cap;
    };
    let stop = AtomicBool::new(false);
    let report = thread::scope(|scope| {
        scope.spawn(|| machine.run(load, &stop));
        thread::sleep(WARM_UP);
        let report = migrate(&machine, change, |_| ());
        stop.store(true, Release);
        report
    });
    report.prediction.expect("it moved")
}

fn report(name: &str, runs: Vec<Prediction>, all: &mut Errors) {
    let percent = |predicted: f64, actual: f64| (predicted - actual).abs() / actual * 100.0;
    let total: Vec<_> = runs.iter().map(|run| percent(run.predicted_total_s, run.actual_total_s)).collect();
    let blackout: Vec<_> =
        runs.iter().map(|run| percent(run.predicted_blackout_ms, run.actual_blackout_ms)).collect();
    let median = |of: fn(&Prediction) -> f64| Summary::of(runs.iter().map(of)).map_or(0.0, |all| all.p50);
    println!(
        "  {name:48} total {}, {:.2} s predicted, {:.2} s came; blackout {}, {:.2} ms predicted, {:.2} ms came; load {}",
        text(&total),
        median(|run| run.predicted_total_s),
        median(|run| run.actual_total_s),
        text(&blackout),
        median(|run| run.predicted_blackout_ms),
        median(|run| run.actual_blackout_ms),
        load_average()
    );
    all.total.extend(total);
    all.blackout.extend(blackout);
}

fn text(errors: &[f64]) -> String {
    Summary::of(errors.iter().copied())
        .map_or_else(String::new, |all| format!("{:.1} {:.1} {:.1}", all.p50, all.p90, all.max))
}

/// Of the last minute, as the kernel has it.
fn load_average() -> String {
    let all = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    all.split(' ').next().unwrap_or_default().to_owned()
}
