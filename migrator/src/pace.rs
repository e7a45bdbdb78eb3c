//! The bandwidth cap over all streams: one token bucket as a virtual clock, without a clock of its own.

use std::time::Duration;

/// What may be caught up after a thread overslept; with [`PIECE`] less than 5 % of a second.
const BURST: Duration = Duration::from_millis(30);
/// The longest time that one booking may cost, so that the rate holds over short times too.
const PIECE: Duration = Duration::from_millis(10);

/// A rate limit: bytes push the time at which the next ones may go.
#[derive(Debug, Clone, Default)]
pub struct Bucket {
    free_at: Duration,
}

impl Bucket {
    /// Books `bytes` at time `now` (since any fixed start) under a cap of `bytes_per_s` and tells how long to wait before they
    /// go. The cap may differ from booking to booking.
    pub fn book(&mut self, now: Duration, bytes: u64, bytes_per_s: u64) -> Duration {
        let cost =
            Duration::try_from_secs_f64(bytes as f64 / bytes_per_s.max(1) as f64).unwrap_or(Duration::MAX);
        let start = self.free_at.max(now.saturating_sub(BURST));
        self.free_at = start.saturating_add(cost);
        start.saturating_sub(now)
    }
}

/// Most bytes to send in one piece under a cap of `bytes_per_s`.
pub fn piece_bytes(bytes_per_s: u64) -> usize {
    usize::try_from((bytes_per_s as f64 * PIECE.as_secs_f64()) as u64).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends for `seconds` from `now` with late wake-ups; gives the bytes of every tenth of a second.
    fn tenths(
        bucket: &mut Bucket,
        now: &mut Duration,
        seconds: u64,
        cap: impl Fn(Duration) -> u64,
    ) -> Vec<u64> {
        let (start, mut sent) = (*now, vec![0; seconds as usize * 10]);
        let mut turn = 0u64;
        while let Some(tenth) = sent.get_mut((*now - start).as_millis() as usize / 100) {
            let bytes = piece_bytes(cap(*now)) as u64;
            *tenth += bytes;
            turn += 1;
            // Every seventh sleep is 8 ms too long.
            *now += bucket.book(*now, bytes, cap(*now))
                + Duration::from_millis(if turn.is_multiple_of(7) { 8 } else { 0 });
        }
        sent
    }

    #[test]
    fn the_mean_over_any_second_is_within_five_percent_of_the_cap() {
        for cap in [1_000_000u64, 125_000_000, 2_500_000_000] {
            let mut now = Duration::from_secs(5);
            let sent = tenths(&mut Bucket::default(), &mut now, 6, |_| cap);
            for second in sent.windows(10) {
                let mean = second.iter().sum::<u64>() as f64;
                assert!((mean / cap as f64 - 1.0).abs() < 0.05, "{mean} of {cap}");
            }
        }
    }

    #[test]
    fn a_changed_cap_holds_at_once() {
        let mut now = Duration::from_secs(1);
        let change = Duration::from_secs(3);
        let cap = |now| if now < change { 10_000_000 } else { 1_000_000 };
        let sent = tenths(&mut Bucket::default(), &mut now, 5, cap);
        let mean = |range: std::ops::Range<usize>| sent[range].iter().sum::<u64>() as f64 / 1e6;
        assert!((mean(5..15) - 10.0).abs() < 0.5 && (mean(22..32) - 1.0).abs() < 0.05, "{sent:?}");
    }
}
