//! What is kept of one migration, and the quantities of it that are summarised.

use std::collections::BTreeMap;

use migrator::report::{Brownout, Prediction};
use serde::{Deserialize, Serialize};

use super::observe::{Observation, WINDOW_US, gap_quantile_ms};

/// Time after the end of a move in which a gap still counts as its blackout: peers may have to connect again.
pub const AFTER_US: u64 = 250_000;

/// Who moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// A partition, between two `vmm` processes.
    Partita,
    /// The same writer as a guest of QEMU.
    Qemu,
}

impl System {
    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Partita => "partita",
            Self::Qemu => "qemu",
        }
    }
}

/// One round of pre-copy.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Round {
    /// Pages handled, zero pages included.
    pub pages: u64,
    /// Pages of zeros.
    #[serde(default)]
    pub zero_pages: u64,
    /// Bytes on the wire.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Pages dirty when it was over.
    #[serde(default)]
    pub dirty_pages_after: u64,
}

/// A migration as the source tells it. Fields that a system or a version does not report are `None`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reported {
    /// From the request to the end.
    pub total_s: f64,
    /// Blackout as the source measured it.
    pub blackout_ms: f64,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Why the rounds ended.
    #[serde(default)]
    pub stop_reason: Option<String>,
    /// Every round that is known; the last one is the blackout's.
    #[serde(default)]
    pub rounds: Vec<Round>,
    /// Number of rounds, where they are not known one by one.
    #[serde(default)]
    pub round_count: Option<u64>,
    /// Where the blackout went, milliseconds by name.
    #[serde(default)]
    pub breakdown: BTreeMap<String, f64>,
    /// What was predicted, and what came of it.
    #[serde(default)]
    pub prediction: Option<Prediction>,
    /// Whether it was slowed down to converge.
    #[serde(default)]
    pub brownout: Option<Brownout>,
}

/// One migration as this process saw it from outside.
#[derive(Debug, Clone, Default)]
pub struct Moved {
    /// Time of day when it was ordered, microseconds since 1970.
    pub begin_us: u64,
    /// And when its end was known.
    pub end_us: u64,
    /// What the source said.
    pub reported: Reported,
}

/// Work done before, during and after a move, per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Work {
    /// Undisturbed.
    pub before: f64,
    /// From the order to the end, blackout included.
    pub during: f64,
    /// Afterwards.
    pub after: f64,
}

/// One point of the timeline: 10 ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Slot {
    /// Its begin, from the order to move.
    pub at_ms: f64,
    /// Pages written, or beats of a workload that writes none, per second.
    pub work_per_s: f64,
}

/// Everything about one migration.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Who moved.
    pub system: System,
    /// From 1.
    pub run: u32,
    /// From the order to its answer, by this process's clock.
    pub total_ms: f64,
    /// Longest gap that the observer saw from the order to a quarter of a second after the end.
    pub observed_ms: Option<f64>,
    /// Longest gap in as long a time without a move, right before: what the observer's own noise is.
    pub quiet_ms: Option<f64>,
    /// What 99 of 100 gaps without a move do not exceed.
    pub quiet_gap_p99_ms: Option<f64>,
    /// Beats per second without a move.
    pub beats_per_s: Option<f64>,
    /// What the work is counted in.
    pub work_unit: &'static str,
    /// Throughput.
    pub work: Option<Work>,
    /// What the source said.
    pub reported: Reported,
    /// Throughput over time.
    pub timeline: Vec<Slot>,
}

impl Run {
    /// Puts together what the source and the observer saw; `quiet_us` is the undisturbed time before and after.
    pub fn new(system: System, run: u32, moved: Moved, seen: Option<&Observation>, quiet_us: u64) -> Self {
        let (begin, end) = (moved.begin_us, moved.end_us);
        let mut result = Self {
            system,
            run,
            total_ms: end.saturating_sub(begin) as f64 * 1e-3,
            observed_ms: None,
            quiet_ms: None,
            quiet_gap_p99_ms: None,
            beats_per_s: None,
            work_unit: "beats",
            work: None,
            timeline: Vec::new(),
            reported: moved.reported,
        };
        let Some(seen) = seen else { return result };
        let length = (end.saturating_sub(begin) + AFTER_US).min(quiet_us);
        let quiet = seen.between(begin.saturating_sub(length), begin - begin % WINDOW_US);
        let before = seen.between(begin.saturating_sub(quiet_us), begin - begin % WINDOW_US);
        let during = seen.between(begin, end);
        let after = seen.between(end + WINDOW_US, end + WINDOW_US + quiet_us);
        let counts_pages = before.pages > 0;
        let work = |seen: &super::observe::Seen| {
            (if counts_pages { seen.pages } else { seen.beats }) as f64 / seen.seconds.max(1e-6)
        };
        let quiet_windows = seen.windows(begin.saturating_sub(quiet_us), begin - begin % WINDOW_US);
        result.observed_ms = Some(seen.between(begin, end + AFTER_US).gap_max_ms);
        result.quiet_ms = Some(quiet.gap_max_ms);
        result.quiet_gap_p99_ms = gap_quantile_ms(&quiet_windows, 0.99);
        result.beats_per_s = Some(before.beats as f64 / before.seconds.max(1e-6));
        result.work_unit = if counts_pages { "pages" } else { "beats" };
        result.work = Some(Work { before: work(&before), during: work(&during), after: work(&after) });
        result.timeline = timeline(seen, begin, end, quiet_us, counts_pages);
        result
    }

    /// One of its quantities.
    pub fn value(&self, column: Column) -> Option<f64> {
        let error =
            |predicted: f64, actual: f64| (actual > 0.0).then(|| (predicted - actual).abs() / actual * 100.0);
        match column {
            Column::ObservedMs => self.observed_ms,
            Column::QuietMs => self.quiet_ms,
            Column::QuietGapP99Ms => self.quiet_gap_p99_ms,
            Column::BlackoutMs => Some(self.reported.blackout_ms),
            Column::TotalMs => Some(self.total_ms),
            Column::Rounds => match self.reported.rounds.len() {
                0 => self.reported.round_count.map(|count| count as f64),
                count => Some(count as f64),
            },
            Column::Mib => Some(self.reported.bytes as f64 / f64::from(1 << 20)),
            Column::Round0MibPerS => self
                .reported
                .rounds
                .first()
                .filter(|round| round.seconds > 0.0)
                .map(|round| round.bytes as f64 / round.seconds / f64::from(1 << 20)),
            Column::DuringPercent => {
                self.work.filter(|w| w.before > 0.0).map(|w| w.during / w.before * 100.0)
            }
            Column::AfterPercent => self.work.filter(|w| w.before > 0.0).map(|w| w.after / w.before * 100.0),
            Column::BlackoutErrorPercent => {
                let prediction = self.reported.prediction?;
                error(prediction.predicted_blackout_ms, prediction.actual_blackout_ms)
            }
            Column::TotalErrorPercent => {
                let prediction = self.reported.prediction?;
                error(prediction.predicted_total_s, prediction.actual_total_s)
            }
        }
    }
}

fn timeline(seen: &Observation, begin: u64, end: u64, around_us: u64, counts_pages: bool) -> Vec<Slot> {
    let first = begin.saturating_sub(around_us) / WINDOW_US;
    let last = (end + around_us) / WINDOW_US;
    let mut slots: Vec<_> = (first..last)
        .map(|slot| Slot { at_ms: (slot * WINDOW_US) as f64 * 1e-3 - begin as f64 * 1e-3, work_per_s: 0.0 })
        .collect();
    for window in seen.windows(first * WINDOW_US, last * WINDOW_US) {
        let index = (window.begin_us / WINDOW_US).saturating_sub(first) as usize;
        if let Some(slot) = slots.get_mut(index) {
            let work = if counts_pages { window.pages } else { window.beats };
            slot.work_per_s += work as f64 * 1e6 / WINDOW_US as f64;
        }
    }
    slots
}

/// A quantity of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    /// Blackout as observed.
    ObservedMs,
    /// Longest gap without a move.
    QuietMs,
    /// 99th percentile of all gaps without a move.
    QuietGapP99Ms,
    /// Blackout as the source measured it.
    BlackoutMs,
    /// Total time.
    TotalMs,
    /// Rounds.
    Rounds,
    /// Bytes on the wire, MiB.
    Mib,
    /// Throughput of round 0, MiB/s.
    Round0MibPerS,
    /// Work during the move, percent of before.
    DuringPercent,
    /// Work after the move, percent of before.
    AfterPercent,
    /// How far the predicted blackout was off.
    BlackoutErrorPercent,
    /// How far the predicted total time was off.
    TotalErrorPercent,
}

impl Column {
    /// All, in the order of the table.
    pub const ALL: [Self; 12] = [
        Self::ObservedMs,
        Self::QuietMs,
        Self::QuietGapP99Ms,
        Self::BlackoutMs,
        Self::TotalMs,
        Self::Rounds,
        Self::Mib,
        Self::Round0MibPerS,
        Self::DuringPercent,
        Self::AfterPercent,
        Self::BlackoutErrorPercent,
        Self::TotalErrorPercent,
    ];

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::ObservedMs => "blackout, observed [ms]",
            Self::QuietMs => "  longest gap, no move [ms]",
            Self::QuietGapP99Ms => "  p99 of gaps, no move [ms]",
            Self::BlackoutMs => "blackout, source [ms]",
            Self::TotalMs => "total time [ms]",
            Self::Rounds => "rounds",
            Self::Mib => "sent [MiB]",
            Self::Round0MibPerS => "round 0 [MiB/s]",
            Self::DuringPercent => "work during the move [%]",
            Self::AfterPercent => "work after the move [%]",
            Self::BlackoutErrorPercent => "predicted blackout off by [%]",
            Self::TotalErrorPercent => "predicted total off by [%]",
        }
    }
}
