//! Loads from counters: how busy each partition keeps a processor, smoothed, with the noise of that number.
//!
//! The load of a partition is d(run - poll) / d(elapsed) between two samples: a rank that polls for a message is not busy.
//! Time in which it was ready but got no processor (elapsed - run - wait) is kept as `steal` and counted as load only if
//! asked for (`count_steal`): then a host's load may exceed its processors.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use control::{ApplicationId, Counters, Epoch, Rank};

/// Seconds after which an old load has lost 63 % of its weight.
const SMOOTHING_S: f64 = 2.0;
/// Samples closer than this are too noisy to use.
const SAMPLE_S_MIN: f64 = 0.05;
/// Two samples in a row that are this many standard deviations off, on the same side, are a new load.
const CHANGE: f64 = 3.0;
/// Weight of a sample for the noise, against its weight for the mean.
const NOISE_WEIGHT: f64 = 0.25;
/// Loads that vary less than this vary as much, as far as changes are concerned.
const DEVIATION_MIN: f64 = 0.02;
/// Samples before which no change is looked for.
const CHANGE_SAMPLES: u32 = 6;

/// The load of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Busy share of a processor, smoothed.
    pub mean: f64,
    /// Variance of `mean` as an estimate.
    pub variance_of_mean: f64,
    /// Share of time ready without a processor, smoothed.
    pub steal: f64,
    /// Samples since the load may have changed for a known reason.
    pub samples: u32,
    /// It has changed since then for a reason that is not known.
    pub changed: bool,
}

/// Mean and noise of a value that is sampled, and whether it has changed: an exponential mean that begins anew when two
/// samples in a row are far off on the same side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimator {
    smoothing_s: f64,
    mean: f64,
    variance: f64,
    variance_of_mean: f64,
    samples: u32,
    changed: bool,
    /// The last sample, if it was far off.
    off: Option<f64>,
}

impl Estimator {
    /// Nothing is known. `smoothing_s`: seconds after which an old sample has lost 63 % of its weight.
    pub fn new(smoothing_s: f64) -> Self {
        Self {
            smoothing_s,
            mean: 0.0,
            variance: 0.0,
            variance_of_mean: 0.0,
            samples: 0,
            changed: false,
            off: None,
        }
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Variance of the mean as an estimate.
    pub fn variance_of_mean(&self) -> f64 {
        self.variance_of_mean
    }

    /// Samples since it was made or forgotten.
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// Has the value changed since it was made or forgotten?
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// The change, if there was one, has been taken into account.
    pub fn settle(&mut self) {
        self.changed = false;
    }

    /// The value may be another one from now on.
    pub fn forget(&mut self) {
        (self.samples, self.changed, self.off) = (0, false, None);
    }

    /// Takes a sample over this many seconds.
    pub fn add(&mut self, value: f64, seconds: f64) {
        self.samples = self.samples.saturating_add(1);
        if self.samples == 1 {
            // How noisy it is may be known from before it was forgotten.
            (self.mean, self.variance_of_mean) = (value, self.variance);
            return;
        }
        // A plain mean at first, then an exponential one.
        let weight = (1.0 - (-seconds / self.smoothing_s).exp()).max(1.0 / f64::from(self.samples));
        let difference = value - self.mean;
        let far = CHANGE * self.variance.sqrt().max(DEVIATION_MIN);
        let mut noise = difference;
        if self.samples > CHANGE_SAMPLES && difference.abs() > far {
            if let Some(before) = self.off.filter(|before| (before - self.mean) * difference > 0.0) {
                self.mean = (before + value) / 2.0;
                (self.changed, self.off) = (true, None);
                // It is as noisy as it was, and known from two samples.
                self.samples = 2;
                self.variance_of_mean = self.variance / 2.0;
                return;
            }
            self.off = Some(value);
            noise = difference.clamp(-far, far);
        } else {
            self.off = None;
        }
        self.mean += weight * difference;
        // The noise itself changes less than the value, and a bad estimate of it makes false alarms.
        let slow = (weight * NOISE_WEIGHT).max(1.0 / f64::from(self.samples));
        self.variance = (1.0 - slow) * (self.variance + slow * noise * noise);
        // Of few samples as for a plain mean, then as for an exponential one.
        let few = 1.0 / f64::from(self.samples - 1);
        self.variance_of_mean = self.variance * few.max(weight / (2.0 - weight));
    }
}

#[derive(Clone, Debug)]
struct Track {
    epoch: Epoch,
    last: Option<Sample>,
    load: Estimator,
    steal: Estimator,
    traffic: BTreeMap<Rank, Traffic>,
}

/// Traffic from a partition to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow {
    /// Bytes per second.
    pub bytes: f64,
    /// Messages per second.
    pub messages: f64,
}

#[derive(Clone, Copy, Debug)]
struct Traffic {
    counted: (u64, u64),
    bytes: Estimator,
    messages: Estimator,
    /// Seconds that bytes to the peer took one way when it was last on another host.
    latency_s: Option<f64>,
}

impl Traffic {
    fn new(counted: (u64, u64)) -> Self {
        let rate = Estimator::new(SMOOTHING_S);
        Self { counted, bytes: rate, messages: rate, latency_s: None }
    }

    fn add(&mut self, now: (u64, u64), seconds: f64) {
        let rate = |now: u64, last: u64| now.saturating_sub(last) as f64 / seconds;
        self.bytes.add(rate(now.0, self.counted.0), seconds);
        self.messages.add(rate(now.1, self.counted.1), seconds);
        self.counted = now;
    }
}

impl Default for Track {
    fn default() -> Self {
        let estimator = Estimator::new(SMOOTHING_S);
        Self { epoch: 0, last: None, load: estimator, steal: estimator, traffic: BTreeMap::new() }
    }
}

impl Track {
    /// Rates count from here.
    fn count(&mut self, counters: &Counters) {
        for peer in &counters.peers {
            if let Some(traffic) = self.traffic.get_mut(&peer.rank) {
                traffic.counted = (peer.bytes_sent, peer.messages_sent);
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    run_ns: u64,
    wait_ns: u64,
    poll_ns: u64,
    elapsed_ns: u64,
}

/// The loads of all partitions.
#[derive(Clone, Debug, Default)]
pub struct Model {
    count_steal: bool,
    tracks: BTreeMap<(ApplicationId, Rank), Track>,
}

impl Model {
    /// No loads yet.
    pub fn new(count_steal: bool) -> Self {
        Self { count_steal, tracks: BTreeMap::new() }
    }

    /// Takes a sample of counters.
    pub fn observe(&mut self, application: &ApplicationId, rank: Rank, epoch: Epoch, counters: &Counters) {
        let track = self.tracks.entry((application.clone(), rank)).or_default();
        let now = Sample {
            run_ns: counters.run_ns,
            wait_ns: counters.wait_ns,
            poll_ns: counters.poll_ns,
            elapsed_ns: counters.elapsed_ns,
        };
        // The interval in which it moved says nothing about its load, nor about its traffic.
        let last = track.last.filter(|_| track.epoch == epoch);
        track.epoch = epoch;
        let Some(last) = last else {
            track.last = Some(now);
            track.count(counters);
            return;
        };
        let seconds = now.elapsed_ns.saturating_sub(last.elapsed_ns) as f64 / 1e9;
        if seconds < SAMPLE_S_MIN {
            return;
        }
        track.last = Some(now);
        let share = |now: u64, last: u64| (now.saturating_sub(last) as f64 / 1e9 / seconds).clamp(0.0, 1.0);
        let run = share(now.run_ns, last.run_ns);
        let poll = share(now.poll_ns, last.poll_ns).min(run);
        let wait = share(now.wait_ns, last.wait_ns);
        let steal = (1.0 - run - wait).max(0.0);
        let busy = run - poll;
        let demand = if self.count_steal && run > 0.0 { busy * (1.0 + steal / run) } else { busy };
        track.load.add(demand.min(1.0), seconds);
        track.steal.add(steal, seconds);
        for peer in &counters.peers {
            let counted = (peer.bytes_sent, peer.messages_sent);
            match track.traffic.entry(peer.rank) {
                Entry::Vacant(place) => drop(place.insert(Traffic::new(counted))),
                Entry::Occupied(mut place) => place.get_mut().add(counted, seconds),
            }
        }
    }

    /// Bytes took so many seconds from a partition to a peer on another host.
    pub fn observe_latency(&mut self, application: &ApplicationId, rank: Rank, peer: Rank, seconds: f64) {
        let track = self.tracks.get_mut(&(application.clone(), rank));
        if let Some(traffic) = track.and_then(|track| track.traffic.get_mut(&peer)) {
            traffic.latency_s = Some(seconds);
        }
    }

    /// What a message between two hosts takes, in seconds: the median over all pairs that are on two hosts, or last were; 0
    /// while nobody has been.
    pub fn latency_s(&self) -> f64 {
        let pairs = self.tracks.values().flat_map(|track| track.traffic.values());
        let mut known: Vec<f64> = pairs.filter_map(|it| it.latency_s).collect();
        if known.is_empty() {
            return 0.0;
        }
        let middle = known.len() / 2;
        *known.select_nth_unstable_by(middle, f64::total_cmp).1
    }

    /// Loads of the application may have changed for a reason that we know (one of its partitions moved).
    pub fn forget(&mut self, application: &ApplicationId) {
        for (_, track) in self.tracks.iter_mut().filter(|((id, _), _)| id == application) {
            track.load.forget();
            track.steal.forget();
            track.last = None;
            for traffic in track.traffic.values_mut() {
                traffic.bytes.forget();
                traffic.messages.forget();
            }
        }
    }

    /// The application is over.
    pub fn remove(&mut self, application: &ApplicationId) {
        self.tracks.retain(|(id, _), _| id != application);
    }

    /// The load of a partition; zero with no samples if nothing is known.
    pub fn load(&self, application: &ApplicationId, rank: Rank) -> Load {
        let Some(track) = self.tracks.get(&(application.clone(), rank)) else { return Load::default() };
        Load {
            mean: track.load.mean(),
            variance_of_mean: track.load.variance_of_mean(),
            steal: track.steal.mean(),
            samples: track.load.samples(),
            changed: track.load.changed(),
        }
    }

    /// What a partition sends to each peer.
    pub fn traffic(&self, application: &ApplicationId, rank: Rank) -> impl Iterator<Item = (Rank, Flow)> {
        let track = self.tracks.get(&(application.clone(), rank));
        let flow = |it: &Traffic| Flow { bytes: it.bytes.mean(), messages: it.messages.mean() };
        track.into_iter().flat_map(move |track| track.traffic.iter().map(move |(peer, it)| (*peer, flow(it))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(run_ms: u64, poll_ms: u64, wait_ms: u64, elapsed_ms: u64) -> Counters {
        let ns = |ms: u64| ms * 1_000_000;
        Counters {
            run_ns: ns(run_ms),
            poll_ns: ns(poll_ms),
            wait_ns: ns(wait_ms),
            elapsed_ns: ns(elapsed_ms),
            ..Counters::default()
        }
    }

    fn after(count_steal: bool, step: (u64, u64, u64)) -> Result<Load, control::IdError> {
        let mut model = Model::new(count_steal);
        let id = "a-1".parse()?;
        for i in 0..20 {
            model.observe(&id, 0, 1, &counters(step.0 * i, step.1 * i, step.2 * i, 500 * i));
        }
        Ok(model.load(&id, 0))
    }

    #[test]
    fn polling_is_not_load_and_steal_only_if_asked() -> Result<(), control::IdError> {
        let load = after(false, (400, 300, 100))?;
        assert!((load.mean - 0.2).abs() < 1e-9 && load.variance_of_mean < 1e-12 && load.samples == 19);
        let crowded = after(false, (250, 0, 0))?;
        assert!((crowded.mean - 0.5).abs() < 1e-9 && (crowded.steal - 0.5).abs() < 1e-9);
        assert!((after(true, (250, 0, 0))?.mean - 1.0).abs() < 1e-9);
        Ok(())
    }

    #[test]
    fn a_change_is_found_at_the_second_sample_and_noise_is_not_taken_for_one() {
        let mut estimator = Estimator::new(2.0);
        for i in 0..40 {
            estimator.add(if i % 2 == 0 { 0.45 } else { 0.55 }, 0.5);
        }
        assert!(!estimator.changed() && (estimator.mean() - 0.5).abs() < 0.02);
        estimator.add(0.9, 0.5);
        assert!(!estimator.changed(), "one sample may be an accident");
        estimator.add(0.94, 0.5);
        assert!(estimator.changed() && (estimator.mean() - 0.92).abs() < 1e-9);
        assert!(estimator.variance_of_mean() > 0.0, "two samples are not certain");
        estimator.forget();
        assert!(!estimator.changed() && estimator.samples() == 0);
    }

    #[test]
    fn a_move_is_not_mistaken_for_load() -> Result<(), control::IdError> {
        let mut model = Model::new(false);
        let id = "a-1".parse()?;
        model.observe(&id, 0, 1, &counters(0, 0, 0, 0));
        model.observe(&id, 0, 1, &counters(500, 0, 0, 500));
        model.observe(&id, 0, 2, &counters(600, 0, 0, 5000));
        assert!((model.load(&id, 0).mean - 1.0).abs() < 1e-9);
        model.forget(&id);
        assert_eq!(model.load(&id, 0).samples, 0);
        Ok(())
    }

    fn talking(elapsed_ms: u64, bytes_sent: u64, messages_sent: u64) -> Counters {
        let peer = control::PeerTraffic {
            rank: 1,
            bytes_sent,
            bytes_received: 0,
            messages_sent,
            messages_received: 0,
            wait_ns: 0,
            round_trip_ns: None,
            round_trip_p99_ns: None,
        };
        Counters { peers: vec![peer], ..counters(0, 0, elapsed_ms, elapsed_ms) }
    }

    #[test]
    fn what_was_sent_during_a_move_is_not_mistaken_for_a_rate() -> Result<(), control::IdError> {
        let mut model = Model::new(false);
        let id = "a-1".parse()?;
        for i in 0..10 {
            model.observe(&id, 0, 1, &talking(500 * i, 50_000 * i, 500 * i));
        }
        let rate = |model: &Model| model.traffic(&id, 0).next().map(|(_, flow)| flow);
        assert_eq!(rate(&model), Some(Flow { bytes: 1e5, messages: 1e3 }));
        // Ten seconds of a move, then ten times as much as before, from the first sample on.
        model.forget(&id);
        model.observe(&id, 0, 2, &talking(15_000, 2_000_000, 20_000));
        model.observe(&id, 0, 2, &talking(15_500, 2_500_000, 25_000));
        assert_eq!(rate(&model), Some(Flow { bytes: 1e6, messages: 1e4 }));
        Ok(())
    }

    #[test]
    fn latency_is_the_median_of_the_pairs_that_are_apart() -> Result<(), control::IdError> {
        let mut model = Model::new(false);
        assert!(model.latency_s() == 0.0);
        for (name, seconds) in [("a-1", 1e-3), ("a-2", 3e-3), ("a-3", 2e-3)] {
            let id = name.parse()?;
            (0..2).for_each(|i| model.observe(&id, 0, 1, &talking(500 * i, i, i)));
            model.observe_latency(&id, 0, 1, seconds);
            model.observe_latency(&id, 0, 7, 1.0);
        }
        assert!((model.latency_s() - 2e-3).abs() < 1e-12);
        Ok(())
    }
}
