//! What is known after a round: the pages dirty now, and what the policy decides by.

use std::time::Duration;

use super::{Attempt, SourceError, machine_failed, pages_of};
use crate::bitmap;
use crate::dirty::DirtyModel;
use crate::partition::{Description, Share, SourceMachine};
use crate::policy;
use crate::report::RoundReport;

impl Attempt<'_> {
    /// After round `last`, which was not entered into the report yet; `rounds` are over.
    pub(super) fn observe(
        &self,
        rounds: u32,
        last: RoundReport,
        harvest: Duration,
        round_trip: Duration,
    ) -> policy::Observation {
        let rounds_so_far = || self.report.rounds.iter().chain([&last]);
        // Windows of another share are not comparable.
        let alike = rounds_so_far().enumerate().filter(|(_, round)| round.share == last.share);
        let first_windows = self.first.as_ref().and_then(|first| first.windows);
        let window = |(number, round): (usize, &RoundReport)| match first_windows {
            Some(windows) if number == 0 => windows.to_vec(),
            _ => vec![(round.seconds, round.dirty_pages_after as f64)],
        };
        let windows: Vec<_> = alike.flat_map(window).collect();
        let per_s =
            windows.iter().filter(|(seconds, _)| *seconds > 0.0).map(|(seconds, pages)| pages / seconds);
        let first_bytes_per_s = self.first.as_ref().and_then(|first| first.bytes_per_s);
        let carried_in = |(number, round): (usize, &RoundReport)| {
            let bytes = round.memory_bytes();
            let seconds = first_bytes_per_s.filter(|_| number == 0).map(|rate| bytes as f64 / rate);
            (bytes, seconds.unwrap_or(round.seconds))
        };
        let carried: Vec<_> = rounds_so_far().enumerate().map(carried_in).collect();
        policy::Observation {
            rounds,
            residual_pages: last.dirty_pages_after,
            dirty: DirtyModel::fit(&windows),
            burst_pages_per_s: per_s.fold(0.0, f64::max),
            share: self.brake.share().unwrap_or(Share::FULL),
            bytes_per_s: policy::bandwidth(carried.into_iter()),
            fixed: policy::fixed_cost(harvest, round_trip, self.machine.switch_cost()),
            round_overhead: harvest + round_trip,
            elapsed: self.started.elapsed(),
        }
    }
}

/// The pages dirty now, region by region.
pub(super) fn harvest(
    machine: &dyn SourceMachine,
    description: &Description,
) -> Result<Vec<Vec<u64>>, SourceError> {
    let harvest_region = |(index, pages)| {
        let mut bitmap = vec![0; bitmap::words(pages)];
        machine.dirty(index, &mut bitmap).map_err(machine_failed("read the dirty log"))?;
        bitmap::mask_tail(&mut bitmap, pages);
        Ok(bitmap)
    };
    pages_of(description).enumerate().map(harvest_region).collect()
}
