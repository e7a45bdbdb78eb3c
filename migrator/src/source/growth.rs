//! What is to be known after the first round besides its sums: how the dirty pages grew within it, so that a working set that is
//! written through is recognised, and how fast its data went, however long its pages of zeros took.

use std::time::Duration;

use super::SourceError;
use super::observe::harvest;
use super::stream::{Round, Shared};
use crate::bitmap;
use crate::dirty::{self, Part};
use crate::partition::{Description, SourceMachine};
use crate::policy::Pace;
use crate::report::RoundReport;

/// A shorter round has too few pages, and is soon followed by another one.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// A shorter window tells the scheduler's pace rather than the network's.
const PACE_WINDOW: Duration = Duration::from_millis(20);

/// What the first look found.
struct Look {
    chunk: usize,
    seconds: f64,
    pages: u64,
}

/// Looks once at the dirty log in the middle of a round, and often at what went.
pub(super) struct Growth<'a> {
    machine: &'a dyn SourceMachine,
    shared: &'a Shared<'a>,
    description: &'a Description,
    round: &'a Round,
    looks: Option<Vec<Look>>,
    pace: Pace,
    paced_until: (Duration, u64),
}

/// What it found.
pub(super) struct First {
    /// For [`DirtyModel::fit`](dirty::DirtyModel::fit), in place of the round as a whole.
    pub windows: Option<[(f64, f64); 2]>,
    /// Bytes of memory per second while there was data.
    pub bytes_per_s: Option<f64>,
}

impl<'a> Growth<'a> {
    /// Nothing is known yet.
    pub fn new(
        machine: &'a dyn SourceMachine,
        shared: &'a Shared<'a>,
        description: &'a Description,
        round: &'a Round,
    ) -> Self {
        let paced_until = (Duration::ZERO, shared.sent_bytes());
        Self { machine, shared, description, round, looks: None, pace: Pace::default(), paced_until }
    }

    /// Takes the first look when half of the round was cleared.
    pub fn look(&mut self, elapsed: Duration) -> Result<(), SourceError> {
        let (before, sent_before) = self.paced_until;
        if elapsed >= before + PACE_WINDOW {
            let sent = self.shared.sent_bytes();
            self.pace.add(sent - sent_before, (elapsed - before).as_secs_f64());
            self.paced_until = (elapsed, sent);
        }
        let half = || 2 * self.round.cleared().count() >= self.round.chunks().len();
        if self.looks.is_some() || elapsed < FIRST_LOOK || !half() {
            return Ok(());
        }
        // Nothing is cleared meanwhile, so that what is dirty and what was cleared belong together.
        self.looks = Some(self.shared.exclusively(|| {
            let bitmaps = harvest(self.machine, self.description)?;
            let look = |(chunk, region, words, age): (usize, usize, _, Duration)| {
                let pages = bitmap::count(&bitmaps[region][words]);
                Look { chunk, seconds: age.as_secs_f64(), pages }
            };
            Ok::<_, SourceError>(self.round.cleared().map(look).collect())
        })?);
        Ok(())
    }

    /// What there is to say of the round, with `bitmaps` of what is dirty at its end.
    pub fn of(self, round: &RoundReport, bitmaps: &[Vec<u64>]) -> First {
        let unpacked = round.memory_bytes() as f64 / round.bytes.max(1) as f64;
        let bytes_per_s = self.pace.bytes_per_s().map(|bytes_per_s| bytes_per_s * unpacked);
        First { windows: self.windows(bitmaps), bytes_per_s }
    }

    fn windows(self, bitmaps: &[Vec<u64>]) -> Option<[(f64, f64); 2]> {
        let mut looks = self.looks?.into_iter().peekable();
        // Both are in the order of chunks.
        let part = |(chunk, region, words, age): (usize, usize, _, Duration)| {
            let look = looks.next_if(|look| look.chunk == chunk)?;
            Some(Part {
                first_s: look.seconds,
                first_pages: look.pages,
                second_s: age.as_secs_f64(),
                second_pages: bitmap::count(&bitmaps[region][words]),
            })
        };
        let parts: Vec<_> = self.round.cleared().filter_map(part).collect();
        dirty::windows_within(&parts, bitmaps.iter().map(|bitmap| bitmap::count(bitmap)).sum())
    }
}
