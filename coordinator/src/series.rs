//! What was measured over time: for every host and partition a ring of rows, one row for every interval of five seconds.
//!
//! ```text
//! track of a partition:  newest interval | ring of at most 180 rows of 9 x f32 (mean of the interval, NaN: nothing measured)
//! ```
//! A row takes 36 bytes (partition) or 16 bytes (host). At 1,000 hosts x 10,000 partitions with full rings that is
//! 10,000 x 180 x 36 + 1,000 x 180 x 16 = 67.7 MB, and 68.9 MB with the running sums: see [`History::bytes`] and its test.
//! Nothing grows beyond that: rings wrap, tracks of ended applications are dropped, and there are at most [`TRACKS_MAX`].

use std::collections::{BTreeMap, VecDeque};

use control::{ApplicationId, Counters, Epoch, HostName, Rank, Report, SeriesAnswer, SeriesView};
use thiserror::Error;

use crate::model::Load;

/// Length of an interval, in milliseconds.
pub const PERIOD_MS: u64 = 5_000;
/// Intervals that are kept: 15 minutes.
pub const KEPT: usize = 180;
/// Tracks that are kept; what comes on top is not recorded.
pub const TRACKS_MAX: usize = 200_000;
/// Values of one answer.
pub const VALUES_MAX: usize = 500_000;

/// Columns of a partition, in the order of its rows.
pub const PARTITION_NAMES: [&str; 9] = [
    "load",
    "load_noise",
    "run",
    "wait",
    "dirty_pages_per_s",
    "resident_bytes",
    "sent_bytes_per_s",
    "sent_messages_per_s",
    "round_trip_us",
];
/// Columns of a host, in the order of its rows.
pub const HOST_NAMES: [&str; 4] = ["load", "partitions", "resident_bytes", "sent_bytes_per_s"];

/// A question that cannot be answered.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SeriesError {
    /// No such column.
    #[error("there is no series `{name}`; there are {}", known.join(", "))]
    Name {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// Too much at once.
    #[error("that is more than {VALUES_MAX} values; ask for one rank, fewer names, or a later `since_ms`")]
    TooMuch,
    /// Nothing was named.
    #[error("name a host, or an application and perhaps a rank")]
    Nothing,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// One host.
    pub host: Option<HostName>,
    /// Partitions of an application.
    pub application: Option<ApplicationId>,
    /// Only this one.
    pub rank: Option<Rank>,
    /// Only these columns; all if empty.
    pub names: Vec<String>,
    /// Only intervals that begin then or later, Unix milliseconds.
    pub since_ms: u64,
}

/// Rows of `N` values.
#[derive(Clone, Debug)]
struct Track<const N: usize> {
    /// Number of the newest interval.
    newest: u64,
    rows: VecDeque<[f32; N]>,
    /// Of the newest interval: sum and count of the values so far.
    sums: [f64; N],
    counts: [u32; N],
}

impl<const N: usize> Track<N> {
    fn new(interval: u64) -> Self {
        Self { newest: interval, rows: VecDeque::from([[f32::NAN; N]]), sums: [0.0; N], counts: [0; N] }
    }

    /// Takes values, of which those that are not finite count as not measured. Time does not go back.
    fn add(&mut self, interval: u64, values: [f64; N]) {
        let passed = interval.saturating_sub(self.newest);
        for _ in 0..passed.min(KEPT as u64) {
            if self.rows.len() >= KEPT {
                self.rows.pop_front();
            } else if self.rows.len() == self.rows.capacity() {
                // Doubled, but never above what is kept.
                self.rows.reserve_exact(self.rows.len().min(KEPT - self.rows.len()));
            }
            self.rows.push_back([f32::NAN; N]);
        }
        if passed > 0 {
            (self.newest, self.sums, self.counts) = (interval, [0.0; N], [0; N]);
        }
        let Some(row) = self.rows.back_mut() else { return };
        for (column, value) in values.into_iter().enumerate().filter(|(_, value)| value.is_finite()) {
            self.sums[column] += value;
            self.counts[column] += 1;
            row[column] = (self.sums[column] / f64::from(self.counts[column])) as f32;
        }
    }

    /// The columns from interval `since` on, and the interval of the first value.
    fn columns(&self, columns: &[usize], since: u64) -> (u64, Vec<Vec<Option<f32>>>) {
        let oldest = self.newest + 1 - self.rows.len() as u64;
        let skip = usize::try_from(since.saturating_sub(oldest)).unwrap_or(usize::MAX).min(self.rows.len());
        let column = |column: &usize| {
            self.rows.iter().skip(skip).map(|row| Some(row[*column]).filter(|it| it.is_finite())).collect()
        };
        (oldest + skip as u64, columns.iter().map(column).collect())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.rows.capacity() * size_of::<[f32; N]>()
    }
}

/// Counters that only rise, as last seen.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    epoch: Epoch,
    run_ns: u64,
    wait_ns: u64,
    elapsed_ns: u64,
    bytes: u64,
    messages: u64,
}

impl Before {
    fn of(epoch: Epoch, counters: &Counters) -> Self {
        let total =
            |it: fn(&control::PeerTraffic) -> u64| counters.peers.iter().map(it).fold(0, u64::saturating_add);
        Self {
            epoch,
            run_ns: counters.run_ns,
            wait_ns: counters.wait_ns,
            elapsed_ns: counters.elapsed_ns,
            bytes: total(|peer| peer.bytes_sent),
            messages: total(|peer| peer.messages_sent),
        }
    }
}

#[derive(Clone, Debug)]
struct PartitionTrack {
    before: Before,
    track: Track<{ PARTITION_NAMES.len() }>,
}

/// All series.
#[derive(Debug, Default)]
pub struct History {
    hosts: BTreeMap<HostName, Track<{ HOST_NAMES.len() }>>,
    partitions: BTreeMap<(ApplicationId, Rank), PartitionTrack>,
}

impl History {
    /// Takes what a report says. `load` knows the load of a partition of which this process (epoch) is the owner.
    pub fn observe(
        &mut self,
        now_ms: u64,
        report: &Report,
        load: impl Fn(&ApplicationId, Rank, Epoch) -> Option<Load>,
    ) {
        let interval = now_ms / PERIOD_MS;
        let (mut host_load, mut count, mut resident, mut sent) = (0.0, 0.0, 0.0, 0.0);
        for process in report.partitions.iter().filter(|process| process.end.is_none()) {
            let Some(counters) = &process.counters else { continue };
            resident += (counters.resident_kib << 10) as f64;
            let Some(load) = load(&process.application, process.rank, process.epoch) else { continue };
            (host_load, count) = (host_load + load.mean, count + 1.0);
            let now = Before::of(process.epoch, counters);
            let key = (process.application.clone(), process.rank);
            if self.partitions.len() >= TRACKS_MAX && !self.partitions.contains_key(&key) {
                continue;
            }
            let new = || PartitionTrack { before: now, track: Track::new(interval) };
            let it = self.partitions.entry(key).or_insert_with(new);
            let values = row(&it.before, &now, counters, load);
            sent += Some(values[SENT]).filter(|it| it.is_finite()).unwrap_or(0.0);
            it.before = now;
            it.track.add(interval, values);
        }
        if self.hosts.len() < TRACKS_MAX || self.hosts.contains_key(&report.host) {
            let track = self.hosts.entry(report.host.clone()).or_insert_with(|| Track::new(interval));
            track.add(interval, [host_load, count, resident, sent]);
        }
    }

    /// Drops the series of applications that are over.
    pub fn retain(&mut self, is_live: impl Fn(&ApplicationId) -> bool) {
        self.partitions.retain(|(application, _), _| is_live(application));
    }

    /// Answers a question.
    pub fn select(&self, selection: &Selection) -> Result<SeriesAnswer, SeriesError> {
        // The first interval that begins at `since_ms` or later.
        let since = selection.since_ms.div_ceil(PERIOD_MS);
        let mut answer =
            SeriesAnswer { period_ms: PERIOD_MS, kept: KEPT, names: Vec::new(), series: Vec::new() };
        let mut values = 0;
        let mut push = |(host, application, rank), (first, columns): (u64, Vec<Vec<Option<f32>>>)| {
            values += columns.iter().map(Vec::len).sum::<usize>();
            let first_ms = first.saturating_mul(PERIOD_MS);
            answer.series.push(SeriesView { host, application, rank, first_ms, values: columns });
            if values > VALUES_MAX { Err(SeriesError::TooMuch) } else { Ok(()) }
        };
        let names = match (&selection.host, &selection.application) {
            (Some(host), None) => {
                let columns = columns(&HOST_NAMES, &selection.names)?;
                if let Some(track) = self.hosts.get(host) {
                    push((Some(host.clone()), None, None), track.columns(&columns, since))?;
                }
                names(&HOST_NAMES, &columns)
            }
            (None, Some(application)) => {
                let columns = columns(&PARTITION_NAMES, &selection.names)?;
                let ranks = selection.rank.unwrap_or(0)..=selection.rank.unwrap_or(Rank::MAX);
                let keys = (application.clone(), *ranks.start())..=(application.clone(), *ranks.end());
                for ((_, rank), it) in self.partitions.range(keys) {
                    let of = (None, Some(application.clone()), Some(*rank));
                    push(of, it.track.columns(&columns, since))?;
                }
                names(&PARTITION_NAMES, &columns)
            }
            _ => return Err(SeriesError::Nothing),
        };
        answer.names = names;
        Ok(answer)
    }

    /// Bytes of the series themselves, without the maps that hold them.
    pub fn bytes(&self) -> usize {
        let partitions = self.partitions.values().map(|it| it.track.bytes() + size_of::<Before>());
        self.hosts.values().map(Track::bytes).chain(partitions).sum()
    }
}

/// Column of [`PARTITION_NAMES`] with the bytes that were sent.
const SENT: usize = 6;

fn row(before: &Before, now: &Before, counters: &Counters, load: Load) -> [f64; PARTITION_NAMES.len()] {
    let seconds = now.elapsed_ns.saturating_sub(before.elapsed_ns) as f64 / 1e9;
    // Nothing is known about the interval in which it moved, nor about one of no length.
    let known = before.epoch == now.epoch && seconds > 0.0;
    let rate = |now: u64, before: u64, unit: f64| {
        if known { now.saturating_sub(before) as f64 * unit / seconds } else { f64::NAN }
    };
    let round_trip = counters.peers.iter().filter_map(|peer| peer.round_trip_ns).min();
    [
        if load.samples == 0 { f64::NAN } else { load.mean },
        if load.samples < 2 { f64::NAN } else { load.variance_of_mean.max(0.0).sqrt() },
        rate(now.run_ns, before.run_ns, 1e-9).clamp(0.0, 1.0),
        rate(now.wait_ns, before.wait_ns, 1e-9).clamp(0.0, 1.0),
        counters.dirty_pages_per_s.unwrap_or(f64::NAN),
        (counters.resident_kib << 10) as f64,
        rate(now.bytes, before.bytes, 1.0),
        rate(now.messages, before.messages, 1.0),
        round_trip.map_or(f64::NAN, |ns| ns as f64 / 1000.0),
    ]
}

fn columns(known: &[&'static str], asked: &[String]) -> Result<Vec<usize>, SeriesError> {
    if asked.is_empty() {
        return Ok((0..known.len()).collect());
    }
    let find = |name: &String| {
        let position = known.iter().position(|it| it == name);
        position
            .ok_or_else(|| SeriesError::Name { name: name.chars().take(64).collect(), known: known.to_vec() })
    };
    asked.iter().map(find).collect()
}

fn names(known: &[&'static str], columns: &[usize]) -> Vec<String> {
    columns.iter().filter_map(|column| known.get(*column)).map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests;
