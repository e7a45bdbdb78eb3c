//! Loads from counters: how busy each partition keeps a processor, smoothed, with the noise of that number.
//!
//! The load of a partition is d(run - poll) / d(elapsed) between two samples: a rank that polls for a message is not busy.
//! Time in which it was ready but got no processor (elapsed - run - wait) is kept as `steal` and counted as load only if
//! asked for (`count_steal`): then a host's load may exceed its processors.

use std::collections::BTreeMap;

use control::{ApplicationId, Counters, Epoch, Rank};

/// Seconds after which an old load has lost 63 % of its weight.
const SMOOTHING_S: f64 = 2.0;
/// Samples closer than this are too noisy to use.
const SAMPLE_S_MIN: f64 = 0.05;

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
}

#[derive(Clone, Debug, Default)]
struct Track {
    epoch: Epoch,
    last: Option<Sample>,
    variance: f64,
    load: Load,
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
        if track.epoch != epoch {
            // The interval in which it moved says nothing about its load.
            (track.epoch, track.last) = (epoch, Some(now));
            return;
        }
        let Some(last) = track.last else {
            track.last = Some(now);
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
        track.add(demand.min(1.0), steal, seconds);
    }

    /// Loads of the application may have changed for a reason that we know (one of its partitions moved).
    pub fn forget(&mut self, application: &ApplicationId) {
        for (_, track) in self.tracks.iter_mut().filter(|((id, _), _)| id == application) {
            track.load.samples = 0;
            track.last = None;
        }
    }

    /// The application is over.
    pub fn remove(&mut self, application: &ApplicationId) {
        self.tracks.retain(|(id, _), _| id != application);
    }

    /// The load of a partition; zero with no samples if nothing is known.
    pub fn load(&self, application: &ApplicationId, rank: Rank) -> Load {
        self.tracks.get(&(application.clone(), rank)).map(|track| track.load).unwrap_or_default()
    }
}

impl Track {
    fn add(&mut self, value: f64, steal: f64, seconds: f64) {
        let load = &mut self.load;
        load.samples = load.samples.saturating_add(1);
        if load.samples == 1 {
            (load.mean, load.steal, self.variance) = (value, steal, 0.0);
            return;
        }
        // A plain mean at first, then an exponential one.
        let weight = (1.0 - (-seconds / SMOOTHING_S).exp()).max(1.0 / f64::from(load.samples));
        let difference = value - load.mean;
        load.mean += weight * difference;
        load.steal += weight * (steal - load.steal);
        self.variance = (1.0 - weight) * (self.variance + weight * difference * difference);
        load.variance_of_mean = self.variance * weight / (2.0 - weight);
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
}
