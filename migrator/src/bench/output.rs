//! Results as a table for people, as JSON and as CSV.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::case::{Bar, Case, Statistic};
use super::link::Rate;
use super::record::{Column, Run, System};
use super::stats::{Ratio, Summary};

/// Version of the JSON: another number means that something that was there is not, or means something else.
const FORMAT: u32 = 1;
/// Parts of the blackout in the order in which they happen; others follow by name.
const PARTS: [&str; 6] = ["pause_ms", "harvest_ms", "save_ms", "pages_ms", "ready_ms", "commit_ms"];
/// Columns in which two systems are compared.
const COMPARED: [Column; 3] = [Column::ObservedMs, Column::TotalMs, Column::Mib];

/// The other system.
#[derive(Debug, Clone, Serialize)]
pub struct PeerDescribed {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// What runs its guest.
    pub accelerator: &'static str,
    /// Whether its numbers may be put beside ours.
    pub comparable: bool,
}

/// The link, as something else measured it.
#[derive(Debug, Clone, Serialize)]
pub struct LinkMeasured {
    /// What was asked for.
    pub rate: Rate,
    /// What iperf3 got through it.
    pub iperf3_bits_per_s: f64,
}

/// Everything of one system.
#[derive(Debug, Clone, Serialize)]
pub struct SystemMeasured {
    /// Quantities over all runs, by the name of their column.
    pub summary: BTreeMap<&'static str, Summary>,
    /// Parts of the source's blackout over all runs, milliseconds by their names.
    pub blackout_parts: BTreeMap<String, Summary>,
    /// Every run.
    pub runs: Vec<Run>,
}

/// A bar and what was measured.
#[derive(Debug, Clone, Serialize)]
pub struct BarMeasured {
    /// The bar.
    pub bar: Bar,
    /// Ours; `None` if it was not measured.
    pub measured: Option<f64>,
    /// The limit.
    pub limit: Option<f64>,
    /// Whether it is met; `None` if that cannot be said.
    pub met: Option<bool>,
}

/// Everything of one case.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// What was measured.
    pub case: Case,
    /// Whether this machine is emulated, so that speeds mean nothing.
    pub emulated: bool,
    /// The other system.
    pub peer: Option<PeerDescribed>,
    /// The link.
    pub link: Option<LinkMeasured>,
    /// Ours, and the other one's.
    pub systems: BTreeMap<System, SystemMeasured>,
    /// Ours by the other one's, by column.
    pub ratios: BTreeMap<&'static str, Ratio>,
    /// Bars.
    pub bars: Vec<BarMeasured>,
}

impl Measured {
    /// Summarises the runs of a case.
    pub fn new(case: Case, runs: Vec<Run>, peer: Option<PeerDescribed>, link: Option<LinkMeasured>) -> Self {
        let mut by_system: BTreeMap<System, Vec<Run>> = BTreeMap::new();
        runs.into_iter().for_each(|run| by_system.entry(run.system).or_default().push(run));
        let systems: BTreeMap<_, _> =
            by_system.into_iter().map(|(system, runs)| (system, summarise(runs))).collect();
        let ratios = ratios(&systems);
        let mut measured = Self {
            case,
            emulated: std::env::var_os("PARTITA_EMULATED").is_some(),
            peer,
            link,
            systems,
            ratios,
            bars: Vec::new(),
        };
        measured.bars = measured.case.bars.iter().map(|bar| measured.check(bar)).collect();
        measured
    }

    /// A statistic of a system.
    fn statistic(&self, system: System, bar: &Bar) -> Option<f64> {
        let summary = self.systems.get(&system)?.summary.get(name(bar.column))?;
        Some(match bar.statistic {
            Statistic::P50 => summary.p50,
            Statistic::P90 => summary.p90,
            Statistic::P99 => summary.p99,
            Statistic::Max => summary.max,
        })
    }

    fn check(&self, bar: &Bar) -> BarMeasured {
        let measured = self.statistic(System::Partita, bar);
        let theirs = bar.times_peer.zip(self.statistic(System::Qemu, bar)).map(|(times, peer)| times * peer);
        let limit = match (bar.times_peer, theirs, bar.at_most) {
            (Some(_), None, _) => None,
            (_, theirs, at_most) => theirs.into_iter().chain(at_most).reduce(f64::min),
        };
        let met = measured.zip(limit).map(|(measured, limit)| measured <= limit);
        BarMeasured { bar: bar.clone(), measured, limit, met }
    }
}

fn summarise(runs: Vec<Run>) -> SystemMeasured {
    let column = |column: Column| Summary::of(runs.iter().filter_map(|run| run.value(column)));
    let summary = Column::ALL.into_iter().filter_map(|c| Some((name(c), column(c)?))).collect();
    let mut parts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (part, ms) in runs.iter().flat_map(|run| &run.reported.breakdown) {
        parts.entry(part.clone()).or_default().push(*ms);
    }
    let part = |(name, values): (String, Vec<f64>)| Some((name, Summary::of(values)?));
    SystemMeasured { summary, blackout_parts: parts.into_iter().filter_map(part).collect(), runs }
}

fn ratios(systems: &BTreeMap<System, SystemMeasured>) -> BTreeMap<&'static str, Ratio> {
    let (Some(ours), Some(theirs)) = (systems.get(&System::Partita), systems.get(&System::Qemu)) else {
        return BTreeMap::new();
    };
    let ratio = |column: Column| {
        let pairs = ours.runs.iter().zip(&theirs.runs);
        let pairs: Vec<_> = pairs.filter_map(|(a, b)| a.value(column).zip(b.value(column))).collect();
        Some((name(column), Ratio::of(&pairs)?))
    };
    COMPARED.into_iter().filter_map(ratio).collect()
}

/// Name of a column in files.
fn name(column: Column) -> &'static str {
    match column {
        Column::ObservedMs => "observed_ms",
        Column::QuietMs => "quiet_ms",
        Column::QuietGapP99Ms => "quiet_gap_p99_ms",
        Column::BlackoutMs => "blackout_ms",
        Column::TotalMs => "total_ms",
        Column::Rounds => "rounds",
        Column::Mib => "mib",
        Column::Round0MibPerS => "round0_mib_per_s",
        Column::DuringPercent => "during_percent",
        Column::AfterPercent => "after_percent",
        Column::BlackoutErrorPercent => "blackout_error_percent",
        Column::TotalErrorPercent => "total_error_percent",
    }
}

/// Prints a case on stdout.
pub fn print(measured: &Measured) {
    print!("{}", table(measured));
}

/// The table of a case.
pub fn table(measured: &Measured) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_table(&mut text, measured);
    text
}

fn write_table(text: &mut String, measured: &Measured) -> std::fmt::Result {
    let case = &measured.case;
    if !case.name.is_empty() {
        writeln!(text, "== {}", case.name)?;
    }
    writeln!(text, "{}", case.describe())?;
    writeln!(text, "{} migrations; {}", case.runs, observer(measured))?;
    if measured.emulated {
        writeln!(text, "EMULATED MACHINE: times below mean nothing as speeds")?;
    }
    for (system, results) in &measured.systems {
        let version = measured.peer.as_ref().filter(|_| *system == System::Qemu);
        let version = version.map(|p| format!(" {} -accel {}", p.version, p.accelerator)).unwrap_or_default();
        let heading = format!("{}{version}", system.name());
        writeln!(text, "\n{heading:<32} {:>10} {:>10} {:>10} {:>10}", "p50", "p90", "p99", "max")?;
        if measured.peer.as_ref().is_some_and(|p| *system == System::Qemu && !p.comparable) {
            writeln!(text, "  (software emulation: not comparable with partitions under KVM)")?;
        }
        for column in Column::ALL {
            if let Some(summary) = results.summary.get(name(column)) {
                row(text, column.title(), summary)?;
            }
            if column == Column::BlackoutMs {
                write_parts(text, results)?;
            }
        }
    }
    for (column, ratio) in &measured.ratios {
        writeln!(
            text,
            "{column}: partita / qemu {:.2} (medians), {:.2} (median of {} pairs), smaller in {}",
            ratio.of_medians, ratio.median_of_ratios, ratio.pairs, ratio.smaller
        )?;
    }
    write_link(text, measured)?;
    for bar in &measured.bars {
        writeln!(text, "{}", bar_line(bar))?;
    }
    writeln!(text)
}

fn observer(measured: &Measured) -> String {
    use super::observe::Observer;
    let who = match measured.case.observer() {
        Observer::Partner => "observed by a partition that stays",
        Observer::Host => "observed by this process",
        Observer::None => return "not observed from outside".to_owned(),
    };
    let rate = measured.systems.values().flat_map(|system| &system.runs).filter_map(|run| run.beats_per_s);
    match Summary::of(rate) {
        Some(rate) => format!("{who}, {:.0} beats/s without a move", rate.p50),
        None => who.to_owned(),
    }
}

fn row(text: &mut String, title: &str, summary: &Summary) -> std::fmt::Result {
    write!(text, "{title:<32}")?;
    for value in [summary.p50, summary.p90, summary.p99, summary.max] {
        write!(text, " {:>10}", figure(value))?;
    }
    writeln!(text)
}

/// Three figures or more.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn write_parts(text: &mut String, results: &SystemMeasured) -> std::fmt::Result {
    let parts = &results.blackout_parts;
    let known = PARTS.iter().filter_map(|name| parts.get_key_value(*name));
    let others = parts.iter().filter(|(name, _)| !PARTS.contains(&name.as_str()));
    for (name, summary) in known.chain(others) {
        row(text, &format!("  {} [ms]", name.trim_end_matches("_ms")), summary)?;
    }
    Ok(())
}

fn write_link(text: &mut String, measured: &Measured) -> std::fmt::Result {
    let Some(link) = &measured.link else { return Ok(()) };
    let iperf3 = link.iperf3_bits_per_s;
    write!(text, "link of {}: iperf3 {:.2} Gbit/s", link.rate, iperf3 * 1e-9)?;
    let ours = measured.systems.get(&System::Partita).and_then(|ours| ours.summary.get("round0_mib_per_s"));
    match ours.map(|summary| summary.p50 * f64::from(1 << 20) * 8.0) {
        Some(bits) => {
            writeln!(text, ", round 0 {:.2} Gbit/s (median), {:.3} of it", bits * 1e-9, bits / iperf3)
        }
        None => writeln!(text),
    }
}

fn bar_line(bar: &BarMeasured) -> String {
    let verdict = match bar.met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "not known",
    };
    let shown = |value: Option<f64>| value.map_or("?".to_owned(), figure);
    let times = bar.bar.times_peer.map(|times| format!(" ({times} of the peer's)")).unwrap_or_default();
    let statistic = format!("{:?}", bar.bar.statistic).to_lowercase();
    format!(
        "bar {verdict}: {statistic} of {} is {}, at most {}{times}",
        name(bar.bar.column),
        shown(bar.measured),
        shown(bar.limit)
    )
}

/// All cases as JSON.
pub fn json(measured: &[Measured]) -> Vec<u8> {
    #[derive(Serialize)]
    struct File<'a> {
        format: u32,
        program: &'static str,
        version: &'static str,
        processors: usize,
        cases: &'a [Measured],
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let version = env!("CARGO_PKG_VERSION");
    let file = File { format: FORMAT, program: "migrator bench", version, processors, cases: measured };
    // Every key is a string and every value a plain one: there is nothing that could fail.
    let mut bytes = serde_json::to_vec_pretty(&file).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// One row for every run.
pub fn csv(measured: &[Measured]) -> String {
    let mut text = "case,workload,system,run,stop_reason".to_owned();
    Column::ALL.iter().for_each(|column| text.extend([",", name(*column)]));
    PARTS.iter().for_each(|part| text.extend([",", *part]));
    text.push('\n');
    for case in measured {
        for run in case.systems.values().flat_map(|system| &system.runs) {
            let quoted = case.case.name.replace('"', "\"\"");
            let reason = run.reported.stop_reason.as_deref().unwrap_or_default();
            let workload = case.case.workload_name();
            text.push_str(&format!("\"{quoted}\",{workload},{},{},{reason}", run.system.name(), run.run));
            let columns = Column::ALL.iter().map(|column| run.value(*column));
            let parts = PARTS.iter().map(|part| run.reported.breakdown.get(*part).copied());
            for value in columns.chain(parts) {
                text.push_str(&value.map_or(",".to_owned(), |value| format!(",{value:.6}")));
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use migrator::report::Prediction;

    use crate::bench::record::{Reported, Round, Slot, Work};

    /// A run whose numbers can be told apart.
    pub fn run(system: System, number: u32, factor: f64) -> Run {
        let round = |pages: u64, seconds: f64| Round {
            pages,
            zero_pages: 10,
            bytes: pages * 4096,
            seconds,
            dirty_pages_after: pages / 8,
        };
        let timeline = (-100..200).map(|slot| Slot {
            at_ms: f64::from(slot) * 10.0,
            work_per_s: match slot {
                0..=4 => 0.5e6,
                5..=6 => 0.0,
                _ => 1e6 + f64::from(slot % 7) * 1e4,
            },
        });
        Run {
            system,
            run: number,
            total_ms: 80.0 * factor,
            observed_ms: Some(2.0 * factor),
            quiet_ms: Some(0.25),
            quiet_gap_p99_ms: Some(0.05),
            beats_per_s: Some(24_000.0),
            work_unit: "pages",
            work: Some(Work { before: 1e6, during: 5e5, after: 9e5 }),
            reported: Reported {
                total_s: 0.079 * factor,
                blackout_ms: 1.5 * factor,
                bytes: (64 << 20) + u64::from(number),
                stop_reason: Some("converged".into()),
                rounds: vec![round(16_384, 0.05), round(2048, 0.01), round(256, 0.001)],
                round_count: None,
                breakdown: [("pause_ms", 0.5), ("ready_ms", 0.75)].map(|(n, v)| (n.to_owned(), v)).into(),
                prediction: Some(Prediction {
                    predicted_total_s: 0.079,
                    actual_total_s: 0.079,
                    predicted_blackout_ms: 1.2 * factor,
                    actual_blackout_ms: 1.5 * factor,
                }),
                brownout: None,
            },
            timeline: timeline.collect(),
        }
    }

    /// Three runs of each system.
    pub fn measured() -> Measured {
        let bars = "[[bar]]\ncolumn = \"observed_ms\"\nstatistic = \"p50\"\nat_most = 3.0\ntimes_peer = 0.5\n\
                    [[bar]]\ncolumn = \"total_ms\"\nstatistic = \"p90\"\nat_most = 1.0";
        let text = format!("name = \"64 \\\"MiB\\\"\"\nruns = 3\npeer = \"qemu\"\nlink = \"10gbit\"\n{bars}");
        let case: Case = toml::from_str(&text).unwrap();
        let ours = (1..=3).map(|n| run(System::Partita, n, f64::from(n)));
        let theirs = (1..=3).map(|n| run(System::Qemu, n, 5.0 * f64::from(n)));
        let peer =
            PeerDescribed { name: "qemu", version: "7.2.0".into(), accelerator: "tcg", comparable: false };
        let link = LinkMeasured { rate: "10gbit".parse().unwrap(), iperf3_bits_per_s: 9e9 };
        let mut measured = Measured::new(case, ours.chain(theirs).collect(), Some(peer), Some(link));
        measured.emulated = false;
        measured
    }

    #[test]
    fn the_table_says_what_was_measured_and_which_bars_are_met() {
        let text = table(&measured());
        for line in [
            "== 64 \"MiB\"",
            "writer of 64 MiB (16384 pages), as fast as it can, sequential; memory 256M, downtime limit 300 ms, 1 stream, link of 10gbit",
            "3 migrations; observed by this process, 24000 beats/s without a move",
            "blackout, observed [ms]                4          6          6          6",
            "  pause [ms]                         0.500      0.500      0.500      0.500",
            "  (software emulation: not comparable with partitions under KVM)",
            "observed_ms: partita / qemu 0.20 (medians), 0.20 (median of 3 pairs), smaller in 3",
            "link of 10gbit: iperf3 9.00 Gbit/s, round 0 10.74 Gbit/s (median), 1.193 of it",
            "bar MISSED: p50 of observed_ms is 4, at most 3 (0.5 of the peer's)",
            "bar MISSED: p90 of total_ms is 240, at most 1",
        ] {
            assert!(text.lines().any(|found| squeeze(found) == squeeze(line)), "{line}\n{text}");
        }
    }

    fn squeeze(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn bars_without_a_peer_are_not_known() {
        let mut case = measured().case;
        case.peer = None;
        let runs = vec![run(System::Partita, 1, 1.0)];
        let measured = Measured::new(case, runs, None, None);
        assert_eq!(measured.bars.iter().map(|bar| bar.met).collect::<Vec<_>>(), [None, Some(false)]);
        assert!(measured.ratios.is_empty());
    }

    #[test]
    fn csv_is_what_it_was() {
        let text = csv(&[measured()]);
        let golden = "case,workload,system,run,stop_reason,observed_ms,quiet_ms,quiet_gap_p99_ms,blackout_ms,total_ms,rounds,mib,\
            round0_mib_per_s,during_percent,after_percent,blackout_error_percent,total_error_percent,\
            pause_ms,harvest_ms,save_ms,pages_ms,ready_ms,commit_ms\n\
            \"64 \"\"MiB\"\"\",writer,partita,1,converged,2.000000,0.250000,0.050000,1.500000,80.000000,3.000000,64.000001,\
            1280.000000,50.000000,90.000000,20.000000,0.000000,0.500000,,,,0.750000,\n";
        assert!(text.starts_with(golden), "{text}");
        assert_eq!(text.lines().count(), 7);
        let commas = |line: &str| line.matches(',').count();
        assert!(text.lines().all(|line| commas(line) == commas(golden.lines().next().unwrap())));
    }

    #[test]
    fn json_has_every_run_and_can_be_read_back() {
        let value: serde_json::Value = serde_json::from_slice(&json(&[measured()])).unwrap();
        let case = &value["cases"][0];
        assert_eq!((&value["format"], &case["peer"]["comparable"]), (&1.into(), &false.into()));
        assert_eq!(case["systems"]["qemu"]["runs"].as_array().unwrap().len(), 3);
        assert_eq!(case["systems"]["partita"]["summary"]["observed_ms"]["p50"], 4.0);
        assert_eq!(case["systems"]["partita"]["runs"][0]["reported"]["rounds"][0]["pages"], 16_384);
        assert_eq!(case["ratios"]["total_ms"]["of_medians"], 0.2);
        assert_eq!(case["bars"][0]["met"], false);
        assert_eq!(case["case"]["memory"], "256M");
        let case: Case = serde_json::from_value(case["case"].clone()).unwrap();
        assert_eq!(case.runs, 3);
    }
}
