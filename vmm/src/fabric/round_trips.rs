//! How long bytes and their acknowledgement take: the latency between two partitions as their fabric threads see it.
//!
//! Now and then a frame is timed, until an acknowledgement covers it; the last [`WINDOW`] times are kept. Between partitions that
//! share their rings nothing is sent, so nothing is measured: there the latency is that of memory.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// Times that are kept of every peer.
const WINDOW: usize = 128;
/// Time from one timed frame to the next: each is acknowledged at once, which others need not be.
const PAUSE: Duration = Duration::from_millis(10);

/// Round-trip times of the last frames to a peer, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RoundTrip {
    /// Half of them took no longer.
    pub median_ns: u64,
    /// 99 of 100 took no longer.
    pub p99_ns: u64,
    /// How many were measured, at most the window.
    pub samples: usize,
}

/// The frame being timed and the last times.
#[derive(Debug, Default)]
pub struct RoundTrips {
    timed: Option<(u64, Instant)>,
    last: Option<Instant>,
    times: VecDeque<Duration>,
}

impl RoundTrips {
    /// A connection begins: what was under way on the last one is not awaited any more.
    pub fn restart(&mut self) {
        self.timed = None;
    }

    /// Whether a frame that is sent now should be timed.
    pub fn is_due(&self, now: Instant) -> bool {
        self.timed.is_none() && self.last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE)
    }

    /// The frame up to stream offset `end`, which is timed, was sent; that was begun at `since`.
    pub fn sent(&mut self, end: u64, since: Instant) {
        self.timed = Some((end, since));
        self.last = Some(since);
    }

    /// The far end has everything up to `offset`.
    pub fn acknowledged(&mut self, offset: u64, now: Instant) {
        if let Some((end, since)) = self.timed
            && offset >= end
        {
            self.timed = None;
            if self.times.len() == WINDOW {
                self.times.pop_front();
            }
            self.times.push_back(now.saturating_duration_since(since));
        }
    }

    /// Median and 99th percentile, once there is a time.
    pub fn summary(&self) -> Option<RoundTrip> {
        let mut times: Vec<_> = self.times.iter().copied().collect();
        times.sort_unstable();
        // Nearest rank: the smallest time that so many per cent do not exceed.
        let at = |percent: usize| {
            let time = times.get((times.len() * percent).div_ceil(100).saturating_sub(1))?;
            u64::try_from(time.as_nanos()).ok()
        };
        Some(RoundTrip { median_ns: at(50)?, p99_ns: at(99)?, samples: times.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_timed_now_and_then_and_the_last_times_are_kept() {
        let start = Instant::now();
        let at = |us| start + Duration::from_micros(us);
        let mut trips = RoundTrips::default();
        assert_eq!(trips.summary(), None);
        assert!(trips.is_due(at(0)));
        trips.sent(100, at(0));
        assert!(!trips.is_due(at(20_000)), "one is under way");
        trips.acknowledged(99, at(7));
        assert_eq!(trips.summary(), None);
        trips.acknowledged(200, at(10));
        assert_eq!(trips.summary(), Some(RoundTrip { median_ns: 10_000, p99_ns: 10_000, samples: 1 }));
        assert!(!trips.is_due(at(9_999)));
        assert!(trips.is_due(at(10_000)));
        for round in 0..1000 {
            trips.sent(1000 + round, at(round * 10));
            trips.acknowledged(1000 + round, at(round * 10 + 1 + round % 2));
        }
        assert_eq!(trips.summary(), Some(RoundTrip { median_ns: 1000, p99_ns: 2000, samples: WINDOW }));
        // Lost with its connection.
        trips.sent(5000, at(0));
        trips.restart();
        trips.sent(5001, at(20_000));
        trips.acknowledged(5001, at(20_003));
        assert_eq!(trips.summary().map(|it| it.p99_ns), Some(2000));
    }
}
