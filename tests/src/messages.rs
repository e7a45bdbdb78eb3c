//! Messages of several systems side by side: what a program said, medians, ratios, and what is promised.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Result;
use crate::machine::{Kvm, Machine};

/// Who carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// Partitions of this machine, through memory that both map.
    Partitions,
    /// Partitions of this machine, through sockets.
    PartitionsProxied,
    /// Partitions in two network namespaces, over TCP.
    Hosts,
    /// Our library in ordinary processes: no partition.
    Native,
    /// Debian's MPICH through shared memory.
    MpichShm,
    /// Debian's MPICH over loopback TCP.
    MpichTcp,
}

impl System {
    /// In the order in which they take turns.
    pub const ALL: [Self; 6] = [
        Self::MpichShm,
        Self::Partitions,
        Self::MpichTcp,
        Self::Hosts,
        Self::PartitionsProxied,
        Self::Native,
    ];

    /// As on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Partitions => "partitions",
            Self::PartitionsProxied => "partitions-proxied",
            Self::Hosts => "hosts",
            Self::Native => "native",
            Self::MpichShm => "mpich-shm",
            Self::MpichTcp => "mpich-tcp",
        }
    }

    /// The one with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.name() == name)
    }

    /// Whether it needs KVM.
    pub fn is_partitions(self) -> bool {
        matches!(self, Self::Partitions | Self::PartitionsProxied | Self::Hosts)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// 8 bytes there and back, microseconds, median of a run.
    RoundTripUs,
    /// The same, 99th percentile.
    RoundTripP99Us,
    /// 1 MiB there and back: bytes by half of the median time, 10^9 bytes per second.
    BandwidthGbPerS,
    /// Allreduce of 8 bytes on 2 ranks, microseconds, median of a run.
    AllreduceUs,
    /// A whole run of a halo exchange on 8 ranks, seconds.
    HaloS,
}

impl Measure {
    /// In the order of the table.
    pub const ALL: [Self; 5] =
        [Self::RoundTripUs, Self::RoundTripP99Us, Self::BandwidthGbPerS, Self::AllreduceUs, Self::HaloS];

    /// With its unit.
    pub fn title(self) -> &'static str {
        match self {
            Self::RoundTripUs => "8 B round trip [us]",
            Self::RoundTripP99Us => "its p99 [us]",
            Self::BandwidthGbPerS => "1 MiB [GB/s]",
            Self::AllreduceUs => "8 B Allreduce [us]",
            Self::HaloS => "halo, 8 ranks [s]",
        }
    }
}

/// What the program `messages` said of one measure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Of a message.
    pub bytes: u64,
    /// All that were made, also untimed ones.
    pub rounds: u64,
    /// Times that were taken.
    pub timed: u64,
    /// Of them.
    pub median_ns: f64,
    /// Of them.
    pub p99_ns: f64,
}

/// Names of the measures of the program.
pub const PHASES: [&str; 3] = ["round-trip", "transfer", "allreduce"];

/// Reads what `tests/bench/messages.c` printed: every measure once and complete, or an error.
pub fn parse(stdout: &str) -> Result<BTreeMap<&'static str, Line>> {
    let mut lines = BTreeMap::new();
    for phase in PHASES {
        let prefix = format!("{phase} bytes ");
        let mut found = stdout.lines().filter(|line| line.starts_with(&prefix));
        let text = found.next().ok_or_else(|| format!("the program says nothing of {phase}"))?;
        if found.next().is_some() {
            return Err(format!("the program says {phase} twice").into());
        }
        let line = parse_line(text.strip_prefix(phase).unwrap_or(text));
        lines.insert(phase, line.ok_or_else(|| format!("the program says {text:?}"))?);
    }
    match stdout.lines().last() {
        Some("end") => Ok(lines),
        _ => Err("the program did not come to its end".into()),
    }
}

fn parse_line(text: &str) -> Option<Line> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, bytes, _, rounds, _, timed, _, median, _, p99] = words.as_slice() else { return None };
    let names: Vec<_> = words.iter().step_by(2).copied().collect();
    if names != ["bytes", "rounds", "timed", "median_ns", "p99_ns"] {
        return None;
    }
    let line = Line {
        bytes: bytes.parse().ok()?,
        rounds: rounds.parse().ok()?,
        timed: timed.parse().ok()?,
        median_ns: median.parse().ok()?,
        p99_ns: p99.parse().ok()?,
    };
    let is_sane = line.timed > 0 && line.rounds >= line.timed && line.median_ns > 0.0;
    (is_sane && line.p99_ns >= line.median_ns).then_some(line)
}

/// Figures of one run by what was measured.
pub type Figures = BTreeMap<Measure, f64>;

/// Figures of a run of the program `messages`.
pub fn figures(lines: &BTreeMap<&'static str, Line>) -> Figures {
    let mut figures = Figures::new();
    if let Some(line) = lines.get("round-trip") {
        figures.insert(Measure::RoundTripUs, line.median_ns / 1e3);
        figures.insert(Measure::RoundTripP99Us, line.p99_ns / 1e3);
    }
    if let Some(line) = lines.get("transfer") {
        // Bytes per nanosecond are 10^9 bytes per second.
        figures.insert(Measure::BandwidthGbPerS, 2.0 * line.bytes as f64 / line.median_ns);
    }
    if let Some(line) = lines.get("allreduce") {
        figures.insert(Measure::AllreduceUs, line.median_ns / 1e3);
    }
    figures
}

/// Processor time that one round of a measure took, of all threads of one name of a rank's process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// Name of the measure in the program's words.
    pub phase: &'static str,
    /// Whose process.
    pub rank: u32,
    /// `vcpu`, `fabric`, or whatever else has used time.
    pub thread: String,
    /// Microseconds of a processor per round: a message there and one back.
    pub us_per_round: f64,
}

/// One run of one system.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Whose.
    pub system: System,
    /// From 1.
    pub turn: u64,
    /// What it gave.
    pub figures: Figures,
    /// What it cost; only where messages pass threads of ours.
    pub parts: Vec<Part>,
}

/// What a ratio has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Not more than.
    AtMost(f64),
    /// Not less than.
    AtLeast(f64),
}

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bar {
    /// Of what.
    pub measure: Measure,
    /// Whose.
    pub system: System,
    /// By whose in the same run.
    pub baseline: System,
    /// What the ratio of the medians has to be.
    pub limit: Limit,
}

const fn bar(measure: Measure, system: System, baseline: System, limit: Limit) -> Bar {
    Bar { measure, system, baseline, limit }
}

/// What issue 3 wants to be true.
pub const BARS: [Bar; 7] = [
    bar(Measure::RoundTripUs, System::Partitions, System::MpichShm, Limit::AtMost(1.5)),
    bar(Measure::RoundTripUs, System::Partitions, System::MpichTcp, Limit::AtMost(0.1)),
    bar(Measure::BandwidthGbPerS, System::Partitions, System::MpichShm, Limit::AtLeast(0.8)),
    bar(Measure::AllreduceUs, System::Partitions, System::MpichShm, Limit::AtMost(1.5)),
    bar(Measure::RoundTripUs, System::Hosts, System::MpichTcp, Limit::AtMost(5.0)),
    bar(Measure::BandwidthGbPerS, System::Hosts, System::MpichTcp, Limit::AtLeast(0.6)),
    bar(Measure::HaloS, System::Partitions, System::MpichShm, Limit::AtMost(1.2)),
];

/// A promise and what came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The promise.
    #[serde(flatten)]
    pub bar: Bar,
    /// Of the medians; unknown if one of the two was not measured.
    pub ratio: Option<f64>,
    /// Least and greatest ratio of one turn.
    pub ratios_of_turns: Option<[f64; 2]>,
    /// By which share of the limit it is missed; 0 if it is met, unknown if that cannot be said.
    pub missed_by: Option<f64>,
}

/// The middle one of some values (the mean of the middle two), if there are any.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

impl Bar {
    /// What came out of it.
    pub fn judge(&self, runs: &[Run]) -> Verdict {
        let ratio = ratio(runs, self.measure, self.system, self.baseline);
        let over = |ratio: f64| match self.limit {
            Limit::AtMost(limit) => ratio / limit - 1.0,
            Limit::AtLeast(limit) => 1.0 - ratio / limit,
        };
        let mut turns: Vec<f64> = runs
            .iter()
            .filter(|run| run.system == self.system)
            .filter_map(|run| {
                let base = runs.iter().find(|it| it.system == self.baseline && it.turn == run.turn)?;
                Some(run.figures.get(&self.measure)? / base.figures.get(&self.measure)?)
            })
            .collect();
        turns.sort_by(f64::total_cmp);
        Verdict {
            bar: *self,
            ratio,
            ratios_of_turns: turns.first().zip(turns.last()).map(|(least, most)| [*least, *most]),
            missed_by: ratio.map(|ratio| over(ratio).max(0.0)),
        }
    }
}

/// Median over the turns of a system.
pub fn median_of(runs: &[Run], system: System, measure: Measure) -> Option<f64> {
    median(
        runs.iter().filter(|run| run.system == system).filter_map(|run| run.figures.get(&measure).copied()),
    )
}

/// Of two systems' medians.
pub fn ratio(runs: &[Run], measure: Measure, system: System, baseline: System) -> Option<f64> {
    Some(median_of(runs, system, measure)? / median_of(runs, baseline, measure)?)
}

/// Medians of what a round of a measure cost, by rank and thread.
pub fn parts(runs: &[Run], system: System, phase: &str) -> Vec<Part> {
    let mut all: BTreeMap<(u32, &str), Vec<&Part>> = BTreeMap::new();
    let of_system = runs.iter().filter(|run| run.system == system);
    for part in of_system.flat_map(|run| &run.parts).filter(|part| part.phase == phase) {
        all.entry((part.rank, &part.thread)).or_default().push(part);
    }
    let middle = |parts: Vec<&Part>| {
        let us_per_round = median(parts.iter().map(|part| part.us_per_round))?;
        Some(Part { us_per_round, ..parts.first().copied()?.clone() })
    };
    all.into_values().filter_map(middle).collect()
}

/// What a round trip between two hosts would take with a processor for every thread, microseconds: fabric threads one after the
/// other, and what the partitions do besides, which is what a round trip on one host takes. What it takes to wake a thread is not in it.
pub fn with_a_processor_each_us(runs: &[Run]) -> Option<f64> {
    let parts = parts(runs, System::Hosts, "round-trip");
    let fabric: Vec<f64> =
        parts.iter().filter(|part| part.thread == "fabric").map(|part| part.us_per_round).collect();
    let beside = median_of(runs, System::Partitions, Measure::RoundTripUs)?;
    (fabric.len() == 2).then(|| fabric.iter().sum::<f64>() + beside)
}

/// How often, and on which processors.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Of every system.
    pub turns: u64,
    /// Untimed round trips and Allreduces before.
    pub warm_up: u64,
    /// Round trips of a run.
    pub round_trips: u64,
    /// Timed transfers of 1 MiB there and back of a run.
    pub transfers: u64,
    /// Allreduces of a run.
    pub allreduces: u64,
    /// Cells of the halo exchange along each side.
    pub halo_size: u64,
    /// Its steps.
    pub halo_steps: u64,
    /// One for each rank; of more ranks than that in turn.
    pub processors: [u16; 2],
    /// Of the two hosts, as lists.
    pub host_processors: [String; 2],
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// How.
    pub plan: Plan,
    /// Where.
    pub machine: Machine,
    /// Load averages of one minute: before, and after each turn.
    pub load_averages: Vec<f64>,
    /// In the order in which they were made.
    pub runs: Vec<Run>,
}

impl Measured {
    /// What came out of every promise. Ratios from the emulated machine are no speeds, so nothing is met or missed there.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let judge = |bar: &Bar| {
            let verdict = bar.judge(&self.runs);
            let missed_by = verdict.missed_by.filter(|_| self.machine.kvm != Kvm::Emulated);
            Verdict { missed_by, ..verdict }
        };
        BARS.iter().map(judge).collect()
    }

    /// Those of which there are runs, in the order of their turns.
    pub fn systems(&self) -> Vec<System> {
        System::ALL.into_iter().filter(|system| self.runs.iter().any(|run| run.system == *system)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "begin round-trip\nround-trip bytes 8 rounds 110 timed 100 median_ns 400 p99_ns 900\nbegin transfer\n\
        transfer bytes 1048576 rounds 8 timed 6 median_ns 262144 p99_ns 300000\nbegin allreduce\n\
        allreduce bytes 8 rounds 11 timed 10 median_ns 500 p99_ns 500\nend\n";

    fn run(system: System, turn: u64, measure: Measure, value: f64) -> Run {
        Run { system, turn, figures: [(measure, value)].into(), parts: Vec::new() }
    }

    #[test]
    fn what_the_program_says_becomes_figures_with_units() {
        let lines = parse(SAID).unwrap();
        assert_eq!(lines["transfer"].rounds, 8);
        let expected = [
            (Measure::RoundTripUs, 0.4),
            (Measure::RoundTripP99Us, 0.9),
            (Measure::BandwidthGbPerS, 8.0),
            (Measure::AllreduceUs, 0.5),
        ];
        assert_eq!(figures(&lines), expected.into());
    }

    #[test]
    fn what_is_missing_double_or_senseless_is_an_error() {
        for (from, to) in [
            ("end\n", ""),
            ("allreduce bytes 8 rounds 11 timed 10 median_ns 500 p99_ns 500\n", ""),
            ("end\n", "transfer bytes 1048576 rounds 8 timed 6 median_ns 1 p99_ns 1\nend\n"),
            ("median_ns 400", "median_ns 0"),
            ("median_ns 400", "median_us 400"),
            ("p99_ns 900", "p99_ns 300"),
            ("p99_ns 900", "p99_ns"),
            ("timed 100", "timed 0"),
            ("rounds 110", "rounds 99"),
            ("bytes 8 rounds 110", "bytes eight rounds 110"),
        ] {
            assert!(SAID.contains(from));
            assert!(parse(&SAID.replacen(from, to, 1)).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_bar_is_judged_by_the_ratio_of_medians() {
        let bar = bar(Measure::RoundTripUs, System::Partitions, System::MpichShm, Limit::AtMost(1.5));
        let mut runs = vec![
            run(System::Partitions, 1, Measure::RoundTripUs, 6.0),
            run(System::Partitions, 2, Measure::RoundTripUs, 9.0),
            run(System::Partitions, 3, Measure::RoundTripUs, 99.0),
            run(System::MpichShm, 1, Measure::RoundTripUs, 3.0),
            run(System::MpichShm, 2, Measure::RoundTripUs, 3.0),
            run(System::MpichShm, 3, Measure::RoundTripUs, 33.0),
        ];
        let verdict = bar.judge(&runs);
        assert_eq!((verdict.ratio, verdict.ratios_of_turns), (Some(3.0), Some([2.0, 3.0])));
        assert_eq!(verdict.missed_by, Some(1.0));
        runs[1].figures.insert(Measure::RoundTripUs, 4.5);
        runs[2].figures.insert(Measure::RoundTripUs, 4.5);
        assert_eq!(bar.judge(&runs).missed_by, Some(0.0));
        runs.retain(|run| run.system == System::Partitions);
        assert_eq!(bar.judge(&runs).missed_by, None);
    }

    #[test]
    fn a_bandwidth_is_missed_from_below() {
        let bar = bar(Measure::BandwidthGbPerS, System::Hosts, System::MpichTcp, Limit::AtLeast(0.8));
        let of = |ours| {
            let runs = [
                run(System::Hosts, 1, Measure::BandwidthGbPerS, ours),
                run(System::MpichTcp, 1, Measure::BandwidthGbPerS, 10.0),
            ];
            bar.judge(&runs).missed_by
        };
        assert_eq!((of(4.0), of(8.0), of(20.0)), (Some(0.5), Some(0.0), Some(0.0)));
    }

    #[test]
    fn four_processors_would_serve_fabric_threads_one_after_the_other() {
        let part = |rank, thread: &str, us_per_round| Part {
            phase: "round-trip",
            rank,
            thread: thread.to_owned(),
            us_per_round,
        };
        let mut hosts = run(System::Hosts, 1, Measure::RoundTripUs, 90.0);
        hosts.parts = vec![part(0, "fabric", 10.0), part(1, "fabric", 20.0), part(0, "vcpu", 50.0)];
        let runs = vec![hosts, run(System::Partitions, 1, Measure::RoundTripUs, 0.5)];
        assert_eq!(with_a_processor_each_us(&runs), Some(30.5));
        assert_eq!(with_a_processor_each_us(&runs[1..]), None);
        assert_eq!(parts(&runs, System::Hosts, "transfer"), []);
    }

    #[test]
    fn names_are_those_of_the_json() {
        for system in System::ALL {
            assert_eq!(serde_json::to_value(system).unwrap(), system.name());
            assert_eq!(System::named(system.name()), Some(system));
        }
        assert_eq!(System::named("open-mpi"), None);
    }
}
